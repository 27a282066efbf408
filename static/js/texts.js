// @ts-check
// The page's words in its reader's language: a table per language, `static/texts/{language}.json`. The server chooses
// the table by `Accept-Language`, so that a page asks once.
//
// A module that imports this one runs once the table is there, and the document is translated by then.

import { BASE } from './base.js';

/** @typedef {keyof typeof import('../texts/en.json')} TextKey */

/**
 * The texts by their keys: one text, or one for each plural category of the language.
 * @type {Record<string, string | Partial<Record<Intl.LDMLPluralRule, string>>>}
 */
const table = await load();

/** The BCP 47 tag of the language. */
export const language = String(table.language);

const plurals = new Intl.PluralRules(language);
const numbers = new Intl.NumberFormat(language);
const lists = new Intl.ListFormat(language);

document.documentElement.lang = language;
document.documentElement.dir = text('direction');
translate(document);
document.documentElement.classList.remove('untranslated');

/**
 * Returns a text with values in place of its `{names}`; `count` chooses its plural form.
 * @param {TextKey} key
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function text(key, values = {}) {
  return parts(key, values).map(({ literal, name }) => literal ?? shown(values[name ?? ''], name)).join('');
}

/**
 * Returns the text for an error code of the server, if there is one.
 * @param {string | null | undefined} code
 */
export function refusalText(code) {
  const key = `refusal.${code}`;
  return key in table ? text(/** @type {TextKey} */ (key)) : undefined;
}

/**
 * Returns names as one list, such as "Ada, Bob, and Eve".
 * @param {string[]} names
 */
export function listOf(names) {
  return lists.format(names);
}

/**
 * Translates all elements that name a text: `data-text` is the key of the content, in which an element with
 * `data-slot` takes the place of that name; `data-refusal` is the code of an error; `data-label`, `data-title`, `data-placeholder` and `data-alt` are of attributes.
 * @param {ParentNode} root
 */
function translate(root) {
  for (const [mark, attribute] of [['data-label', 'aria-label'], ['data-title', 'title'], ['data-placeholder', 'placeholder'], ['data-alt', 'alt']]) {
    for (const found of root.querySelectorAll(`[${mark}]`)) {
      found.setAttribute(attribute, text(/** @type {TextKey} */ (found.getAttribute(mark))));
    }
  }
  for (const found of root.querySelectorAll('[data-refusal]')) {
    // The server's sentence stays where there is no text.
    const known = refusalText(found.getAttribute('data-refusal'));
    if (known) found.textContent = known;
  }
  for (const found of root.querySelectorAll('[data-text]')) {
    const slots = new Map([...found.querySelectorAll('[data-slot]')].map((slot) => [slot.getAttribute('data-slot'), slot]));
    const key = /** @type {TextKey} */ (found.getAttribute('data-text'));
    found.replaceChildren(...parts(key, {}).map(({ literal, name = '' }) => literal ?? slots.get(name) ?? shown(undefined, name)));
  }
}

/**
 * Splits a text at its `{names}`.
 * @param {TextKey} key
 * @param {Record<string, string | number>} values
 * @returns {{ literal?: string, name?: string }[]}
 */
function parts(key, { count }) {
  const entry = table[key];
  const template = typeof entry === 'string' ? entry : (entry?.[plurals.select(Number(count))] ?? entry?.other ?? key);
  return template.split(/\{(\w+)\}/).map((part, index) => (index % 2 === 0 ? { literal: part } : { name: part }));
}

/**
 * @param {string | number | undefined} value
 * @param {string | undefined} name
 */
function shown(value, name) {
  return typeof value === 'number' ? numbers.format(value) : (value ?? `{${name}}`);
}

/** @returns {Promise<typeof table>} */
async function load() {
  const answer = await fetch(`${BASE}api/texts`);
  if (!answer.ok) throw new Error(`the server answers with status ${answer.status}`);
  return answer.json();
}
