// @ts-check
// The arrangement of tiles on the stage: which are large, which are small, which float. Pure functions.

/** @import { Size } from './grid.js' */

/**
 * A view of the meeting: all equal, or the one who speaks large.
 * @typedef {'grid' | 'speaker'} View
 */

/**
 * A tile to place, and the member that it is of. A screen is shown large by default, and whole.
 * @typedef {{ id: string, owner: string, kind: 'person' | 'screen', isMe: boolean }} Entry
 */

/**
 * The ids of tiles by their places, in order. Without large ones the small ones fill the stage; with some they are a
 * strip. Floating ones lie in a corner above the others.
 * @typedef {{ large: string[], small: string[], floating: string[] }} Arrangement
 */

/**
 * Places all tiles; one's own person comes last.
 * @param {Entry[]} entries
 * @param {{ view: View, pinned?: string, spotlight?: string, speaker?: string }} choice
 * @returns {Arrangement}
 */
export function arrange(entries, choice) {
  const placed = [...entries.filter(({ isMe }) => !isMe), ...entries.filter(({ isMe, kind }) => isMe && kind === 'person')];
  const large = chooseLarge(placed, choice);
  const small = placed.filter((entry) => !large.includes(entry));
  // A large one's own screen would contain itself, endlessly.
  const floating = entries.filter(({ isMe, kind }) => isMe && kind === 'screen');
  if (large.length > 0 && small.length === 1 && small[0].isMe) floating.push(...small.splice(0));
  return { large: ids(large), small: ids(small), floating: ids(floating) };
}

/**
 * @param {Entry[]} placed
 * @param {{ view: View, pinned?: string, spotlight?: string, speaker?: string }} choice
 */
function chooseLarge(placed, { view, pinned, spotlight, speaker }) {
  const chosen = placed.filter(({ id }) => id === pinned);
  if (chosen.length > 0) return chosen;
  const shown = placed.filter(({ id, kind }) => kind === 'screen' || id === spotlight);
  if (shown.length > 0) return shown;
  const others = placed.filter(({ isMe }) => !isMe);
  // Of two people the other one is large.
  if (others.length === 1) return others;
  return view === 'speaker' ? others.filter(({ id }) => id === speaker) : [];
}

/** @param {Entry[]} entries */
function ids(entries) {
  return entries.map(({ id }) => id);
}

/**
 * Returns the member to show as the speaker: the one so far, until somebody else speaks alone.
 * @param {string | undefined} current
 * @param {{ id: string, speaking: boolean }[]} others
 */
export function nextSpeaker(current, others) {
  const known = others.find(({ id }) => id === current);
  if (known?.speaking) return current;
  return (others.find(({ speaking }) => speaking) ?? known ?? others[0])?.id;
}

/** Bounds of a strip's width beside the large tiles, and of its height below them. */
const STRIP_WIDTH = { share: 0.17, least: 112, most: 240 };
const STRIP_HEIGHT = { share: 0.2, least: 92, most: 150 };

/** Maximum height of a space below the large tiles that shows one row. */
const ROW = 200;

/**
 * Divides the stage into the space of the large tiles and that of the strip, so that the large ones are as large as they can
 * be.
 * @param {Size} space
 * @param {number} aspect of a large tile
 * @param {number} gap
 * @returns {{ isBeside: boolean, isRow: boolean, large: Size, small: Size }}
 */
export function divide(space, aspect, gap) {
  const width = bounded(space.width, STRIP_WIDTH);
  const height = bounded(space.height, STRIP_HEIGHT);
  const beside = { width: space.width - width - gap, height: space.height };
  const above = { width: space.width, height: space.height - height - gap };
  if (fit(aspect, beside).width >= fit(aspect, above).width) {
    return { isBeside: true, isRow: false, large: beside, small: { width, height: space.height } };
  }
  const large = { width: space.width, height: Math.ceil(fit(aspect, above).height) };
  const small = { width: space.width, height: space.height - large.height - gap };
  return { isBeside: false, isRow: small.height <= ROW, large, small };
}

/**
 * Returns the largest size with this aspect ratio inside a space.
 * @param {number} aspect
 * @param {Size} space
 * @returns {Size}
 */
export function fit(aspect, { width, height }) {
  const wide = Math.max(0, Math.min(width, height * aspect));
  return { width: wide, height: wide / aspect };
}

/**
 * @param {number} length
 * @param {{ share: number, least: number, most: number }} bounds
 */
function bounded(length, { share, least, most }) {
  return Math.round(Math.min(Math.max(length * share, least), most));
}
