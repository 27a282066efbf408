// @ts-check
// What is done to our audio and video before they are sent: noise suppression, and a blurred background. The system does
// that where it can (Media Capture and Streams Extensions, `backgroundBlur`), otherwise we blur the edges.

import { EdgeBlur } from './edge-blur.js';

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

  set blursBackground(blursBackground) {
    this.#choose({ blursBackground });
  }

  /**
   * Has the system blur what a camera sends, if that was chosen.
   * @param {MediaStreamTrack} camera
   */
  async blur(camera) {
    if (!Processing.canBlur(camera)) return;
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

  /**
   * Blurs the edges of a camera's picture, if that was chosen and the system cannot blur the background.
   * @param {MediaStreamTrack} camera
   * @param {() => void} failed called if it does not work here
   */
  blurEdges(camera, failed) {
    const isOurs = this.blursBackground && !Processing.canBlur(camera) && EdgeBlur.isPossible;
    return isOurs ? new EdgeBlur(camera, failed) : undefined;
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
