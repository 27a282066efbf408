// @ts-check
// Watches received media, by the bytes of each track.

import { Arrival } from './arrival.js';

/** @import { Expectation } from './arrival.js' */

/** Interval between two samples. */
const SAMPLE = 500;

export class Flow {
  #arrival = new Arrival();
  #isDisconnected = false;
  #timer;
  #changed;

  /**
   * Calls `changed` when a track, or all of them, stop or resume; while one is still, at every sample.
   * @param {RTCPeerConnection} connection
   * @param {() => void} changed
   */
  constructor(connection, changed) {
    this.#changed = changed;
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
    const before = { isCutOff: this.isCutOff, hasStill: this.#arrival.hasStill };
    this.#arrival.take(performance.now(), { tracks, bytes, isSending });
    this.#isDisconnected = connection.iceConnectionState === 'disconnected';
    if (before.hasStill || this.#arrival.hasStill || before.isCutOff !== this.isCutOff) this.#changed();
  }
}
