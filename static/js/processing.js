// @ts-check
// What the browser does to our audio and video before they are sent: noise suppression, and a blurred background where
// the system offers it (Media Capture and Streams Extensions, `backgroundBlur`).

const CHOICES = 'satsuma.processing';

/** @typedef {MediaTrackConstraints & { backgroundBlur?: boolean }} Constraints */

export class Processing {
  /** @type {{ suppressesNoise: boolean, blursBackground: boolean }} */
  #choice = { suppressesNoise: true, blursBackground: false, ...stored() };

  get suppressesNoise() {
    return this.#choice.suppressesNoise;
  }

  get blursBackground() {
    return this.#choice.blursBackground;
  }

  /**
   * Constraints for a new microphone.
   * @returns {MediaTrackConstraints}
   */
  get ofAudio() {
    return { noiseSuppression: this.suppressesNoise };
  }

  /** Holds for the next microphone that is opened: browsers do not change it for one in use. */
  set suppressesNoise(suppressesNoise) {
    this.#choose({ suppressesNoise });
  }

  /**
   * @param {boolean} blursBackground
   * @param {MediaStreamTrack | undefined} camera
   */
  async blurBackground(blursBackground, camera) {
    this.#choose({ blursBackground });
    await this.blur(camera);
  }

  /**
   * Blurs what a new camera sends, if that was chosen.
   * @param {MediaStreamTrack | undefined} camera
   */
  async blur(camera) {
    if (!camera || !Processing.canBlur(camera)) return;
    const constraints = /** @type {Constraints} */ ({ ...camera.getConstraints(), backgroundBlur: this.blursBackground });
    await camera.applyConstraints(constraints).catch(() => {});
  }

  /**
   * True if the system can blur the background of a camera, or leave it as it is.
   * @param {MediaStreamTrack | undefined} camera
   */
  static canBlur(camera) {
    const { backgroundBlur } = /** @type {{ backgroundBlur?: boolean[] }} */ (camera?.getCapabilities?.() ?? {});
    return (backgroundBlur?.length ?? 0) > 1;
  }

  /** @param {Partial<{ suppressesNoise: boolean, blursBackground: boolean }>} change */
  #choose(change) {
    this.#choice = { ...this.#choice, ...change };
    localStorage.setItem(CHOICES, JSON.stringify(this.#choice));
  }
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(CHOICES) ?? '{}');
  } catch {
    return {};
  }
}
