// @ts-check
// Detects that expected media stopped arriving. Pure arithmetic: time and counts are arguments.

/** Time without a byte after which a track is still. Muted microphones send a packet every 400 ms (Opus DTX). */
const STILL = 2_000;

/** A track that received bytes this shortly before a silence was expected to continue. */
const JUST_BEFORE = 1_000;

/** Initial and maximum estimate of the interval between reports. */
const FIRST_GAP = 2_000;
const MAX_GAP = 10_000;

/** Maximum delay of packets that were under way when a microphone was muted. */
const SETTLING = 1_500;

/**
 * A member's expected tracks, by their ids; the microphone is muted or not since some time.
 * @typedef {{ audio?: string, video?: string, isMuted: boolean, since: number }} Expectation
 */

export class Arrival {
  /**
   * By track id: the bytes received, and the time of the last increase.
   * @type {Map<string, { bytes: number, at: number }>}
   */
  #tracks = new Map();
  /**
   * All bytes of the connection, including reports on sent media; the time of the last increase, and the longest usual
   * interval between two.
   */
  #total = { bytes: 0, at: 0, gap: FIRST_GAP };
  #now = 0;
  #isCutOff = false;

  /**
   * Adds one sample: the received bytes of each track by its id, and of all; and true if media is sent.
   * @param {number} now
   * @param {{ tracks: Map<string, number>, bytes: number, isSending: boolean }} sample
   */
  take(now, { tracks, bytes, isSending }) {
    this.#now = now;
    for (const id of this.#tracks.keys()) if (!tracks.has(id)) this.#tracks.delete(id);
    const total = this.#total;
    // Media arrives often. Reports alone arrive as rarely as the media service chooses.
    const wasReceiving = [...this.#tracks.values()].some(({ at }) => at >= total.at - JUST_BEFORE);
    for (const [id, bytes] of tracks) {
      if (this.#tracks.get(id)?.bytes !== bytes) this.#tracks.set(id, { bytes, at: now });
    }
    if (bytes > total.bytes) {
      const gap = total.at === 0 || wasReceiving ? 0 : now - total.at;
      this.#total = { bytes, at: now, gap: Math.max(Math.min(gap, MAX_GAP), 0.9 * total.gap) };
      this.#isCutOff = false;
      return;
    }
    // The count of an abandoned transport is lost.
    total.bytes = bytes;
    // A client that sends nothing may receive nothing, if all others are gone.
    const patience = wasReceiving ? STILL : Math.max(STILL, 3 * total.gap);
    this.#isCutOff = isSending && total.at > 0 && now - total.at >= patience;
  }

  /** True if nothing at all arrives any more, although something should. */
  get isCutOff() {
    return this.#isCutOff;
  }

  /**
   * True if a track arrived before, and stopped.
   * @param {string} id
   */
  isStill(id) {
    return this.#isStillSince(id, -Infinity);
  }

  /** True if any track is still. */
  get hasStill() {
    return [...this.#tracks.keys()].some((id) => this.isStill(id));
  }

  /**
   * True if a member's connection is lost: all expected tracks are still. Not every client sends while it is muted; one
   * that did is expected to continue.
   * @param {Expectation} expectation
   */
  isLost({ audio, video, isMuted, since }) {
    const microphone = audio === undefined ? undefined : this.#tracks.get(audio);
    const expected = [];
    if (audio !== undefined && microphone && (!isMuted || microphone.at > since + SETTLING)) {
      expected.push(this.#isStillSince(audio, isMuted ? -Infinity : since));
    }
    if (video !== undefined && this.#tracks.has(video)) expected.push(this.isStill(video));
    return expected.length > 0 && expected.every(Boolean);
  }

  /**
   * @param {string} id
   * @param {number} time
   */
  #isStillSince(id, time) {
    const track = this.#tracks.get(id);
    return track !== undefined && this.#now - Math.max(track.at, time) >= STILL;
  }
}
