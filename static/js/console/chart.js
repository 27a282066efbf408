// @ts-check
// Small line charts, as inline SVG. Colours are those of classes in the style sheet.

import { element } from '../element.js';
import { setText } from './view.js';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 300;
const HEIGHT = 64;

/** Values that fill the width at first: few would be a dot at the edge. */
const FIRST_PLACES = 20;

/**
 * A line of a chart; a gap where a value is null.
 * @typedef {object} Series
 * @property {string} name
 * @property {(number | null)[]} values
 */

/**
 * Makes a chart of values in time, the newest at the right; it shows `capacity` of them.
 * @param {string} title
 * @param {number} capacity
 * @param {(value: number) => string} format
 */
export function chart(title, capacity, format) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  const top = element('span', { class: 'quiet' });
  const legend = element('figcaption', { class: 'legend' });
  const made = element('figure', { class: 'chart' }, element('div', { class: 'chart-head' }, element('b', {}, title), top), svg, legend);
  /** @type {{ path: SVGPathElement, label: HTMLElement }[]} */
  const lines = [];

  /** @param {Series[]} series */
  const show = (series) => {
    const most = Math.max(1, ...series.flatMap(({ values }) => values.map((value) => value ?? 0)));
    while (lines.length < series.length) {
      const path = document.createElementNS(SVG, 'path');
      path.setAttribute('class', `line line-${lines.length % 4}`);
      svg.append(path);
      const label = element('span', { class: `key key-${lines.length % 4}` });
      legend.append(label);
      lines.push({ path, label });
    }
    lines.forEach(({ path, label }, at) => {
      const { name, values } = series[at] ?? { name: '', values: [] };
      path.setAttribute('d', outline(values, capacity, most));
      const last = values.at(-1);
      setText(label, name && `${name} ${last === null || last === undefined ? '–' : format(last)}`);
      label.hidden = !name;
    });
    setText(top, `up to ${format(most)}`);
    svg.setAttribute('aria-label', `${title}: ${lines.map(({ label }) => label.textContent).join(', ')}`);
  };
  return { element: made, show };
}

/**
 * @param {(number | null)[]} values
 * @param {number} capacity
 * @param {number} most
 */
function outline(values, capacity, most) {
  const shown = values.slice(-capacity);
  const places = Math.min(capacity, Math.max(FIRST_PLACES, shown.length));
  const start = places - shown.length;
  let isDrawing = false;
  return shown
    .map((value, at) => {
      if (value === null) {
        isDrawing = false;
        return '';
      }
      const x = ((start + at) / (places - 1)) * WIDTH;
      const y = HEIGHT - 2 - (value / most) * (HEIGHT - 4);
      const command = isDrawing ? 'L' : 'M';
      isDrawing = true;
      return `${command}${x.toFixed(1)} ${y.toFixed(1)}`;
    })
    .join('');
}
