// @ts-check
// Rates of media sessions over time, from the counters that the embedded media server reports.

/**
 * @typedef {object} SessionReport
 * @property {string} id
 * @property {string} owner
 * @property {string} state
 * @property {number} age_seconds
 * @property {number} publishes
 * @property {number} subscribes
 * @property {number | null} estimate_bits
 * @property {number} received_bytes
 * @property {number} sent_bytes
 * @property {number} lost_packets
 */

/**
 * @typedef {object} TrackReport
 * @property {string} session
 * @property {string} name
 * @property {string} kind
 * @property {string | null} codec
 * @property {{ rid: string | null, bits: number, live: boolean }[]} layers
 * @property {{ session: string, mid: string, rid: string | null, paused: boolean, packets: number }[]} subscribers
 */

/** @typedef {{ sessions: SessionReport[], tracks: TrackReport[] }} MediaReport */

/**
 * The rates of a session at one moment: bits and packets a second; null where they are not known.
 * @typedef {object} Sample
 * @property {number | null} received
 * @property {number | null} sent
 * @property {number | null} lost
 * @property {number | null} estimate
 */

/** Samples of each session and layer. */
export const SAMPLES = 150;

export class MediaLog {
  /** @type {Map<string, Sample[]>} */
  #sessions = new Map();
  /** @type {Map<string, (number | null)[]>} */
  #layers = new Map();
  /** @type {Map<string, SessionReport>} */
  #before = new Map();
  #at = 0;

  /**
   * Adds a report.
   * @param {MediaReport} report
   * @param {number} at its time in milliseconds
   */
  add(report, at) {
    const seconds = (at - this.#at) / 1000;
    // After a pause the rates would be averages over it, which look like samples.
    const isNext = this.#at > 0 && seconds > 0 && seconds < MAX_GAP;
    for (const session of report.sessions) {
      const before = isNext ? this.#before.get(session.id) : undefined;
      /** @param {'received_bytes' | 'sent_bytes' | 'lost_packets'} counter */
      const rate = (counter) => (before ? Math.max(0, session[counter] - before[counter]) / seconds : null);
      const bits = (/** @type {number | null} */ bytes) => (bytes === null ? null : bytes * 8);
      push(this.#sessions, session.id, {
        received: bits(rate('received_bytes')),
        sent: bits(rate('sent_bytes')),
        lost: rate('lost_packets'),
        estimate: session.estimate_bits,
      });
    }
    const layers = new Set();
    for (const track of report.tracks) {
      for (const { rid, bits, live } of track.layers) {
        const key = layerKey(track, rid);
        layers.add(key);
        push(this.#layers, key, live ? bits : null);
      }
    }
    this.#before = new Map(report.sessions.map((session) => [session.id, session]));
    this.#at = at;
    for (const id of this.#sessions.keys()) if (!this.#before.has(id)) this.#sessions.delete(id);
    for (const key of this.#layers.keys()) if (!layers.has(key)) this.#layers.delete(key);
  }

  /** @param {string} id */
  session(id) {
    return this.#sessions.get(id) ?? [];
  }

  /**
   * @param {TrackReport} track
   * @param {string | null} rid
   */
  layer(track, rid) {
    return this.#layers.get(layerKey(track, rid)) ?? [];
  }
}

/** Seconds between two reports beyond which no rate is told. */
const MAX_GAP = 10;

/**
 * @param {TrackReport} track
 * @param {string | null} rid
 */
function layerKey(track, rid) {
  return JSON.stringify([track.session, track.name, rid]);
}

/**
 * @template T
 * @param {Map<string, T[]>} map
 * @param {string} key
 * @param {T} value
 */
function push(map, key, value) {
  const values = map.get(key) ?? [];
  values.push(value);
  if (values.length > SAMPLES) values.shift();
  map.set(key, values);
}
