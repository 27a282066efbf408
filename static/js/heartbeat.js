// @ts-check
// A worker that signals when a heartbeat is due. Browsers throttle the timers of a background page to one a minute, and
// the server would remove its user; a worker's timers are not throttled.

const HEARTBEAT = 5_000;

setInterval(() => postMessage('due'), HEARTBEAT);
