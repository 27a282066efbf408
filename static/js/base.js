// The path below which the server is, with a slash at its end: `/`, or `/meet/` behind a proxy.

/** This module is at `static/js/base.js` below it. */
export const BASE = new URL('../../', import.meta.url).pathname;
