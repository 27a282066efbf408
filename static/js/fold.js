// @ts-check
// A hint of the tiles that lie outside a scrolled place, which shows them when it is pressed.

import { element } from './element.js';
import { icon } from './icons.js';
import { text } from './texts.js';

/** Share of a tile that has to be visible for it to count as seen. */
const SEEN = 0.5;

export class Fold {
  #place;
  /** @type {Set<Element>} */
  #seen = new Set();
  /** @type {Set<Element>} */
  #watched = new Set();
  #observer;
  #text = element('span');
  hint = element('button', { class: 'more small', type: 'button', hidden: true, onclick: () => this.#scroll() }, this.#text, icon('down'));

  /** @param {HTMLElement} place */
  constructor(place) {
    this.#place = place;
    const options = { root: place, threshold: SEEN };
    this.#observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) this.#seen.add(target);
        else this.#seen.delete(target);
      }
      this.#show();
    }, options);
  }

  /**
   * Watches the place's present tiles, if it scrolls.
   * @param {boolean} scrolls
   */
  watch(scrolls) {
    const tiles = new Set(scrolls ? this.#place.children : []);
    for (const tile of this.#watched) {
      if (tiles.has(tile)) continue;
      this.#observer.unobserve(tile);
      this.#seen.delete(tile);
    }
    for (const tile of tiles) if (!this.#watched.has(tile)) this.#observer.observe(tile);
    this.#watched = tiles;
    this.#show();
  }

  #show() {
    const tiles = [...this.#place.children];
    const last = tiles.findLastIndex((tile) => this.#seen.has(tile));
    const beyond = last < 0 ? 0 : tiles.length - 1 - last;
    this.hint.hidden = beyond === 0;
    this.#text.textContent = text('stage.more', { count: beyond });
  }

  #scroll() {
    const { clientWidth, clientHeight } = this.#place;
    const forward = document.documentElement.dir === 'rtl' ? -1 : 1;
    this.#place.scrollBy({ left: clientWidth * 0.9 * forward, top: clientHeight * 0.9, behavior: 'smooth' });
  }
}
