// @ts-check
// Webhooks with their queues, and the events that they did not take.

import { element } from '../element.js';
import { get, path, post } from './api.js';
import { pages } from './pages.js';
import { readable } from './reports.js';
import { act, button, counted, head, List, repeat, section, setText, time } from './view.js';

/** @import { View } from './view.js' */

/**
 * @typedef {object} Webhook
 * @property {string} name
 * @property {string} host
 * @property {string[]} events
 * @property {string[]} rooms
 * @property {boolean} chat
 * @property {number} waiting
 * @property {number} dead
 * @property {string | null} lastError
 */

/**
 * @typedef {object} DeadLetter
 * @property {string} id
 * @property {string} type
 * @property {string} webhook
 * @property {string} created
 * @property {number} attempts
 * @property {string | null} lastError
 * @property {unknown} event
 */

const PAUSE = 3_000;

/** @type {View} */
export const webhooks = {
  title: 'Webhooks',
  show(place, _, signal) {
    const dead = pages(signal, 'No event was given up.', (/** @type {DeadLetter} */ letter) => deadRow(letter, again), async (next) => {
      const query = new URLSearchParams({ limit: '50', ...(next === null ? {} : { before: String(next) }) });
      const page = await get(`/admin/webhooks/dead?${query}`, signal);
      return { items: page.deadLetters, next: page.next };
    });
    const again = () => void dead.restart();
    /** @type {List<Webhook, ReturnType<typeof webhookRow>>} */
    const list = new List('No webhook is configured ([[webhooks]]).', (hook) => hook.name, (hook) => webhookRow(hook, again));
    place.append(head('Webhooks'), list.element, section('Given up', dead.element));
    again();
    void repeat(signal, PAUSE, async () => list.show((await get('/admin/webhooks', signal)).webhooks));
  },
};

/**
 * @param {Webhook} hook
 * @param {() => void} changed
 */
function webhookRow(hook, changed) {
  const facts = element('span', { class: 'quiet' });
  const error = element('span', { class: 'problem' });
  const state = element('span', { class: 'pill' });
  const test = button('Test', () => void act(() => post(path('webhooks', hook.name, 'test')), 'An event of type webhook.test is on its way.'));
  const replay = button('Replay all', async () => {
    await act(() => post(path('webhooks', hook.name, 'replay')), 'The events are tried again.');
    changed();
  });
  return {
    element: element(
      'li',
      {},
      element('div', { class: 'lead' }, element('strong', {}, hook.name), facts, error),
      state,
      element('div', { class: 'actions change' }, test, replay),
    ),
    /** @param {Webhook} now */
    update(now) {
      const events = now.events.length ? now.events.join(', ') : 'all events';
      const rooms = now.rooms.length ? now.rooms.join(', ') : 'all rooms';
      setText(facts, `${now.host} · ${events} of ${rooms}${now.chat ? ' · with chat' : ''}`);
      setText(error, now.lastError ?? '');
      setText(state, `${now.waiting} waiting, ${now.dead} given up`);
      state.className = `pill ${now.lastError || now.dead ? 'bad' : 'good'}`;
      replay.hidden = now.dead === 0;
    },
  };
}

/**
 * @param {DeadLetter} letter
 * @param {() => void} changed
 */
function deadRow(letter, changed) {
  const replay = button('Replay', async () => {
    await act(() => post(path('webhooks', letter.webhook, 'replay'), { id: letter.id }), 'The event is tried again.');
    changed();
  });
  const body = element('details', {}, element('summary', {}, 'The event'), element('pre', { tabindex: '0' }, readable(letter.event)));
  const facts = element('span', { class: 'quiet' }, `${letter.webhook} · ${counted(letter.attempts, 'attempt')} · `, time(letter.created));
  const lead = element('div', { class: 'lead' }, element('strong', {}, letter.type), facts, element('span', { class: 'problem' }, letter.lastError ?? ''), body);
  return element('li', {}, lead, element('div', { class: 'actions change' }, replay));
}
