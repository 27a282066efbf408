// @ts-check
// The quality of each received track and of our own uplink, from the statistics of a connection. Pure arithmetic: time and
// statistics are arguments.

/**
 * A level of quality: 3 is good, 2 is fair, 1 is poor.
 * @typedef {1 | 2 | 3} Level
 */

/**
 * A measure with the values above which it is no longer good, and no longer fair.
 * @typedef {{ fair: number, poor: number }} Bounds
 */

/** Share of packets that were lost. */
const LOSS = { fair: 0.02, poor: 0.08 };

/** Variation of delay in seconds. */
const JITTER = { fair: 0.04, poor: 0.12 };

/** Share of time in which a video stood still. */
const FREEZE = { fair: 0.03, poor: 0.2 };

/** Round-trip time in seconds. */
const ROUND_TRIP = { fair: 0.3, poor: 0.7 };

/** Minimum number of packets of which a loss says something: a muted microphone sends a few a second. */
const MIN_PACKETS = 10;

/**
 * The counters of one track, as far as they are used (webrtc-stats).
 * @typedef {object} Counters
 * @property {number} packets
 * @property {number} lost
 * @property {number} freezes seconds
 * @property {number} [frames] decoded frames of a video
 */

/** @typedef {{ now: number, tracks: Map<string, Counters> }} Sample */

export class Quality {
  /** @type {Sample | undefined} */
  #before;
  /** @type {Map<string, Level>} */
  #levels = new Map();
  /** @type {Set<string>} */
  #frozen = new Set();
  /** @type {Level | undefined} */
  #uplink;

  /**
   * Adds a sample: the statistics of the connection.
   * @param {number} now in milliseconds
   * @param {Iterable<any>} stats
   */
  take(now, stats) {
    const all = [...stats];
    /** @type {Map<string, Counters>} */
    const tracks = new Map();
    /** @type {Map<string, Level>} */
    const levels = new Map();
    /** @type {Set<string>} */
    const frozen = new Set();
    for (const report of all) {
      if (report.type !== 'inbound-rtp' || !report.trackIdentifier) continue;
      const id = report.trackIdentifier;
      const counters = countersOf(report);
      tracks.set(id, counters);
      const before = this.#before?.tracks.get(id);
      if (!before || !this.#before) continue;
      const seconds = (now - this.#before.now) / 1_000;
      const received = counters.packets - before.packets;
      const lost = Math.max(0, counters.lost - before.lost);
      // Nothing arrives, of which `Arrival` tells.
      if (received + lost > 0) {
        const loss = received + lost < MIN_PACKETS ? 0 : lost / (received + lost);
        const measures = [level(loss, LOSS), level(report.jitter ?? 0, JITTER), level((counters.freezes - before.freezes) / seconds, FREEZE)];
        levels.set(id, this.#steady(this.#levels.get(id), worst(measures)));
      }
      // Packets without a frame: it waits for a keyframe.
      if (counters.frames && counters.frames === before.frames) frozen.add(id);
    }
    this.#uplink = this.#steady(this.#uplink, uplinkOf(all));
    this.#before = { now, tracks };
    this.#levels = levels;
    this.#frozen = frozen;
  }

  /**
   * The level of a track, if anything arrived of it.
   * @param {string} id
   */
  level(id) {
    return this.#levels.get(id);
  }

  /**
   * True if no frame of a video was decoded since the last sample, although there were some before.
   * @param {string} id
   */
  isFrozen(id) {
    return this.#frozen.has(id);
  }

  /** The level of what we send, once the media service reported on it. */
  get uplink() {
    return this.#uplink;
  }

  /**
   * Falls at once and rises by one step at a time, so that one good moment hides no bad connection.
   * @template {Level | undefined} Now
   * @param {Level | undefined} before
   * @param {Now} now
   * @returns {Now | Level}
   */
  #steady(before, now) {
    if (before === undefined || now === undefined || now <= before) return now;
    return /** @type {Level} */ (before + 1);
  }
}

/**
 * @param {any} report
 * @returns {Counters}
 */
function countersOf({ packetsReceived = 0, packetsLost = 0, totalFreezesDuration = 0, framesDecoded }) {
  return { packets: packetsReceived, lost: packetsLost, freezes: totalFreezesDuration, frames: framesDecoded };
}

/**
 * Returns the level of what is sent, by the reports of the media service and the encoder's limit.
 * @param {any[]} stats
 * @returns {Level | undefined}
 */
function uplinkOf(stats) {
  /** @type {Level[]} */
  const levels = [];
  for (const report of stats) {
    if (report.type === 'remote-inbound-rtp') levels.push(level(report.fractionLost ?? 0, LOSS));
    if (report.type === 'candidate-pair' && report.nominated && report.currentRoundTripTime !== undefined) {
      levels.push(level(report.currentRoundTripTime, ROUND_TRIP));
    }
    if (report.type === 'outbound-rtp' && report.qualityLimitationReason === 'bandwidth') levels.push(2);
  }
  return levels.length > 0 ? worst(levels) : undefined;
}

/**
 * @param {number} value
 * @param {Bounds} bounds
 * @returns {Level}
 */
function level(value, { fair, poor }) {
  if (value > poor) return 1;
  return value > fair ? 2 : 3;
}

/**
 * Returns the lowest of these levels.
 * @param {Level[]} levels
 * @returns {Level}
 */
export function worst(levels) {
  return /** @type {Level} */ (Math.min(...levels));
}
