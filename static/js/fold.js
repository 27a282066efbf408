// @ts-check
// The tiles of a place that scrolls: which of them are visible, and a hint of those that lie outside, which shows them when it
// is pressed.

import { element } from './element.js';
import { icon } from './icons.js';
import { text } from './texts.js';

/** Share of a tile that has to be visible for it to count as seen. */
const SEEN = 0.5;

/** Time for which a tile still counts as near after it was scrolled out, so that scrolling back and forth costs nothing. */
const LINGER = 6_000;

export class Fold {
  #place;
  #changed;
  /** @type {Set<Element>} */
  #watched = new Set();
  /** @type {Set<Element>} */
  #seen = new Set();
  /**
   * Tiles that are visible or were so just now, with the timer of the latter.
   * @type {Map<Element, number | undefined>}
   */
  #near = new Map();
  #observer;
  #text = element('span');
  hint = element('button', { class: 'more small', type: 'button', hidden: true, onclick: () => this.#scroll() }, this.#text, icon('down'));

  /**
   * Calls `changed` when tiles come near or go.
   * @param {HTMLElement} place
   * @param {() => void} changed
   */
  constructor(place, changed) {
    this.#place = place;
    this.#changed = changed;
    const take = (/** @type {IntersectionObserverEntry[]} */ entries) => {
      for (const entry of entries) this.#take(entry);
      this.#show();
    };
    this.#observer = new IntersectionObserver(take, { root: place, threshold: [0, SEEN] });
  }

  /**
   * Watches the place's present tiles, if it scrolls.
   * @param {boolean} scrolls
   */
  watch(scrolls) {
    if (!scrolls && this.#watched.size === 0) return;
    const tiles = new Set(scrolls ? this.#place.children : []);
    for (const tile of this.#watched) {
      if (tiles.has(tile)) continue;
      this.#observer.unobserve(tile);
      this.#seen.delete(tile);
      clearTimeout(this.#near.get(tile));
      this.#near.delete(tile);
    }
    for (const tile of tiles) {
      if (this.#watched.has(tile)) continue;
      this.#observer.observe(tile);
      // Its video is there already, so it is kept until it is known to lie outside.
      if (tile.classList.contains('picture')) this.#linger(tile);
    }
    this.#watched = tiles;
    this.#show();
  }

  /**
   * True unless a tile lies outside.
   * @param {Element} tile
   */
  isNear(tile) {
    return !this.#watched.has(tile) || this.#near.has(tile);
  }

  /** @param {IntersectionObserverEntry} entry */
  #take({ target, isIntersecting, intersectionRatio }) {
    if (intersectionRatio >= SEEN) this.#seen.add(target);
    else this.#seen.delete(target);
    const wasNear = this.#near.has(target);
    clearTimeout(this.#near.get(target));
    if (isIntersecting) {
      this.#near.set(target, undefined);
      if (!wasNear) this.#changed();
    } else if (wasNear) {
      this.#linger(target);
    }
  }

  /** @param {Element} tile */
  #linger(tile) {
    const gone = () => {
      this.#near.delete(tile);
      this.#changed();
    };
    this.#near.set(tile, setTimeout(gone, LINGER));
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
    const isCalm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    this.#place.scrollBy({ left: clientWidth * 0.9, top: clientHeight * 0.9, behavior: isCalm ? 'auto' : 'smooth' });
  }
}
