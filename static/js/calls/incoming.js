// @ts-check
// The received tracks: which are wanted, in which layer, and which are there.

/** @import { Retry } from './retry.js' */

/**
 * A wanted track, and the best layer that is worth its bandwidth: a simulcast `rid`, or the best there is.
 * @typedef {{ reference: string, layer?: string }} Wanted
 */

/**
 * A received track, and its state in the current session: its transceiver and the layer that was asked for.
 * @typedef {Retry & Wanted & { transceiver?: RTCRtpTransceiver, asked?: string }} Incoming
 */

/** Failed tries of all tracks after which other members' media may be expected to have recovered. */
const STARVING = 6;

/** State of a track in a session that does not have it yet. */
const UNRECEIVED = { transceiver: undefined, asked: undefined, tries: 0, retryAt: 0 };

export class IncomingTracks {
  /**
   * By reference.
   * @type {Map<string, Incoming>}
   */
  #tracks = new Map();

  get size() {
    return this.#tracks.size;
  }

  get all() {
    return [...this.#tracks.values()];
  }

  /**
   * Wants exactly these tracks. Returns those that are wanted no longer.
   * @param {Wanted[]} wanted
   */
  want(wanted) {
    const layers = new Map(wanted.map(({ reference, layer }) => [reference, layer]));
    const gone = this.all.filter(({ reference }) => !layers.has(reference));
    for (const { reference } of gone) this.#tracks.delete(reference);
    for (const [reference, layer] of layers) {
      const known = this.#tracks.get(reference);
      if (known) known.layer = layer;
      else this.#tracks.set(reference, { reference, layer, ...UNRECEIVED });
    }
    return gone;
  }

  /**
   * True if this track is wanted still.
   * @param {Incoming} track
   */
  has(track) {
    return this.#tracks.get(track.reference) === track;
  }

  /** Tracks to subscribe to. */
  get unreceived() {
    return this.all.filter(({ transceiver }) => !transceiver);
  }

  /** Tracks of which another layer is wanted than was asked for. */
  get relayered() {
    return this.all.filter(({ transceiver, layer, asked }) => transceiver && layer !== asked);
  }

  /**
   * The tracks that are there, by their references.
   * @returns {Map<string, MediaStreamTrack>}
   */
  get received() {
    return new Map(this.all.flatMap(({ reference, transceiver }) => (transceiver ? [[reference, transceiver.receiver.track]] : [])));
  }

  /** @param {string} reference */
  trackId(reference) {
    return this.#tracks.get(reference)?.transceiver?.receiver.track.id;
  }

  /** True if none of the wanted tracks could be received for a while. */
  get isStarving() {
    return this.size > 0 && this.all.every(({ transceiver, tries }) => !transceiver && tries >= STARVING);
  }

  /** Forgets the session. Returns true if it had any of these tracks. */
  reset() {
    const had = this.all.some(({ transceiver }) => transceiver);
    for (const track of this.#tracks.values()) Object.assign(track, UNRECEIVED);
    return had;
  }
}
