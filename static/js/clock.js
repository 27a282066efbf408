// @ts-check
// The age of the meeting.

import { byId } from './element.js';

/**
 * Shows the time since the meeting began, or since we joined, until `signal` ends it.
 * @param {() => string | undefined} meetingId
 * @param {number} ahead milliseconds by which the server's clock is ahead of ours
 * @param {AbortSignal} signal
 */
export function startClock(meetingId, ahead, signal) {
  const joinedAt = Date.now() + ahead;
  const show = () => {
    const since = beganAt(meetingId()) ?? joinedAt;
    // Our clock may be set back meanwhile.
    const seconds = Math.max(0, Math.floor((Date.now() + ahead - since) / 1_000));
    const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
    const rest = [minutes, seconds % 60].map((part) => String(part).padStart(2, '0')).join(':');
    byId('clock').textContent = hours > 0 ? `${hours}:${rest}` : rest;
  };
  show();
  const timer = setInterval(show, 1_000);
  signal.addEventListener('abort', () => clearInterval(timer));
}

/**
 * Returns the time in milliseconds since 1970 that a meeting's id begins with (RFC 9562, version 7). Ids of servers before
 * 0.2 are random.
 * @param {string} [id]
 */
function beganAt(id = '') {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-7/.test(id) ? parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : undefined;
}
