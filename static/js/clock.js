// @ts-check
// The time since we joined the meeting.

import { byId } from './element.js';

/**
 * @param {AbortSignal} signal
 */
export function startClock(signal) {
  const since = performance.now();
  const show = () => {
    const seconds = Math.floor((performance.now() - since) / 1_000);
    const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
    const rest = [minutes, seconds % 60].map((part) => String(part).padStart(2, '0')).join(':');
    byId('clock').textContent = hours > 0 ? `${hours}:${rest}` : rest;
  };
  show();
  const timer = setInterval(show, 1_000);
  signal.addEventListener('abort', () => clearInterval(timer));
}
