// @ts-check
// Durable objects, and one with its values.

import { element } from '../element.js';
import { get, path, Refusal, remove } from './api.js';
import { question } from './dialog.js';
import { pages } from './pages.js';
import { readable } from './reports.js';
import { act, button, bytes, counted, head, run, section, time } from './view.js';

/** @import { View } from './view.js' */

/**
 * @typedef {object} ObjectSummary
 * @property {string} id
 * @property {number} keys
 * @property {number} bytes
 * @property {number} version
 * @property {string} changedAt
 * @property {string | null} alarm
 */

/** @type {View} */
export const objects = {
  title: 'Objects',
  show(place, _, signal) {
    const prefix = element('input', { type: 'search', placeholder: 'Beginning of the id', 'aria-label': 'Beginning of the id', autocomplete: 'off' });
    const list = pages(signal, 'There is no object.', objectRow, async (next) => {
      const query = new URLSearchParams({ limit: '100', prefix: prefix.value, ...(next === null ? {} : { after: String(next) }) });
      try {
        const page = await get(`/admin/objects?${query}`, signal);
        return { items: /** @type {ObjectSummary[]} */ (page.objects), next: page.next };
      } catch (error) {
        if (!(error instanceof Refusal && error.status === 404)) throw error;
        place.replaceChildren(head('Durable objects'), element('p', { class: 'empty' }, 'There are no durable objects: durable.keys is not set.'));
        return { items: [], next: null };
      }
    });
    prefix.addEventListener('input', () => void list.restart());
    place.append(head('Durable objects'), prefix, section('Stored', list.element));
    void list.restart();
  },
};

/** @param {ObjectSummary} object */
function objectRow(object) {
  const link = element('a', { href: `#/objects/${encodeURIComponent(object.id)}` }, object.id);
  return element('li', {}, element('div', { class: 'lead' }, link, facts(object)), element('span', { class: 'pill' }, bytes(object.bytes)));
}

/** @param {ObjectSummary} object */
function facts({ keys, version, changedAt, alarm }) {
  const due = alarm ? [' · alarm ', time(alarm)] : [];
  return element('span', { class: 'quiet' }, `${counted(keys, 'key')} · version ${version} · changed `, time(changedAt), ...due);
}

/** @type {View} */
export const object = {
  title: 'Objects',
  show(place, id, signal) {
    place.append(element('a', { href: '#/objects' }, '← All objects'));
    void run(signal, async () => {
      const { values, ...summary } = await get(path('objects', id), signal);
      const out = button('Remove', async () => {
        const answer = await question(`Remove ${id}?`, 'Remove', element('p', {}, 'Its values and its alarm are gone for good.'));
        if (answer && (await act(() => remove(path('objects', id)), 'The object is removed.'))) location.hash = '#/objects';
      }, 'danger change');
      const rows = Object.entries(values).map(([key, value]) =>
        element('li', {}, element('div', { class: 'lead' }, element('strong', { class: 'mono' }, key), element('pre', { tabindex: '0' }, readable(value)))),
      );
      place.append(head(id, facts(summary), out), section('Values', element('ul', { class: 'rows' }, ...rows)));
    });
  },
};
