// @ts-check
// Our own speech, and a hint when we speak while muted.

import { watchSpeech } from './loudness.js';
import { notice } from './notices.js';
import { text } from './texts.js';

/** Pause between two hints that we speak while muted: we may speak to somebody beside us. */
const MUTED_HINT_PAUSE = 30_000;

export class OwnSpeech {
  isSpeaking = false;
  #changed;
  #isHeard = false;
  /** Time of the last hint that we speak while muted. */
  #mutedHint = -Infinity;
  /**
   * The track that speech is detected on.
   * @type {MediaStreamTrack | undefined}
   */
  #track;
  /** @type {ReturnType<typeof watchSpeech> | undefined} */
  #detection;

  /**
   * Calls `changed` when speech begins and ends.
   * @param {() => void} changed
   */
  constructor(changed) {
    this.#changed = changed;
  }

  /**
   * Detects speech on this microphone.
   * @param {{ track?: MediaStreamTrack, isOn: boolean }} microphone
   */
  watch({ track, isOn }) {
    const wasHeard = this.#isHeard;
    this.#isHeard = isOn;
    if (track !== this.#track) {
      this.#track = track;
      this.#detection?.stop();
      this.#detection = track && watchSpeech(track, (isSpeaking) => this.#set(isSpeaking));
    }
    // Whoever goes on speaking after muting is told, too.
    if (wasHeard && !isOn) this.#detection?.restart();
  }

  end() {
    this.#detection?.stop();
  }

  /** @param {boolean} isSpeaking */
  #set(isSpeaking) {
    this.isSpeaking = isSpeaking;
    const now = performance.now();
    if (isSpeaking && !this.#isHeard && now - this.#mutedHint > MUTED_HINT_PAUSE) {
      this.#mutedHint = now;
      notice(text('notice.youAreMuted'), 'speaking');
    }
    this.#changed();
  }
}
