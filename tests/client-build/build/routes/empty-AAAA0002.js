export default () => "empty";
