// A client of a few lines that starts as the stock one does, and shows what it found.
import { say } from "./shared-AAAA0009.js";

const { url, state, future } = window.__remixContext;
const shown = {
  release: window.ENV.RELEASE,
  atItsPath: url === location.pathname,
  routes: Object.keys(window.__remixRouteModules),
  rendered: Object.values(window.__remixRouteModules).map(module => module.default()),
  data: state.loaderData,
  future,
  version: window.__remixManifest.version,
  shared: say("shared"),
};
// Components of the client have inline styles.
document.body.innerHTML = `<p style="color: rgb(1, 2, 3)">here</p>`;
shown.style = getComputedStyle(document.querySelector("p")).color;
shown.margin = getComputedStyle(document.body).margin;
const worker = new Worker("/worker.js");
worker.onmessage = ({ data }) => {
  shown.worker = data;
  window.shown = shown;
};

// As the client's router asks for data and sends forms.
window.load = async (path, id) => {
  const response = await fetch(`${path}${path.includes("?") ? "&" : "?"}_data=${encodeURIComponent(id)}`);
  return { status: response.status, data: await response.json() };
};
window.send = async (path, id, form) => {
  const body = new URLSearchParams(form);
  const response = await fetch(`${path}${path.includes("?") ? "&" : "?"}_data=${encodeURIComponent(id)}`, { method: "POST", body });
  return { status: response.status, redirect: response.headers.get("x-remix-redirect") };
};
