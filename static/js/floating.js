// @ts-check
// The place of floating tiles: a corner of the stage, to which they are dragged or moved by the arrow keys.

import { element } from './element.js';

const KEY = 'satsuma.preview';

/** Movement in pixels from which a press is a drag and no click. */
const DRAG = 6;

/** @typedef {{ bottom: boolean, right: boolean }} Corner */

/**
 * Makes the place; its parent is what it moves in.
 * @param {string} label
 */
export function floatingPlace(label) {
  const place = element('div', { class: 'floating', role: 'group', 'aria-label': label, title: label, tabindex: '0', hidden: true });
  let corner = stored();
  /** @param {Corner} next */
  const moveTo = (next) => {
    corner = next;
    place.dataset.corner = name(corner);
  };
  /** @param {Corner} next */
  const choose = (next) => {
    moveTo(next);
    localStorage.setItem(KEY, name(next));
  };
  moveTo(corner);

  place.addEventListener('keydown', (event) => {
    /** @type {Record<string, Partial<Corner>>} */
    const moves = { ArrowUp: { bottom: false }, ArrowDown: { bottom: true }, ArrowLeft: { right: false }, ArrowRight: { right: true } };
    const move = moves[event.key];
    if (!move || event.target !== place) return;
    event.preventDefault();
    choose({ ...corner, ...move });
  });

  /** @type {{ x: number, y: number, isMoving: boolean } | undefined} */
  let drag;
  place.addEventListener('pointerdown', ({ clientX, clientY, button }) => {
    if (button === 0) drag = { x: clientX, y: clientY, isMoving: false };
  });
  // A quick pointer is outside before its first movement is told.
  addEventListener('pointermove', ({ clientX, clientY }) => {
    if (!drag) return;
    const [x, y] = [clientX - drag.x, clientY - drag.y];
    if (!drag.isMoving && Math.hypot(x, y) < DRAG) return;
    drag.isMoving = true;
    place.style.translate = `${x}px ${y}px`;
  });
  const drop = () => {
    if (drag?.isMoving && place.parentElement) {
      const [own, around] = [place.getBoundingClientRect(), place.parentElement.getBoundingClientRect()];
      choose({
        bottom: own.top + own.bottom > around.top + around.bottom,
        right: own.left + own.right > around.left + around.right,
      });
    }
    drag = undefined;
    place.style.translate = '';
  };
  for (const type of ['pointerup', 'pointercancel']) addEventListener(type, drop);
  return place;
}

/** @param {Corner} corner */
function name({ bottom, right }) {
  return `${bottom ? 'bottom' : 'top'} ${right ? 'right' : 'left'}`;
}

/** @returns {Corner} */
function stored() {
  const text = localStorage.getItem(KEY) ?? '';
  return { bottom: !text.startsWith('top'), right: !text.endsWith('left') };
}
