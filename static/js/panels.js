// The panels beside the stage; one at a time, since a phone has no room for two.

import { byId } from './element.js';
import { buttons } from './controls.js';

const LABELS = { people: 'People', chat: 'Chat' };

/** Event: `open` with the panel's name. */
export class Panels extends EventTarget {
  #open;
  #unread = 0;

  constructor() {
    super();
    for (const button of document.querySelectorAll('[data-close]')) {
      button.addEventListener('click', () => this.toggle(button.dataset.close));
    }
    addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.#open && !document.querySelector('dialog[open], :popover-open')) {
        this.toggle(this.#open);
      }
    });
    this.#show();
  }

  isOpen(name) {
    return this.#open === name;
  }

  toggle(name) {
    const closed = this.#open;
    this.#open = closed === name ? undefined : name;
    this.#show();
    if (!this.#open) return buttons(closed)[0].focus();
    // On a phone the panel covers what had the focus.
    document.querySelector(`[data-close="${name}"]`).focus();
    this.dispatchEvent(new CustomEvent('open', { detail: name }));
  }

  open(name) {
    if (!this.isOpen(name)) this.toggle(name);
  }

  /** Counts a message that nobody has read, if the chat is closed. */
  countUnread() {
    if (!this.isOpen('chat')) this.#unread += 1;
    this.#show();
  }

  #show() {
    if (this.isOpen('chat')) this.#unread = 0;
    for (const [name, label] of Object.entries(LABELS)) {
      const isOpen = this.isOpen(name);
      byId(`${name}-panel`).hidden = !isOpen;
      for (const button of buttons(name)) {
        const unread = name === 'chat' ? this.#unread : 0;
        button.setAttribute('aria-expanded', String(isOpen));
        button.setAttribute('aria-label', unread > 0 ? `${label}, ${unread} unread` : label);
        button.title = label;
        button.dataset.count = unread > 0 ? Math.min(unread, 99) : '';
      }
    }
  }
}
