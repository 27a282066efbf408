// @ts-check
// The frame of a view: its head, lists that change in place, and tasks that repeat while it is shown.

import { element } from '../element.js';
import { lastingNotice, notice, withdrawNotice } from '../notices.js';

/**
 * A view. `signal` is aborted when another one is shown.
 * @typedef {object} View
 * @property {string} title
 * @property {(place: HTMLElement, argument: string, signal: AbortSignal) => void} show
 */

/**
 * Makes the head of a view.
 * @param {string} title
 * @param {(Node | string)[]} children
 */
export function head(title, ...children) {
  document.title = `${title} · Satsuma console`;
  return element('div', { class: 'view-head' }, element('h1', { id: 'view-title' }, title), ...children);
}

/**
 * Makes a section with a heading.
 * @param {string} title
 * @param {(Node | string)[]} children
 */
export function section(title, ...children) {
  return element('section', {}, element('h2', {}, title), ...children);
}

/** Share of the time that a repeated task may take at most: one that takes long is heavy for the server, too. */
const MAX_SHARE = 0.2;

/** Maximum pause because of it, in milliseconds. */
const MAX_PAUSE = 30_000;

/**
 * Repeats a task until the signal is aborted, with a pause after each run; not while the page is hidden.
 * @param {AbortSignal} signal
 * @param {number} pause in milliseconds
 * @param {() => Promise<void>} task
 */
export async function repeat(signal, pause, task) {
  while (!signal.aborted) {
    const start = performance.now();
    await run(signal, task);
    const rest = (performance.now() - start) * (1 / MAX_SHARE - 1);
    await new Promise((resolve) => setTimeout(resolve, Math.max(pause, Math.min(rest, MAX_PAUSE))));
    if (document.hidden) await shown(signal);
  }
}

/**
 * Runs a task of a view; its failure is shown until the next one succeeds.
 * @param {AbortSignal} signal
 * @param {() => Promise<void>} task
 */
export async function run(signal, task) {
  try {
    await task();
    if (!signal.aborted) withdrawNotice('view');
  } catch (error) {
    if (signal.aborted) return;
    const isNetwork = error instanceof TypeError || (error instanceof DOMException && error.name === 'TimeoutError');
    lastingNotice(isNetwork ? 'The server does not answer.' : sentence(error), 'view');
  }
}

/**
 * Carries out what a button asks for, and says how it went.
 * @param {() => Promise<unknown>} action
 * @param {string} done
 */
export async function act(action, done) {
  try {
    await action();
    notice(done);
    return true;
  } catch (error) {
    notice(sentence(error));
    return false;
  }
}

/** @param {unknown} error */
export function sentence(error) {
  const text = error instanceof Error ? error.message : String(error);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * A list whose rows are updated in place, so that the focus and what is pressed stay.
 * @template Item
 * @template {{ element: HTMLElement, update: (item: Item) => void }} Row
 */
export class List {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #key;
  #make;
  #empty;

  /**
   * @param {string} empty the text of an empty list
   * @param {(item: Item) => string} key
   * @param {(item: Item) => Row} make
   */
  constructor(empty, key, make) {
    this.#key = key;
    this.#make = make;
    this.#empty = element('p', { class: 'empty', hidden: true }, empty);
    this.rows = element('ul', { class: 'rows', hidden: true });
    this.element = element('div', {}, this.#empty, this.rows);
  }

  /** @param {Item[]} items */
  show(items) {
    const keys = new Set(items.map(this.#key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    items.forEach((item, index) => {
      const key = this.#key(item);
      const row = this.#rows.get(key) ?? this.#make(item);
      this.#rows.set(key, row);
      row.update(item);
      if (this.rows.children[index] !== row.element) this.rows.insertBefore(row.element, this.rows.children[index] ?? null);
    });
    this.#empty.hidden = items.length > 0;
    this.rows.hidden = items.length === 0;
  }
}

/**
 * Makes figures with names; returns a function that shows their values.
 * @param {string[]} names
 */
export function figures(names) {
  const values = names.map(() => element('dd', {}, '–'));
  const made = element('dl', { class: 'figures' }, ...names.map((name, at) => element('div', {}, element('dt', {}, name), values[at])));
  /** @param {string[]} texts */
  const show = (texts) => texts.forEach((text, at) => setText(values[at], text));
  return { element: made, show };
}

/**
 * Sets a text if it changed: screen readers and selections are left alone otherwise.
 * @param {Node | undefined} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

/**
 * @param {string} text
 * @param {() => void} action
 * @param {string} [look] classes
 */
export function button(text, action, look = '') {
  return element('button', { type: 'button', class: `small ${look}`, onclick: action }, text);
}

/**
 * @param {number} count
 * @param {string} one the name of one
 * @param {string} [several] the name of several
 */
export function counted(count, one, several = `${one}s`) {
  return `${count} ${count === 1 ? one : several}`;
}

/** @param {number} bytes */
export function bytes(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/**
 * A time as people here write it; the exact one is its title.
 * @param {string | null} text
 */
export function time(text) {
  if (!text) return element('span', {}, '–');
  const at = new Date(text);
  return element('time', { datetime: text, title: text }, Number.isNaN(at.getTime()) ? text : at.toLocaleString());
}

/** @param {AbortSignal} signal */
function shown(signal) {
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', () => resolve(undefined), { once: true, signal });
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
