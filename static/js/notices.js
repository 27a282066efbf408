// Short notices that go away by themselves.

import { byId, element } from './element.js';

const SHOWN_FOR = 6_000;
const MOST = 4;

/** Shows a notice; another one about the same `subject` takes its place. */
export function notice(text, subject = text) {
  const all = byId('notices');
  const same = [...all.children].find((shown) => shown.dataset.subject === subject);
  same?.remove();
  while (all.childElementCount >= MOST) all.firstElementChild.remove();
  const shown = element('p', { 'data-subject': subject }, text);
  all.append(shown);
  setTimeout(() => shown.remove(), SHOWN_FOR);
}
