export default () => "_index";
