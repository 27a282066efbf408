// Computes the size of tiles that fill a space. Nothing but arithmetic.

/** A tile is never flatter than this, and never steeper: much of a picture would be cut off. */
const FLATTEST = 16 / 9;
const STEEPEST = { landscape: 1, portrait: 3 / 4 };

/** Under this width a name cannot be read; then the tiles keep it, and their space scrolls. */
const NARROWEST = 104;

/** The best size of `count` tiles in a space: `{ width, height, scrolls }`. */
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

function floor({ width, height }) {
  return { width: Math.floor(width), height: Math.floor(height) };
}
