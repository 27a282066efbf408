// @ts-check
// The icons, as strokes in a view box of 24 by 24.

import { allHtml } from './element.js';

const SHAPES = {
  microphone: 'M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM6 11a6 6 0 0 0 12 0M12 17v4M9 21h6',
  'microphone-off': 'M9 9v2a3 3 0 0 0 4.6 2.5M15 10V6a3 3 0 0 0-5.7-1.3M6 11a6 6 0 0 0 9 5.2M18 11a6 6 0 0 1-.4 2.2M12 17v4M9 21h6M4 4l16 16',
  camera: 'M4 7h9a2 2 0 0 1 2 2v6a2 2 0 0 1-2 2H4a2 2 0 0 1-2-2V9a2 2 0 0 1 2-2zM15 11l6-3v8l-6-3',
  'camera-off': 'M9 7h4a2 2 0 0 1 2 2v4l6 3V8l-6 3M15 16a2 2 0 0 1-2 1H4a2 2 0 0 1-2-2V9a2 2 0 0 1 2-2M3 3l18 18',
  screen: 'M4 4h16a1 1 0 0 1 1 1v11a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM8 21h8M12 17v4M12 13V8M9.5 10.5 12 8l2.5 2.5',
  flip: 'M4 12a8 8 0 0 1 13.7-5.600L20 8M20 4v4h-4M20 12a8 8 0 0 1-13.7 5.600L4 16M4 20v-4h4',
  hand: 'M8 13V5.500a1.500 1.500 0 0 1 3 0V11M11 10.500V3.500a1.500 1.500 0 0 1 3 0V11M14 5.500a1.500 1.500 0 0 1 3 0V12M17 8.500a1.500 1.500 0 0 1 3 0V15a7 7 0 0 1-7 7h-1a7 7 0 0 1-5.600-2.800L3.300 14.800a1.600 1.600 0 0 1 2.500-2L8 15',
  people: 'M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM2 21v-1a6 6 0 0 1 6-6h2a6 6 0 0 1 6 6v1M16 3.200a4 4 0 0 1 0 7.600M18 14.300a6 6 0 0 1 4 5.700v1',
  chat: 'M5 4h14a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2h-7l-5 4v-4H5a2 2 0 0 1-2-2V6a2 2 0 0 1 2-2zM8 9h8M8 12.500h5',
  more: 'M5 12h.01M12 12h.01M19 12h.01',
  shield: 'M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6z',
  leave: 'M15 4h3a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-3M10 8l-5 4 5 4M5 12h10',
  smile: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8.500 14.500a4.200 4.200 0 0 0 7 0M9 9.500h.01M15 9.500h.01',
  link: 'M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.700-5.700l-1.500 1.500M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.700 5.700l1.500-1.500',
  close: 'M6 6l12 12M18 6 6 18',
  send: 'M4 12 20 4l-5 16-3.500-6.500zM11.500 13.500 20 4',
  settings: 'M4 7h8M18 7h2M15 10a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM4 17h2M12 17h8M9 20a3 3 0 1 0 0-6 3 3 0 0 0 0 6z',
  ai: 'M12 3l1.8 5.2L19 10l-5.2 1.8L12 17l-1.800-5.200L5 10l5.200-1.800zM19 15l.8 2.200L22 18l-2.200.8L19 21l-.8-2.200L16 18l2.200-.8z',
  ear: 'M7 9a5 5 0 0 1 10 0c0 4-4 4.500-4 8a3 3 0 0 1-5.500 1.500M10 9.500a2 2 0 0 1 4 0c0 1.500-2 2-2 3.500',
  grid: 'M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z',
  'speaker-view': 'M3 4h18v10H3zM3 17h4v3H3zM10 17h4v3h-4zM17 17h4v3h-4z',
  pip: 'M20 11V5H4v14h6M13 13h8v6h-8z',
  pin: 'M9 3h6l-1 7 3 3v2H7v-2l3-3zM12 15v6',
  'full-screen': 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5',
  attach: 'M8 12.500 14.500 6a3 3 0 0 1 4.200 4.200l-8.200 8.200a5 5 0 0 1-7-7L12 3',
  play: 'M7 4l13 8-13 8z',
  pause: 'M8 4v16M16 4v16',
  sound: 'M4 9v6h4l5 4V5L8 9zM16.500 9a4 4 0 0 1 0 6M19 6a8 8 0 0 1 0 12',
  'sound-off': 'M4 9v6h4l5 4V5L8 9zM17 9.500l5 5M22 9.500l-5 5',
  film: 'M4 4h16v16H4zM8 4v16M16 4v16M4 8h4M4 12h16M4 16h4M16 8h4M16 16h4',
  edit: 'M4 20h4L19 9l-4-4L4 16zM13.500 6.500l4 4',
  down: 'M12 5v14M6 13l6 6 6-6',
  keyboard: 'M4 6h16a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H4a2 2 0 0 1-2-2V8a2 2 0 0 1 2-2zM6.500 10h.01M10 10h.01M13.500 10h.01M17 10h.01M8 14h8',
  bug: 'M8 9a4 4 0 0 1 8 0v6a4 4 0 0 1-8 0zM12 9v10M8 12H3M21 12h-5M8 8 5 5M16 8l3-3M8.500 17 5 20M15.500 17l3.500 3',
};

const SVG = 'http://www.w3.org/2000/svg';

/** @typedef {keyof typeof SHAPES} IconName */

/**
 * Makes an icon. It is hidden from screen readers, so its button needs a label.
 * @param {IconName} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'icon');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', SHAPES[name]);
  svg.append(path);
  return svg;
}

/**
 * Shows an icon in a button, replacing its previous one.
 * @param {HTMLElement} button
 * @param {IconName} name
 */
export function setIcon(button, name) {
  if (button.dataset.shown === name) return;
  button.dataset.shown = name;
  button.querySelector('svg')?.remove();
  button.prepend(icon(name));
}

/** Adds icons to all elements of the document that name one. */
export function placeIcons() {
  for (const place of allHtml('[data-icon]')) setIcon(place, /** @type {IconName} */ (place.dataset.icon));
}
