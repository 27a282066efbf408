// @ts-check
// Playback of received audio: one audio element for each track.

export class Sound {
  /** @type {Map<string, { audio: HTMLAudioElement, track: MediaStreamTrack }>} */
  #playing = new Map();

  /**
   * Plays exactly these tracks, by their references.
   * @param {Map<string, MediaStreamTrack>} tracks
   */
  play(tracks) {
    for (const [reference, { audio, track }] of this.#playing) {
      if (tracks.get(reference) === track) continue;
      audio.srcObject = null;
      this.#playing.delete(reference);
    }
    for (const [reference, track] of tracks) {
      if (this.#playing.has(reference)) continue;
      const audio = new Audio();
      audio.srcObject = new MediaStream([track]);
      // Rejected if the track ends before playback begins.
      audio.play().catch(() => {});
      this.#playing.set(reference, { audio, track });
    }
  }
}
