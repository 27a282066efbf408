// Notices: short ones that go away by themselves, and lasting ones of what is wrong for now.

import { byId, element } from './element.js';

const SHOWN_FOR = 6_000;
const MOST = 4;

/** Shows a notice; another one about the same `subject` takes its place. */
export function notice(text, subject = text) {
  const shown = show(byId('notices'), text, subject);
  setTimeout(() => shown.remove(), SHOWN_FOR);
}

/** Shows a notice until it is withdrawn, or replaced. It covers nothing. */
export function lastingNotice(text, subject) {
  const place = byId('lasting');
  // Shown anew it would be read out anew.
  if (find(place, subject)?.textContent !== text) show(place, text, subject);
}

export function withdrawNotice(subject) {
  find(byId('lasting'), subject)?.remove();
}

export function withdrawAllNotices() {
  for (const id of ['notices', 'lasting']) byId(id).replaceChildren();
}

function show(place, text, subject) {
  find(place, subject)?.remove();
  while (place.childElementCount >= MOST) place.firstElementChild.remove();
  const shown = element('p', { 'data-subject': subject }, text);
  place.append(shown);
  return shown;
}

function find(place, subject) {
  return [...place.children].find((shown) => shown.dataset.subject === subject);
}
