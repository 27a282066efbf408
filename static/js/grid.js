// @ts-check
// The size of tiles that fill a space. Pure arithmetic.

/** Bounds of a tile's aspect ratio; beyond them much of a video would be cropped. */
const FLATTEST = 16 / 9;
const STEEPEST = { landscape: 1, portrait: 3 / 4 };

/** Minimum width at which a name is readable; below it the space scrolls. */
const NARROWEST = 104;

/** Space that a scroll bar takes. */
const SCROLL_BAR = 12;

/** Aspect ratio of tiles in a column beside the large ones, and the bounds of those in a row. */
const COLUMN = 16 / 9;
const ROW = { steepest: 1, flattest: 4 / 3 };

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
  const best = largest(count, space, gap, (cell) => ({
    width: Math.min(cell.width, cell.height * FLATTEST),
    height: Math.min(cell.height, cell.width / steepest),
  }));
  if (best.width >= Math.min(NARROWEST, space.width)) return { ...floor(best), scrolls: false };
  const width = space.width - SCROLL_BAR;
  const columns = Math.max(1, Math.floor((width + gap) / (NARROWEST + gap)));
  const side = (width - gap * (columns - 1)) / columns;
  return { ...floor({ width: side, height: side }), scrolls: true };
}

/**
 * Returns the size of the cells that divide a space among `count` large tiles.
 * @param {number} count
 * @param {Size} space
 * @param {number} gap
 * @returns {Size}
 */
export function cellsOf(count, space, gap) {
  if (count <= 1) return space;
  const { width, height } = largest(count, space, gap, (cell) => ({
    width: Math.min(cell.width, cell.height * FLATTEST),
    height: Math.min(cell.height, cell.width / FLATTEST),
  }));
  return floor({ width, height });
}

/**
 * Returns the size of `count` tiles in a strip, which scrolls if they do not all fit.
 * @param {number} count
 * @param {Size} space
 * @param {boolean} isRow true for a row, false for a column
 * @param {number} gap
 * @returns {Size & { scrolls: boolean }}
 */
export function stripTiles(count, space, isRow, gap) {
  if (!isRow) {
    const height = space.width / COLUMN;
    const scrolls = count * (height + gap) - gap > space.height;
    const width = scrolls ? space.width - SCROLL_BAR : space.width;
    return { ...floor({ width, height: width / COLUMN }), scrolls };
  }
  const width = (space.width + gap) / count - gap;
  const scrolls = width < space.height * ROW.steepest;
  const height = scrolls ? space.height - SCROLL_BAR : space.height;
  return { ...floor({ width: scrolls ? height * ROW.flattest : Math.min(width, height * ROW.flattest), height }), scrolls };
}

/**
 * Returns the largest tile of all divisions of a space into equal cells.
 * @param {number} count
 * @param {Size} space
 * @param {number} gap
 * @param {(cell: Size) => Size} tileIn
 */
function largest(count, space, gap, tileIn) {
  let best = { width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const tile = tileIn({
      width: (space.width - gap * (columns - 1)) / columns,
      height: (space.height - gap * (rows - 1)) / rows,
    });
    if (tile.width * tile.height > best.width * best.height) best = tile;
  }
  return best;
}

/**
 * @param {Size} size
 * @returns {Size}
 */
function floor({ width, height }) {
  return { width: Math.floor(width), height: Math.floor(height) };
}
