// @ts-check
// The server's base path, with a trailing slash: `/`, or `/meet/` behind a proxy.

/** This module is at `static/js/base.js` below it. */
export const BASE = new URL('../../', import.meta.url).pathname;
