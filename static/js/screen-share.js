// @ts-check
// Our own screen, and its sound.

const CHOICES = 'satsuma.screen';

/**
 * What a screen is encoded for: sharp text at few frames, or smooth motion (mst-content-hint).
 * @typedef {'detail' | 'motion'} Purpose
 */

/**
 * Options of `getDisplayMedia`, of which browsers ignore those that they do not know. The picker of the browser asks for
 * the sound. The sound of this page itself is left out, since it is what the others say.
 */
const OPTIONS = {
  video: { frameRate: { ideal: 30 } },
  audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, restrictOwnAudio: true },
  selfBrowserSurface: 'exclude',
  surfaceSwitching: 'include',
  systemAudio: 'include',
};

export class ScreenShare {
  /** @type {MediaStreamTrack | undefined} */
  track;
  /**
   * The sound of what is shared, if the user chose to share it and the browser captures it.
   * @type {MediaStreamTrack | undefined}
   */
  sound;

  /** @type {{ purpose: Purpose, isSilent: boolean }} */
  #choice = { purpose: 'detail', isSilent: false, ...stored() };
  #isRequested = false;
  #isEnded = false;
  #changed;

  /** @param {() => void} changed */
  constructor(changed) {
    this.#changed = changed;
  }

  static get isPossible() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /** Begins or stops to share. */
  async toggle() {
    if (this.#isRequested) return;
    if (this.track) this.#stop();
    else await this.#start();
    this.#changed();
  }

  /** Stops for good. */
  end() {
    this.#isEnded = true;
    this.#stop();
  }

  get purpose() {
    return this.#choice.purpose;
  }

  set purpose(purpose) {
    this.#choose({ purpose });
  }

  get isSilent() {
    return this.#choice.isSilent;
  }

  set isSilent(isSilent) {
    this.#choose({ isSilent });
  }

  /** The track to show to ourselves: a whole screen would contain itself, endlessly. */
  get preview() {
    return this.track?.getSettings().displaySurface === 'monitor' ? undefined : this.track;
  }

  async #start() {
    this.#isRequested = true;
    // Rejected if the user cancels, which is no problem.
    const stream = await navigator.mediaDevices.getDisplayMedia(OPTIONS).catch(() => undefined);
    this.#isRequested = false;
    [this.track] = stream?.getVideoTracks() ?? [];
    [this.sound] = stream?.getAudioTracks() ?? [];
    if (this.#isEnded) this.#stop();
    this.#apply();
    const { track, sound } = this;
    track?.addEventListener('ended', () => {
      if (this.track !== track) return;
      this.#stop();
      this.#changed();
    });
    sound?.addEventListener('ended', () => {
      if (this.sound !== sound) return;
      this.sound = undefined;
      this.#changed();
    });
  }

  #stop() {
    this.track?.stop();
    this.sound?.stop();
    this.track = undefined;
    this.sound = undefined;
  }

  /** @param {Partial<{ purpose: Purpose, isSilent: boolean }>} choice */
  #choose(choice) {
    Object.assign(this.#choice, choice);
    localStorage.setItem(CHOICES, JSON.stringify(this.#choice));
    this.#apply();
    this.#changed();
  }

  #apply() {
    if (this.track) this.track.contentHint = this.purpose;
    if (this.sound) this.sound.enabled = !this.isSilent;
  }
}

/** @returns {Partial<{ purpose: Purpose, isSilent: boolean }>} */
function stored() {
  try {
    const { purpose, isSilent } = JSON.parse(localStorage.getItem(CHOICES) ?? '{}') ?? {};
    return { purpose: purpose === 'motion' ? 'motion' : 'detail', isSilent: isSilent === true };
  } catch {
    return {};
  }
}
