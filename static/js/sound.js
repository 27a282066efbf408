// Plays received audio: one audio element for each track.

export class Sound {
  #playing = new Map();

  /** Plays exactly these tracks, by their references. */
  play(tracks) {
    for (const [reference, audio] of this.#playing) {
      if (tracks.get(reference) === audio.srcObject.getTracks()[0]) continue;
      audio.srcObject = null;
      this.#playing.delete(reference);
    }
    for (const [reference, track] of tracks) {
      if (this.#playing.has(reference)) continue;
      const audio = new Audio();
      audio.srcObject = new MediaStream([track]);
      // Rejected if the track ends before it began to play.
      audio.play().catch(() => {});
      this.#playing.set(reference, audio);
    }
  }
}
