// @ts-check
// The panels beside the stage; one at a time, since a phone's screen holds no two.

import { buttons } from './controls.js';
import { allHtml, byId, within } from './element.js';
import { Emitter } from './events.js';
import { text } from './texts.js';

/** @typedef {'people' | 'chat'} PanelName */

const PANELS = /** @type {const} */ ([
  { name: 'people', label: 'people.title' },
  { name: 'chat', label: 'chat.title' },
]);

/**
 * Event: `open`, with the panel's name.
 * @extends {Emitter<{ open: PanelName }>}
 */
export class Panels extends Emitter {
  /** @type {PanelName | undefined} */
  #open;
  #unread = 0;

  constructor() {
    super();
    for (const { name } of PANELS) {
      for (const button of allHtml(`[data-close="${name}"]`)) button.addEventListener('click', () => this.toggle(name));
    }
    addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.#open && !document.querySelector('dialog[open], :popover-open')) {
        this.toggle(this.#open);
      }
    });
    this.#show();
  }

  /** @param {PanelName} name */
  isOpen(name) {
    return this.#open === name;
  }

  /** @param {PanelName} name */
  toggle(name) {
    const isClosing = this.isOpen(name);
    this.#open = isClosing ? undefined : name;
    this.#show();
    if (isClosing) {
      buttons(name)[0].focus();
      return;
    }
    // On a phone the panel covers the element that had the focus.
    within(document, `[data-close="${name}"]`, HTMLElement).focus();
    this.emit('open', name);
  }

  /** @param {PanelName} name */
  open(name) {
    if (!this.isOpen(name)) this.toggle(name);
  }

  /** Counts an unread message, if the chat is closed. */
  countUnread() {
    if (!this.isOpen('chat')) this.#unread += 1;
    this.#show();
  }

  #show() {
    if (this.isOpen('chat')) this.#unread = 0;
    for (const { name, label } of PANELS) {
      const isOpen = this.isOpen(name);
      byId(`${name}-panel`).hidden = !isOpen;
      for (const button of buttons(name)) {
        const unread = name === 'chat' ? this.#unread : 0;
        button.setAttribute('aria-expanded', String(isOpen));
        button.setAttribute('aria-label', unread > 0 ? text('chat.unread', { count: unread }) : text(label));
        button.title = text(label);
        button.dataset.count = unread > 0 ? String(Math.min(unread, 99)) : '';
      }
    }
  }
}
