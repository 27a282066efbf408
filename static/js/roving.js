// @ts-check
// One stop of the Tab key for the buttons of many tiles: the arrow keys go from tile to tile (ARIA Authoring Practices, roving
// tabindex).

/** Steps through the tiles by key; the other direction of writing exchanges the first two. */
const STEPS = new Map([
  ['ArrowRight', 1],
  ['ArrowLeft', -1],
  ['ArrowDown', 1],
  ['ArrowUp', -1],
  ['Home', -Infinity],
  ['End', Infinity],
]);

export class Roving {
  #place;
  /** @type {Element | null} */
  #current = null;

  /** @param {HTMLElement} place */
  constructor(place) {
    this.#place = place;
    place.addEventListener('focusin', ({ target }) => {
      const tile = target instanceof Element ? target.closest('.tile') : null;
      if (tile && tile !== this.#current) this.#choose(tile);
    });
    place.addEventListener('keydown', (event) => {
      const { key, target } = event;
      const step = STEPS.get(key);
      if (step === undefined || !(target instanceof Element) || !target.matches('.tool')) return;
      event.preventDefault();
      const tiles = this.#tiles;
      const sign = document.documentElement.dir === 'rtl' && /Left|Right/.test(key) ? -1 : 1;
      const index = tiles.findIndex((tile) => tile.contains(target)) + sign * step;
      const next = tiles[Math.min(Math.max(index, 0), tiles.length - 1)];
      this.#choose(next);
      buttons(next)[0]?.focus();
    });
  }

  /** To be called when tiles came, went or moved. */
  update() {
    const tiles = this.#tiles;
    this.#choose(tiles.find((tile) => tile === this.#current) ?? tiles[0] ?? null);
  }

  /** The tiles with buttons. */
  get #tiles() {
    return [...this.#place.querySelectorAll('.tile')].filter((tile) => buttons(tile).length > 0);
  }

  /** @param {Element | null} chosen */
  #choose(chosen) {
    this.#current = chosen;
    for (const tile of this.#place.querySelectorAll('.tile')) {
      for (const button of buttons(tile)) button.tabIndex = tile === chosen ? 0 : -1;
    }
  }
}

/**
 * @param {Element} tile
 * @returns {HTMLElement[]}
 */
function buttons(tile) {
  return [...tile.querySelectorAll('.tools:not([hidden]) .tool')].filter((tool) => tool instanceof HTMLElement);
}
