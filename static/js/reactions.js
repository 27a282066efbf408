// @ts-check
// Reactions: emoji that members show for a moment above their tiles.

import { byId, element } from './element.js';
import { text } from './texts.js';

/** @import { Signalling } from './signalling.js' */

/** The offered emoji, and their names for screen readers. */
const OFFERED = /** @type {const} */ ([
  ['👍', 'reactions.thumbsUp'],
  ['👏', 'reactions.applause'],
  ['❤️', 'reactions.heart'],
  ['😂', 'reactions.laughter'],
  ['😮', 'reactions.surprise'],
  ['🎉', 'reactions.celebration'],
]);

const SHOWN_FOR = 4_000;

/**
 * Offers reactions, and shows those of members: `tileOf` returns the tile of a member on the stage.
 * @param {Signalling} signalling
 * @param {(id: string) => HTMLElement | undefined} tileOf
 * @param {AbortSignal} signal
 */
export function offerReactions(signalling, tileOf, signal) {
  const menu = byId('reactions');
  menu.replaceChildren(
    ...OFFERED.map(([emoji, key]) => {
      const label = text(key);
      const react = () => {
        // On a phone it was opened from the other menu.
        for (const open of [menu, byId('menu')]) open.hidePopover();
        signalling.sendIfOpen({ type: 'react', emoji });
      };
      return element('button', { type: 'button', 'aria-label': label, title: label, onclick: react }, emoji);
    }),
  );
  signalling.on(
    'reactions',
    ({ reactions }) => {
      for (const { id, emoji } of reactions) show(tileOf(id), emoji);
    },
    { signal },
  );
}

/**
 * @param {HTMLElement | undefined} tile
 * @param {string} emoji
 */
function show(tile, emoji) {
  if (!tile) return;
  // One at a time: the newest is what counts.
  tile.querySelector('.reaction')?.remove();
  const shown = element('span', { class: 'reaction', role: 'status', 'data-emoji': emoji }, emoji);
  tile.append(shown);
  setTimeout(() => shown.remove(), SHOWN_FOR);
}
