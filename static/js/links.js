// @ts-check
// Links in what members write. Only http and https: no other scheme becomes a link.

import { element } from './element.js';

const ADDRESS = /\bhttps?:\/\/[^\s<>"]+/gi;

/** What ends a sentence, and not the address before it. */
const TRAILING = /[.,;:!?'’)\]}]+$/;

/**
 * Returns a text with its addresses as links, which open in a new window and tell it nothing of this page.
 * @param {string} written
 * @returns {(string | HTMLAnchorElement)[]}
 */
export function linked(written) {
  /** @type {(string | HTMLAnchorElement)[]} */
  const parts = [];
  let end = 0;
  for (const { 0: match, index } of written.matchAll(ADDRESS)) {
    const address = trimmed(match);
    if (!URL.canParse(address)) continue;
    parts.push(written.slice(end, index), element('a', { href: address, target: '_blank', rel: 'noopener noreferrer nofollow ugc' }, address));
    end = index + address.length;
  }
  return [...parts, written.slice(end)].filter((part) => part !== '');
}

/**
 * Returns an address without the punctuation of the sentence around it; a closing parenthesis stays if it was opened.
 * @param {string} match
 */
function trimmed(match) {
  const bare = match.replace(TRAILING, '');
  const isOpen = bare.split('(').length > bare.split(')').length;
  return isOpen && match[bare.length] === ')' ? `${bare})` : bare;
}
