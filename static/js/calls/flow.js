// Whether what we receive still arrives, by the bytes of each track.

/** How often the bytes are looked at. */
const LOOK = 500;

/** Muted microphones send a packet every 400 ms; a track without a byte for so long stands still. */
const STILL = 2_000;

/** Calls `changed` whenever a track stops or goes on arriving, or all do. */
export class Flow {
  /** By track id: the bytes that arrived, and when that was news. */
  #arrived = new Map();
  #still = new Set();
  #isCutOff = false;
  /** All bytes of the connection, reports on what we send included; when they were news, and how long that usually takes. */
  #total = { bytes: 0, at: 0, gap: 0 };
  #timer;
  #changed;

  constructor(connection, changed) {
    this.#changed = changed;
    this.#timer = setInterval(() => this.#look(connection), LOOK);
  }

  /** Whether this track arrived once, and does not any more. */
  isStill(track) {
    return this.#still.has(track.id);
  }

  /** Whether nothing at all arrives any more. */
  get isCutOff() {
    return this.#isCutOff;
  }

  end() {
    clearInterval(this.#timer);
  }

  async #look(connection) {
    const stats = await connection.getStats();
    const now = performance.now();
    const seen = new Set();
    for (const { type, trackIdentifier, bytesReceived } of stats.values()) {
      if (type !== 'inbound-rtp' || !trackIdentifier || !bytesReceived) continue;
      seen.add(trackIdentifier);
      if (this.#arrived.get(trackIdentifier)?.bytes !== bytesReceived) this.#arrived.set(trackIdentifier, { bytes: bytesReceived, at: now });
    }
    for (const id of this.#arrived.keys()) if (!seen.has(id)) this.#arrived.delete(id);
    const still = new Set([...this.#arrived].filter(([, { at }]) => now - at >= STILL).map(([id]) => id));
    const isCutOff = this.#isSilent(stats, now) || connection.iceConnectionState === 'disconnected';
    const isNews = isCutOff !== this.#isCutOff || still.size !== this.#still.size || [...still].some((id) => !this.#still.has(id));
    this.#still = still;
    this.#isCutOff = isCutOff;
    if (isNews) this.#changed();
  }

  /** Whether not even reports on what we send arrive. Who sends nothing may hear nothing, if all others are gone. */
  #isSilent(stats, now) {
    let bytes = 0;
    let isSending = false;
    for (const { type, bytesReceived, bytesSent } of stats.values()) {
      if (type === 'candidate-pair') bytes += bytesReceived ?? 0;
      isSending ||= type === 'outbound-rtp' && bytesSent > 0;
    }
    const total = this.#total;
    if (bytes !== total.bytes) {
      const gap = total.at === 0 ? 0 : now - total.at;
      this.#total = { bytes, at: now, gap: Math.max(gap, 0.9 * total.gap) };
      return false;
    }
    return isSending && bytes > 0 && now - total.at >= Math.max(STILL, 3 * total.gap);
  }
}
