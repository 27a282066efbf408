export default () => "name";
