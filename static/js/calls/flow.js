// @ts-check
// Watches received media, by the statistics of the connection, which are read in this one place.

import { Arrival } from './arrival.js';
import { Quality } from './quality.js';

/** @import { Expectation } from './arrival.js' */

/** Interval between two samples: the statistics of many tracks cost more, so they are read more rarely. */
const SAMPLE = { first: 500, perTrack: 25, longest: 2_000 };

/** Interval between two judgements of the quality. */
const JUDGE = 2_000;

export class Flow {
  quality = new Quality();

  #arrival = new Arrival();
  #judgedAt = 0;
  #isDisconnected = false;
  /** @type {number | undefined} */
  #timer;
  #hasEnded = false;
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
    this.#sampleLater(connection, 0);
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
    this.#hasEnded = true;
    clearTimeout(this.#timer);
  }

  /**
   * @param {RTCPeerConnection} connection
   * @param {number} tracks
   */
  #sampleLater(connection, tracks) {
    const pause = Math.min(Math.max(SAMPLE.first, tracks * SAMPLE.perTrack), SAMPLE.longest);
    this.#timer = setTimeout(async () => {
      const sampled = await this.#sample(connection);
      if (!this.#hasEnded) this.#sampleLater(connection, sampled);
    }, pause);
  }

  /**
   * Takes a sample and returns its number of received tracks.
   * @param {RTCPeerConnection} connection
   */
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
    if (now - this.#judgedAt >= JUDGE) {
      this.#judgedAt = now;
      this.quality.take(now, stats.values());
      this.#judged();
    }
    return tracks.size;
  }
}
