import { say } from "./shared-AAAA0009.js";
export const styles = "/build/_assets/page-AAAA0012.css";
export default () => say("root");
