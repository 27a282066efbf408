export default () => "room";
