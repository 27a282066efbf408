// Looks whether what we receive still arrives, by the bytes of each track.

import { Arrival } from './arrival.js';

const LOOK = 500;

export class Flow {
  #arrival = new Arrival();
  #isDisconnected = false;
  #timer;
  #changed;

  /** Calls `changed` whenever a track stops or goes on arriving, or all do; while one stands still, at every look. */
  constructor(connection, changed) {
    this.#changed = changed;
    this.#timer = setInterval(() => this.#look(connection), LOOK);
  }

  /** True if nothing at all arrives any more. */
  get isCutOff() {
    return this.#isDisconnected || this.#arrival.isCutOff;
  }

  /** See `Arrival.isLost`. */
  isLost(person) {
    return this.#arrival.isLost(person);
  }

  end() {
    clearInterval(this.#timer);
  }

  async #look(connection) {
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
