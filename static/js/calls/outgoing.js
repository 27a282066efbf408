// @ts-check
// The sent tracks: at most one of each kind, and its state in the current session.

import { nameLayers } from './layers.js';

/** @import { Retry } from './retry.js' */
/** @import { CallsSession } from './session.js' */

/** @typedef {'audio' | 'video' | 'screenshare'} TrackKind */

/**
 * A sent track, and its state in the current session. It is pushed once the media service accepted it, and has a
 * reference once it flows.
 * @typedef {Retry & {
 *   track: MediaStreamTrack,
 *   encodings: RTCRtpEncodingParameters[],
 *   transceiver?: RTCRtpTransceiver,
 *   name?: string,
 *   reference?: string,
 *   isPushed: boolean,
 * }} Outgoing
 */

/** State of a track in a session that does not have it yet. */
const UNSENT = { transceiver: undefined, tries: 0, retryAt: 0, name: undefined, reference: undefined, isPushed: false };

/** Interval between two looks for the first sent packet. */
const LOOK = 100;

export class OutgoingTracks {
  /** @type {Map<TrackKind, Outgoing>} */
  #tracks = new Map();

  get size() {
    return this.#tracks.size;
  }

  /** @param {TrackKind} kind */
  track(kind) {
    return this.#tracks.get(kind)?.track;
  }

  /** @param {TrackKind} kind */
  reference(kind) {
    return this.#tracks.get(kind)?.reference;
  }

  /**
   * Sends this track as the only one of its kind; undefined sends none. Returns what is sent no longer.
   * @param {TrackKind} kind
   * @param {MediaStreamTrack | undefined} track
   * @param {RTCRtpEncodingParameters[]} encodings
   */
  set(kind, track, encodings) {
    const known = this.#tracks.get(kind);
    if (!track) {
      this.#tracks.delete(kind);
      return known;
    }
    if (known) {
      known.track = track;
      known.transceiver?.sender.replaceTrack(track);
    } else {
      this.#tracks.set(kind, { track, encodings, ...UNSENT });
    }
    return undefined;
  }

  /**
   * True if this track is to be sent still.
   * @param {Outgoing} track
   */
  has(track) {
    return [...this.#tracks.values()].includes(track);
  }

  /** Tracks that the session does not have yet. */
  get unsent() {
    return [...this.#tracks.values()].filter(({ isPushed }) => !isPushed);
  }

  /** Forgets the session. */
  reset() {
    for (const track of this.#tracks.values()) Object.assign(track, UNSENT);
  }
}

/**
 * Gives a track its name and its transceiver in a connection.
 * @param {RTCPeerConnection} connection
 * @param {Outgoing} push
 */
export function prepare(connection, push) {
  const { track, encodings } = push;
  const name = (push.name ??= crypto.randomUUID());
  const transceiver = (push.transceiver ??= connection.addTransceiver(track, { direction: 'sendonly', sendEncodings: encodings }));
  if (encodings.length > 1) nameLayers(transceiver);
  return { push, name, transceiver };
}

/**
 * Waits for the first sent packet of a track; returns false if none will come.
 * @param {CallsSession} session
 * @param {Outgoing} push
 */
export async function untilSent(session, push) {
  while (!session.isBroken && push.transceiver && push.transceiver.currentDirection !== 'stopped') {
    const stats = await push.transceiver.sender.getStats();
    if ([...stats.values()].some(({ type, bytesSent }) => type === 'outbound-rtp' && bytesSent > 0)) return true;
    await new Promise((resolve) => setTimeout(resolve, LOOK));
  }
  return false;
}
