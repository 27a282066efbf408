// A worker that tells when a heartbeat is due. A page in the background has its own timers held back
// to one a minute, and would be taken for gone; a worker's run on.

const HEARTBEAT = 5_000;

setInterval(() => postMessage('due'), HEARTBEAT);
