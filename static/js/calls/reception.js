// @ts-check
// How well tracks arrive, by their references.

import { worst } from './quality.js';

/** @import { Expectation } from './arrival.js' */
/** @import { Flow } from './flow.js' */

export class Reception {
  #flow;
  #trackId;

  /**
   * @param {() => Flow | undefined} flow of the current session
   * @param {(reference: string) => string | undefined} trackId of a received track
   */
  constructor(flow, trackId) {
    this.#flow = flow;
    this.#trackId = trackId;
  }

  /**
   * True if a member's connection is lost; see `Arrival`.
   * @param {Expectation} expectation with references in place of track ids
   */
  isLost({ audio, video, ...microphone }) {
    return Boolean(this.#flow()?.isLost({ audio: this.#idOf(audio), video: this.#idOf(video), ...microphone }));
  }

  /**
   * True if a video stands still.
   * @param {string | undefined} reference
   */
  isFrozen(reference) {
    const id = this.#idOf(reference);
    return id !== undefined && Boolean(this.#flow()?.isFrozen(id));
  }

  /**
   * The quality of tracks together, if any of them arrives.
   * @param {(string | undefined)[]} references
   */
  quality(references) {
    const levels = references.flatMap((reference) => {
      const id = this.#idOf(reference);
      return (id !== undefined && this.#flow()?.quality.level(id)) || [];
    });
    return levels.length > 0 ? worst(levels) : undefined;
  }

  /** The quality of what we send, once it is known. */
  get uplink() {
    return this.#flow()?.quality.uplink;
  }

  /** @param {string | undefined} reference */
  #idOf(reference) {
    return reference === undefined ? undefined : this.#trackId(reference);
  }
}
