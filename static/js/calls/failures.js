// @ts-check
// Failures of media sessions and calls in a row: the pause that they call for, and the words for them.

import { text } from '../texts.js';
import { CallsError } from './api.js';
import { pause } from './retry.js';
import { ConnectionError } from './session.js';

/** Failures in a row after which the user is informed. */
const WORRYING = 3;

export class Failures {
  count = 0;
  /**
   * Cause of the last failure.
   * @type {unknown}
   */
  #last;

  /**
   * @param {unknown} error
   * @param {boolean} wasConnected true if the session had a connection before
   */
  add(error, wasConnected) {
    this.#last = error;
    // A connection that was never established already had its timeout.
    const isHopeless = error instanceof ConnectionError && !wasConnected;
    this.count = isHopeless ? Math.max(this.count, WORRYING) : this.count + 1;
  }

  /** To be called after a success. */
  forget() {
    this.count = 0;
  }

  /**
   * Waits before the next try.
   * @returns {Promise<void>}
   */
  pause() {
    return new Promise((resolve) => setTimeout(resolve, pause(this.count)));
  }

  /** The end of a sentence about the cause, if the user should know. */
  get trouble() {
    return this.count >= WORRYING ? explain(this.#last) : undefined;
  }
}

/**
 * Returns the end of a sentence about the cause, for the user.
 * @param {unknown} error
 */
function explain(error) {
  if (error instanceof ConnectionError) return text(error.wasConnected ? 'media.broken' : 'media.blocked');
  const refusal = error instanceof Error ? [error, error.cause].find((cause) => cause instanceof CallsError) : undefined;
  if (!refusal) return text('media.incompatible');
  if (refusal.code === 'unreachable') return text('media.unreachable');
  return refusal.description || text('media.refused', { code: refusal.code });
}
