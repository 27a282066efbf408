// @ts-check
// The state of a member's media, as the stage shows it.

/** @import { Level } from './calls/quality.js' */
/** @import { Media } from './calls/media.js' */
/** @import { User } from './signalling.js' */

/**
 * `isReceived` unless nothing can arrive for lack of a media service; `isLost` if nothing at all arrives from a member, `isFrozen` if the video alone stands still; the quality of person and
 * screen, where something arrives.
 * @typedef {{ isReceived: boolean, isLost: boolean, isFrozen: boolean, quality?: Level, screenQuality?: Level }} Status
 */

export class MemberStatus {
  #media;
  #myId;
  /**
   * Microphone state by user id: muted or not, and the time of the last change.
   * @type {Map<string, { isMuted: boolean, since: number }>}
   */
  #microphones = new Map();

  /**
   * @param {() => Media | undefined} media
   * @param {string} myId
   */
  constructor(media, myId) {
    this.#media = media;
    this.#myId = myId;
  }

  /**
   * @param {User} user
   * @returns {Status}
   */
  of(user) {
    const reception = this.#media()?.reception;
    if (user.id === this.#myId) return { isReceived: true, isLost: false, isFrozen: false, quality: reception?.uplink, screenQuality: reception?.uplink };
    const { tracks } = user;
    const isLost = this.#isLost(user);
    const video = tracks.videoEnabled ? tracks.video : undefined;
    return {
      isReceived: reception !== undefined,
      isLost,
      isFrozen: !isLost && Boolean(reception?.isFrozen(video)),
      quality: reception?.quality([tracks.audio, video]),
      screenQuality: reception?.quality([tracks.screenshare]),
    };
  }

  /**
   * To be called when a member has left.
   * @param {string} id
   */
  forget(id) {
    this.#microphones.delete(id);
  }

  /**
   * True if nothing arrives from another member. The AI may send nothing while it is silent.
   * @param {User} user
   */
  #isLost({ id, tracks }) {
    if (id === 'ai') return false;
    const isMuted = !tracks.audioEnabled;
    let microphone = this.#microphones.get(id);
    if (microphone?.isMuted !== isMuted) {
      microphone = { isMuted, since: performance.now() };
      this.#microphones.set(id, microphone);
    }
    const video = tracks.videoEnabled ? tracks.video : undefined;
    return Boolean(this.#media()?.reception.isLost({ audio: tracks.audio, video, ...microphone }));
  }
}
