export default () => "feedback";
