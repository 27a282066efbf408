// Notices: short ones that go away by themselves, and lasting ones of what is wrong for now.

import { byId, element } from './element.js';

const SHOWN_FOR = 6_000;
const MOST = 4;

/** Shows a notice; another one about the same `subject` takes its place. */
export function notice(text, subject = text) {
  const shown = show(text, subject);
  setTimeout(() => shown.remove(), SHOWN_FOR);
}

/** Shows a notice until it is withdrawn, or replaced. */
export function lastingNotice(text, subject) {
  const same = find(subject);
  // Shown anew it would be read out anew.
  if (same?.textContent === text && same.classList.contains('lasting')) return;
  show(text, subject).classList.add('lasting');
}

export function withdrawNotice(subject) {
  find(subject)?.remove();
}

function show(text, subject) {
  const all = byId('notices');
  find(subject)?.remove();
  const passing = all.querySelectorAll('p:not(.lasting)');
  if (passing.length >= MOST) passing[0].remove();
  const shown = element('p', { 'data-subject': subject }, text);
  all.append(shown);
  return shown;
}

function find(subject) {
  return [...byId('notices').children].find((shown) => shown.dataset.subject === subject);
}
