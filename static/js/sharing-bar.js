// @ts-check
// The bar above the stage while we share a screen: who watches, the choices, and the way to stop.

import { element } from './element.js';
import { listOf, text } from './texts.js';

/** @import { ScreenShare } from './screen-share.js' */

/** Maximum number of names; more are counted. */
const MAX_NAMES = 3;

export class SharingBar {
  #screen;
  #watchers = element('span', { class: 'watchers', role: 'status' });
  #sound;
  #soundLabel;
  #purpose;
  #element;

  /**
   * @param {HTMLElement} stage
   * @param {ScreenShare} screen
   */
  constructor(stage, screen) {
    this.#screen = screen;
    const sound = element('input', { type: 'checkbox', onchange: () => (screen.isSilent = !sound.checked) });
    this.#sound = sound;
    this.#soundLabel = element('label', { class: 'check' }, sound, text('sharing.sound'));
    const purpose = element(
      'select',
      { 'aria-label': text('sharing.purpose'), onchange: () => (screen.purpose = purpose.value === 'motion' ? 'motion' : 'detail') },
      element('option', { value: 'detail' }, text('sharing.detail')),
      element('option', { value: 'motion' }, text('sharing.motion')),
    );
    this.#purpose = purpose;
    const stop = element('button', { class: 'small leave', type: 'button', onclick: () => screen.toggle() }, text('sharing.stop'));
    const title = element('strong', {}, text('sharing.title'));
    this.#element = element('section', { class: 'sharing', 'aria-label': text('sharing.title'), hidden: true }, title, this.#watchers, this.#soundLabel, purpose, stop);
    stage.prepend(this.#element);
  }

  /**
   * Shows the state.
   * @param {string[]} watchers names of those who see the screen
   */
  show(watchers) {
    const { track, sound, isSilent, purpose } = this.#screen;
    this.#element.hidden = !track;
    if (!track) return;
    this.#sound.checked = Boolean(sound) && !isSilent;
    this.#sound.disabled = !sound;
    // The browser asks for the sound when it is chosen what to share.
    this.#soundLabel.title = sound ? '' : text('sharing.noSound');
    this.#purpose.value = purpose;
    const shown = watchersText(watchers);
    if (this.#watchers.textContent !== shown) this.#watchers.textContent = shown;
  }
}

/** @param {string[]} names */
function watchersText(names) {
  if (names.length === 0) return text('sharing.nobody');
  const shown = names.length > MAX_NAMES ? [...names.slice(0, MAX_NAMES - 1), text('lobby.others', { count: names.length - MAX_NAMES + 1 })] : names;
  return text('sharing.watchers', { count: names.length, names: listOf(shown) });
}
