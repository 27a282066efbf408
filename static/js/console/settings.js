// @ts-check
// The settings in force, each with the place where it is set.

import { element } from '../element.js';
import { get } from './api.js';
import { counted, head, run, section } from './view.js';

/** @import { View } from './view.js' */

/**
 * @typedef {object} Setting
 * @property {string} key
 * @property {unknown} value
 * @property {unknown} default
 * @property {string | null} origin
 */

/** @type {View} */
export const settings = {
  title: 'Settings',
  show(place, _, signal) {
    const count = element('span', { class: 'quiet' });
    const filter = element('input', { type: 'search', placeholder: 'Filter by name', 'aria-label': 'Filter by name' });
    const isSet = element('input', { type: 'checkbox' });
    const list = element('div');
    place.append(head('Settings', count), filter, element('label', { class: 'check' }, isSet, 'Only those that are set'), list);
    void run(signal, async () => {
      /** @type {Setting[]} */
      const all = (await get('/admin/settings', signal)).settings;
      const show = () => {
        const wanted = filter.value.toLowerCase();
        const found = all.filter(({ key, origin }) => key.includes(wanted) && (!isSet.checked || origin !== null));
        const sections = Map.groupBy(found, ({ key }) => (key.includes('.') ? key.slice(0, key.indexOf('.')) : 'top level'));
        list.replaceChildren(...[...sections].map(([name, rows]) => section(name, element('ul', { class: 'rows' }, ...rows.map(row)))));
      };
      count.textContent = `${counted(all.filter(({ origin }) => origin !== null).length, 'setting')} of ${all.length} set; secrets are not shown`;
      filter.addEventListener('input', show);
      isSet.addEventListener('change', show);
      show();
    });
  },
};

/** @param {Setting} setting */
function row({ key, value, default: usual, origin }) {
  const isUsual = JSON.stringify(value) === JSON.stringify(usual);
  const note = origin === null ? 'default' : `from ${origin}${isUsual ? ', as by default' : `, by default ${text(usual)}`}`;
  const name = element('strong', { class: 'mono' }, key.slice(key.indexOf('.') + 1));
  return element('li', { class: origin === null ? '' : 'set' }, element('div', { class: 'lead' }, name, element('span', { class: 'quiet' }, note)), element('code', { class: 'value' }, text(value)));
}

/** @param {unknown} value */
function text(value) {
  if (value === '' || (Array.isArray(value) && !value.length)) return 'none';
  return typeof value === 'string' ? value : JSON.stringify(value);
}
