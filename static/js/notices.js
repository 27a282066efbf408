// @ts-check
// Notices: short ones that disappear by themselves, and lasting ones for problems that continue.

import { byId, element } from './element.js';

const SHOWN_FOR = 6_000;
const MAX_NOTICES = 4;

/** The places of both kinds, which the page shows as one stack. */
const PLACES = ['lasting', 'notices'];

/**
 * Shows a notice, replacing one with the same `subject`.
 * @param {string} text
 * @param {string} [subject]
 */
export function notice(text, subject = text) {
  const shown = show(byId('notices'), text, subject);
  setTimeout(() => shown.remove(), SHOWN_FOR);
}

/**
 * Shows a notice until it is withdrawn or replaced.
 * @param {string} text
 * @param {string} subject
 */
export function lastingNotice(text, subject) {
  const place = byId('lasting');
  // Screen readers would read a replaced one aloud again.
  if (find(place, subject)?.textContent !== text) show(place, text, subject);
}

/**
 * Withdraws the notice about this, if there is one: with a text only if it is that one.
 * @param {string} subject
 * @param {string} [text]
 */
export function withdrawNotice(subject, text) {
  for (const id of PLACES) {
    const shown = find(byId(id), subject);
    if (text === undefined || shown?.textContent === text) shown?.remove();
  }
}

export function withdrawAllNotices() {
  for (const id of PLACES) byId(id).replaceChildren();
}

/**
 * @param {HTMLElement} place
 * @param {string} text
 * @param {string} subject
 */
function show(place, text, subject) {
  find(place, subject)?.remove();
  while (place.childElementCount >= MAX_NOTICES) place.firstElementChild?.remove();
  const shown = element('p', { 'data-subject': subject }, text);
  place.append(shown);
  return shown;
}

/**
 * @param {HTMLElement} place
 * @param {string} subject
 */
function find(place, subject) {
  return [...place.children].find((shown) => shown.getAttribute('data-subject') === subject);
}
