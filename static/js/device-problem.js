// @ts-check
// Reasons that a camera or microphone is unavailable, as text for the user.

import { text } from './texts.js';

/** @import { DeviceKind } from './devices.js' */
/** @import { TextKey } from './texts.js' */

/** The texts by the name of the browser's error (Media Capture and Streams, section 9.2). */
const BY_NAME = /** @type {const} */ ({
  NotFoundError: 'notFound',
  NotReadableError: 'busy',
  OverconstrainedError: 'disconnected',
  InsecureContext: 'insecure',
});

/**
 * Returns the text about a failed request.
 * @param {DeviceKind} kind
 * @param {unknown} failure
 */
export function deviceProblem(kind, failure) {
  const { name, message } = failure instanceof Error ? failure : new Error();
  if (name !== 'NotAllowedError') return text(`${kind}.${BY_NAME[/** @type {keyof typeof BY_NAME} */ (name)] ?? 'broken'}`);
  // Chromium tells these apart by the message alone.
  if (/by system/i.test(message)) return text(`${kind}.blockedBySystem`);
  if (/dismissed/i.test(message)) return text(`${kind}.dismissed`);
  return text(`${kind}.blocked`, { allow: text(placeToAllow(navigator.userAgent)) });
}

/**
 * Returns the key of the text about the place where this browser allows devices.
 * @param {string} userAgent
 * @returns {TextKey}
 */
function placeToAllow(userAgent) {
  if (/iPhone|iPad/.test(userAgent)) return 'allow.iphone';
  if (/Firefox\//.test(userAgent)) return 'allow.firefox';
  if (/Chrom(e|ium)\//.test(userAgent)) return /Android/.test(userAgent) ? 'allow.android' : 'allow.chromium';
  return /Safari\//.test(userAgent) ? 'allow.safari' : 'allow.other';
}
