// @ts-check
// Playback of received audio: one audio element for each track.

export class Sound {
  /** @type {Map<string, { audio: HTMLAudioElement, track: MediaStreamTrack }>} */
  #playing = new Map();
  #speaker = '';

  /**
   * Plays on the speaker of this id; on the browser's own choice if it is empty or gone.
   * @param {string} speaker
   */
  set speaker(speaker) {
    if (speaker === this.#speaker) return;
    this.#speaker = speaker;
    for (const { audio } of this.#playing.values()) this.#route(audio);
  }

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
      if (this.#speaker) this.#route(audio);
      // Rejected if the track ends before playback begins.
      audio.play().catch(() => {});
      this.#playing.set(reference, { audio, track });
    }
  }

  /** @param {HTMLAudioElement} audio */
  #route(audio) {
    audio.setSinkId?.(this.#speaker).catch(() => audio.setSinkId(''));
  }
}
