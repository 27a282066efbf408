// @ts-check
// One track of several: the microphone and the sound of a shared screen. Members have one track of sound in the room's
// protocol, so every client hears it, and whoever mutes a member mutes all of it.

export class Mix {
  /** @type {AudioContext | undefined} */
  #context;
  /** @type {(MediaStreamTrack | undefined)[]} */
  #mixed = [];
  /** @type {MediaStreamTrack | undefined} */
  #output;

  /**
   * Returns the track to send; without a sound the microphone's own.
   * @param {MediaStreamTrack | undefined} microphone
   * @param {MediaStreamTrack | undefined} sound
   */
  of(microphone, sound) {
    if (this.#output && this.#mixed[0] === microphone && this.#mixed[1] === sound) return this.#output;
    this.end();
    if (!sound) return microphone;
    const context = new AudioContext();
    const destination = context.createMediaStreamDestination();
    for (const track of [microphone, sound]) {
      if (track) context.createMediaStreamSource(new MediaStream([track])).connect(destination);
    }
    this.#context = context;
    this.#mixed = [microphone, sound];
    [this.#output] = destination.stream.getAudioTracks();
    return this.#output;
  }

  end() {
    this.#context?.close();
    this.#context = undefined;
    this.#output = undefined;
  }
}
