export default () => "_room";
