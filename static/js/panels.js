// @ts-check
// The panels beside the stage; one at a time, since a phone's screen holds no two.

import { buttons, withKey } from './controls.js';
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
  #memberCount = 0;
  #title = document.title;

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
    document.addEventListener('visibilitychange', () => this.#show());
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

  /** Counts an unread message, if the chat is closed or the page is in the background. */
  countUnread() {
    if (!this.#isRead) this.#unread += 1;
    this.#show();
  }

  /** @param {number} count */
  set memberCount(count) {
    if (count === this.#memberCount) return;
    this.#memberCount = count;
    this.#show();
  }

  get #isRead() {
    return this.isOpen('chat') && !document.hidden;
  }

  #show() {
    if (this.#isRead) this.#unread = 0;
    document.title = this.#unread > 0 ? `(${this.#unread}) ${this.#title}` : this.#title;
    const counts = { chat: this.#unread, people: this.#memberCount };
    const labels = {
      chat: this.#unread > 0 ? text('chat.unread', { count: this.#unread }) : text('chat.title'),
      people: text('people.count', { count: this.#memberCount }),
    };
    for (const { name, label } of PANELS) {
      const isOpen = this.isOpen(name);
      byId(`${name}-panel`).hidden = !isOpen;
      for (const button of buttons(name)) {
        button.setAttribute('aria-expanded', String(isOpen));
        button.setAttribute('aria-label', labels[name]);
        button.title = withKey(text(label), button);
        button.dataset.count = counts[name] > 0 ? String(Math.min(counts[name], 999)) : '';
      }
    }
  }
}
