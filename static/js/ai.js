// @ts-check
// The AI that can be invited, and the member that it hears.

import { showAction } from './controls.js';
import { notice, withdrawNotice } from './notices.js';
import { text } from './texts.js';

/** @import { RoomState, Signalling } from './signalling.js' */

export class Ai {
  #signalling;
  #isOffered;
  #voice;
  #state;

  /**
   * `voice` returns the reference of our audio, once it flows.
   * @param {{ signalling: Signalling, isOffered: boolean, voice: () => string | undefined, state: RoomState['ai'] }} parts
   */
  constructor({ signalling, isOffered, voice, state = {} }) {
    this.#signalling = signalling;
    this.#isOffered = isOffered;
    this.#voice = voice;
    // An error of the time before is no news.
    this.#state = state;
    this.show(state);
  }

  /**
   * Shows the AI's part of the room's state.
   * @param {RoomState['ai']} state
   */
  show(state = {}) {
    const { error } = this.#state;
    this.#state = state;
    if (state.error && state.error !== error) notice(text('ai.failed'), 'ai');
    else if (!state.error) withdrawNotice('ai');
    const { enabled, connectionPending } = state;
    let label = text('ai.invite');
    if (enabled) label = text('ai.remove');
    else if (connectionPending) label = text('ai.cancel');
    showAction('ai', { label, isPressed: Boolean(enabled || connectionPending), isPossible: this.#isOffered });
    showAction('ai-ear', {
      label: text(this.#hearsUs ? 'ai.stopHearing' : 'ai.hear'),
      isPressed: this.#hearsUs,
      isPossible: this.#isOffered && Boolean(enabled),
    });
  }

  /** Invites the AI, or removes it, no matter which member invited it. */
  toggle() {
    const { enabled, connectionPending } = this.#state;
    this.#signalling.send({ type: enabled || connectionPending ? 'disableAi' : 'enableAi' });
  }

  /** Lets the AI hear us, or stops it: it hears one member at a time. */
  toggleEar() {
    if (this.#hearsUs) {
      this.#signalling.send({ type: 'relenquishAiControl' });
      return;
    }
    const audio = this.#voice();
    if (!audio) {
      notice(text('ai.notConnected'), 'ai');
      return;
    }
    const [sessionId, trackName] = audio.split('/');
    this.#signalling.send({ type: 'requestAiControl', track: { sessionId, trackName } });
  }

  get #hearsUs() {
    return this.#state.controllingUser === this.#signalling.id;
  }
}
