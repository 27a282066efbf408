// @ts-check
// Lists in pages: a button asks for the next one.

import { element } from '../element.js';
import { button, run } from './view.js';

/**
 * Makes a list whose pages are asked for one by one.
 * @template Item
 * @param {AbortSignal} signal
 * @param {string} empty the text of an empty list
 * @param {(item: Item) => HTMLElement} row
 * @param {(next: string | number | null) => Promise<{ items: Item[], next: string | number | null }>} ask
 */
export function pages(signal, empty, row, ask) {
  const rows = element('ul', { class: 'rows', hidden: true });
  const nothing = element('p', { class: 'empty', hidden: true }, empty);
  const more = button('More', () => void load());
  more.hidden = true;
  /** @type {string | number | null} */
  let next = null;
  let turn = 0;

  const load = () =>
    run(signal, async () => {
      const own = turn;
      more.disabled = true;
      try {
        const page = await ask(next);
        // The list was begun anew meanwhile.
        if (own !== turn) return;
        rows.append(...page.items.map(row));
        next = page.next;
        more.hidden = next === null;
        rows.hidden = rows.childElementCount === 0;
        nothing.hidden = !rows.hidden;
      } finally {
        more.disabled = false;
      }
    });

  /** Begins anew. */
  const restart = () => {
    turn += 1;
    next = null;
    rows.replaceChildren();
    return load();
  };
  return { element: element('div', { class: 'pages' }, nothing, rows, more), restart };
}
