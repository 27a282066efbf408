// @ts-check
// Those who wait to be let in, shown to moderators.

import { byId, element } from './element.js';
import { text } from './texts.js';

/** @import { Knock, Signalling } from './signalling.js' */

export class Knocks {
  #signalling;

  /** @param {Signalling} signalling */
  constructor(signalling) {
    this.#signalling = signalling;
    signalling.on('knocks', ({ knocks }) => this.#show(knocks));
    // A moderator who comes back is told again.
    signalling.on('away', () => this.#show([]));
  }

  /** @param {Knock[]} knocks */
  #show(knocks) {
    byId('knocks').hidden = knocks.length === 0;
    byId('knocks').replaceChildren(...knocks.map((knock) => this.#row(knock)));
  }

  /** @param {Knock} knock */
  #row({ id, name }) {
    const decide = (/** @type {'admit' | 'refuse'} */ action) => () =>
      this.#signalling.send({ type: 'moderate', action, id });
    return element(
      'p',
      { 'data-id': id },
      element('span', {}, text('knocks.wants', { name })),
      element('button', { class: 'primary', onclick: decide('admit') }, text('knocks.admit')),
      element('button', { onclick: decide('refuse') }, text('knocks.refuse')),
    );
  }
}
