// @ts-check
// Retries of tracks, with growing pauses.

/** Maximum number of tracks in a call; the media API allows 64. */
export const BATCH = 32;

const FIRST_PAUSE = 250;
const MAX_PAUSE = 10_000;

/**
 * The retries of a track.
 * @typedef {{ tries: number, retryAt: number }} Retry
 */

/**
 * Returns a batch of the tracks whose retry is due.
 * @template {Retry} T
 * @param {T[]} tracks
 */
export function due(tracks) {
  return tracks.filter(({ retryAt }) => retryAt <= performance.now()).slice(0, BATCH);
}

/**
 * Schedules the next try of a track.
 * @param {Retry} track
 */
export function tryLater(track) {
  track.tries += 1;
  track.retryAt = performance.now() + pause(track.tries);
}

/**
 * Returns the pause before the next try.
 * @param {number} tries
 */
export function pause(tries) {
  return Math.min(FIRST_PAUSE * 2 ** tries, MAX_PAUSE);
}
