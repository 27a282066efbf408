// Detects that expected media stopped arriving. Nothing but arithmetic: time and counts come from outside.

/** Muted microphones send a packet every 400 ms (Opus DTX); what is without a byte for so long stands still. */
const STILL = 2_000;

/** A track heard from this shortly before a silence was expected to go on. */
const JUST_BEFORE = 1_000;

/** Reports are taken for this rare at first, and never for rarer than that. */
const FIRST_GAP = 2_000;
const LONGEST_GAP = 10_000;

/** Of what is on its way while a microphone is muted nothing arrives later than this. */
const SETTLING = 1_500;

export class Arrival {
  /** By track id: the bytes that arrived, and when that was news. */
  #tracks = new Map();
  /** All bytes of the connection, reports on what we send included; when they were news, and the longest usual time between two. */
  #total = { bytes: 0, at: 0, gap: FIRST_GAP };
  #now = 0;
  #isCutOff = false;

  /** Takes in the counts of one look: the bytes of each track by its id, and of all; and whether we send anything. */
  take(now, { tracks, bytes, isSending }) {
    this.#now = now;
    for (const id of this.#tracks.keys()) if (!tracks.has(id)) this.#tracks.delete(id);
    const total = this.#total;
    // Media of others arrive often. Reports alone come as seldom as the media service likes.
    const wasReceiving = [...this.#tracks.values()].some(({ at }) => at >= total.at - JUST_BEFORE);
    for (const [id, bytes] of tracks) {
      if (this.#tracks.get(id)?.bytes !== bytes) this.#tracks.set(id, { bytes, at: now });
    }
    if (bytes > total.bytes) {
      const gap = total.at === 0 || wasReceiving ? 0 : now - total.at;
      this.#total = { bytes, at: now, gap: Math.max(Math.min(gap, LONGEST_GAP), 0.9 * total.gap) };
      this.#isCutOff = false;
      return;
    }
    // A transport that is given up takes its count along.
    total.bytes = bytes;
    // A client that sends nothing may receive nothing, if all others are gone.
    const patience = wasReceiving ? STILL : Math.max(STILL, 3 * total.gap);
    this.#isCutOff = isSending && total.at > 0 && now - total.at >= patience;
  }

  /** True if nothing at all arrives any more, although something should. */
  get isCutOff() {
    return this.#isCutOff;
  }

  /** True if a track has arrived before, and does not any more. */
  isStill(id) {
    return this.#isStillSince(id, -Infinity);
  }

  /** True if any track is still. */
  get hasStill() {
    return [...this.#tracks.keys()].some((id) => this.isStill(id));
  }

  /**
   * True if a person's connection is lost: everything that should arrive stands still. `audio` and `video` are track
   * ids; a microphone is `isMuted` or not `since` some time. Not every client sends while it is muted; of one that did,
   * more is expected.
   */
  isLost({ audio, video, isMuted, since }) {
    const heard = this.#tracks.get(audio);
    const expected = [];
    if (heard && (!isMuted || heard.at > since + SETTLING)) expected.push(this.#isStillSince(audio, isMuted ? -Infinity : since));
    if (this.#tracks.has(video)) expected.push(this.isStill(video));
    return expected.length > 0 && expected.every(Boolean);
  }

  #isStillSince(id, time) {
    const track = this.#tracks.get(id);
    return Boolean(track) && this.#now - Math.max(track.at, time) >= STILL;
  }
}
