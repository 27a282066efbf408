// @ts-check
// Watches received media, by the statistics of the connection, which are read in this one place.

import { Arrival } from './arrival.js';
import { Quality } from './quality.js';

/** @import { Expectation } from './arrival.js' */

/** Interval between two samples. */
const SAMPLE = 500;

/** Interval between two judgements of the quality. */
const JUDGE = 2_000;

export class Flow {
  quality = new Quality();

  #arrival = new Arrival();
  #judgedAt = 0;
  #isDisconnected = false;
  #timer;
  #changed;
  #judged;

  /**
   * Calls `changed` when a track, or all of them, stop or resume; while one is still, at every sample. Calls `judged` when
   * the quality was judged anew.
   * @param {RTCPeerConnection} connection
   * @param {{ changed: () => void, judged: () => void }} listeners
   */
  constructor(connection, { changed, judged }) {
    this.#changed = changed;
    this.#judged = judged;
    this.#timer = setInterval(() => this.#sample(connection), SAMPLE);
  }

  /** True if nothing at all arrives any more. */
  get isCutOff() {
    return this.#isDisconnected || this.#arrival.isCutOff;
  }

  /**
   * See `Arrival.isLost`.
   * @param {Expectation} expectation
   */
  isLost(expectation) {
    return this.#arrival.isLost(expectation);
  }

  /**
   * True if a track arrived before, and stopped, or if its frames did.
   * @param {string} id
   */
  isFrozen(id) {
    return this.#arrival.isStill(id) || this.quality.isFrozen(id);
  }

  end() {
    clearInterval(this.#timer);
  }

  /** @param {RTCPeerConnection} connection */
  async #sample(connection) {
    const stats = await connection.getStats();
    const tracks = new Map();
    let bytes = 0;
    let isSending = false;
    for (const { type, trackIdentifier, bytesReceived, bytesSent } of stats.values()) {
      if (type === 'inbound-rtp' && trackIdentifier && bytesReceived) tracks.set(trackIdentifier, bytesReceived);
      if (type === 'candidate-pair') bytes += bytesReceived ?? 0;
      isSending ||= type === 'outbound-rtp' && bytesSent > 0;
    }
    const now = performance.now();
    const before = { isCutOff: this.isCutOff, hasStill: this.#arrival.hasStill };
    this.#arrival.take(now, { tracks, bytes, isSending });
    this.#isDisconnected = connection.iceConnectionState === 'disconnected';
    if (before.hasStill || this.#arrival.hasStill || before.isCutOff !== this.isCutOff) this.#changed();
    if (now - this.#judgedAt < JUDGE) return;
    this.#judgedAt = now;
    this.quality.take(now, stats.values());
    this.#judged();
  }
}
