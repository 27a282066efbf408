// @ts-check
// The server's clock, as well as the network lets it be known.

/** @import { Signalling } from '../signalling.js' */

/** Number of questions in a row; the one that is answered fastest counts. */
const QUESTIONS = 4;
const BETWEEN = 150;

/** Age of an answer from which others are asked for: clocks drift. */
const MAX_AGE = 60_000;

export class ServerClock {
  #signalling;
  /** Milliseconds between the start of our clock and 1970 by that of the server. */
  #start = performance.timeOrigin;
  #fastest = Infinity;
  #asked = -Infinity;
  #number = 0;
  /**
   * Our time of each question that waits for its answer, by its number.
   * @type {Map<number, number>}
   */
  #waiting = new Map();
  #learned;

  /**
   * @param {Signalling} signalling
   * @param {() => void} learned is called when the clock is known better
   * @param {AbortSignal} signal
   */
  constructor(signalling, learned, signal) {
    this.#signalling = signalling;
    this.#learned = learned;
    signalling.on('clock', ({ ref, at }) => this.#learn(ref, at), { signal });
    // Another server may have another clock.
    signalling.on('open', () => (this.#asked = -Infinity), { signal });
  }

  /** The server's time in milliseconds since 1970. */
  get now() {
    return this.#start + performance.now();
  }

  /** Asks for the time, unless it is known well enough. */
  check() {
    const now = performance.now();
    if (now - this.#asked < MAX_AGE) return;
    this.#asked = now;
    this.#fastest = Infinity;
    this.#waiting.clear();
    for (let count = 0; count < QUESTIONS; count += 1) setTimeout(() => this.#ask(), count * BETWEEN);
  }

  #ask() {
    this.#number += 1;
    this.#waiting.set(this.#number, performance.now());
    this.#signalling.sendIfOpen({ type: 'clock', ref: this.#number });
  }

  /**
   * The server read its clock about half way between question and answer.
   * @param {number} ref
   * @param {number} at
   */
  #learn(ref, at) {
    const asked = this.#waiting.get(ref);
    if (asked === undefined) return;
    this.#waiting.delete(ref);
    const took = performance.now() - asked;
    if (took >= this.#fastest) return;
    this.#fastest = took;
    this.#start = at - asked - took / 2;
    this.#learned();
  }
}
