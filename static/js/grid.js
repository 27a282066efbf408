// @ts-check
// The size of tiles that fill a space. Pure arithmetic.

/** Bounds of a tile's aspect ratio; beyond them much of a video would be cropped. */
const FLATTEST = 16 / 9;
const STEEPEST = { landscape: 1, portrait: 3 / 4 };

/** Minimum width at which a name is readable; below it the space scrolls. */
const NARROWEST = 104;

/** @typedef {{ width: number, height: number }} Size */

/**
 * Returns the best size of `count` tiles in a space.
 * @param {number} count
 * @param {Size} space
 * @param {number} gap
 * @returns {Size & { scrolls: boolean }}
 */
export function fitTiles(count, space, gap) {
  const steepest = space.height > space.width ? STEEPEST.portrait : STEEPEST.landscape;
  let best = { width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const cell = {
      width: (space.width - gap * (columns - 1)) / columns,
      height: (space.height - gap * (rows - 1)) / rows,
    };
    const tile = {
      width: Math.min(cell.width, cell.height * FLATTEST),
      height: Math.min(cell.height, cell.width / steepest),
    };
    if (tile.width * tile.height > best.width * best.height) best = tile;
  }
  if (best.width >= Math.min(NARROWEST, space.width)) return { ...floor(best), scrolls: false };
  const columns = Math.max(1, Math.floor((space.width + gap) / (NARROWEST + gap)));
  const width = (space.width - gap * (columns - 1)) / columns;
  return { ...floor({ width, height: width }), scrolls: true };
}

/**
 * @param {Size} size
 * @returns {Size}
 */
function floor({ width, height }) {
  return { width: Math.floor(width), height: Math.floor(height) };
}
