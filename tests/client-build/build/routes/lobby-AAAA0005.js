export default () => "lobby";
