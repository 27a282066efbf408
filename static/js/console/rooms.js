// @ts-check
// The running rooms, and those with settings of their own.

import { element } from '../element.js';
import { get } from './api.js';
import { different } from './room-settings.js';
import { bytes, counted, head, List, repeat, section, setText } from './view.js';

/** @import { RoomSettings } from './room-settings.js' */
/** @import { View } from './view.js' */

/**
 * A room in the list; `error` if it did not answer.
 * @typedef {object} RoomRow
 * @property {string} room
 * @property {string} [error]
 * @property {string | null} [meetingId]
 * @property {number} [members]
 * @property {number} [connections]
 * @property {number} [queuedBytes]
 */

const PAUSE = 2_000;

/** @type {View} */
export const rooms = {
  title: 'Rooms',
  show(place, _, signal) {
    const count = element('span', { class: 'quiet' });
    const filter = element('input', { type: 'search', placeholder: 'Filter by name', 'aria-label': 'Filter by name' });
    /** @type {List<RoomRow, ReturnType<typeof roomRow>>} */
    const list = new List('No room is running.', (room) => room.room, roomRow);
    /** @type {RoomRow[]} */
    let all = [];
    /** Nodes that did not answer. @type {string[]} */
    let silent = [];
    const show = () => {
      const wanted = filter.value.toLowerCase();
      const found = all.filter((room) => room.room.toLowerCase().includes(wanted));
      found.sort((a, b) => (b.members ?? 0) - (a.members ?? 0) || a.room.localeCompare(b.room));
      list.show(found.slice(0, MAX_ROWS));
      const members = all.reduce((sum, room) => sum + (room.members ?? 0), 0);
      const more = found.length > MAX_ROWS ? `, the ${MAX_ROWS} largest are shown` : '';
      setText(count, `${counted(all.length, 'room')}, ${counted(members, 'member')}${more}${silent.map((node) => `, no answer from ${node}`).join('')}`);
    };
    filter.addEventListener('input', show);
    /** @type {List<{ room: string, settings: RoomSettings }, ReturnType<typeof settingsRow>>} */
    const lasting = new List('No room has settings of its own.', ({ room }) => room, settingsRow);
    place.append(head('Rooms', count), filter, section('Running', list.element), section('With settings of their own', lasting.element));
    void repeat(signal, PAUSE, async () => {
      const found = await get('/admin/rooms', signal);
      all = found.rooms;
      silent = found.silentNodes ?? [];
      show();
      lasting.show((await get('/admin/room-settings', signal)).rooms.slice(0, MAX_ROWS));
    });
  },
};

/** Rows that a page shows without being slow. */
const MAX_ROWS = 500;

/** @param {RoomRow} room */
function roomRow(room) {
  const facts = element('span', { class: 'quiet' });
  const name = element('a', { href: `#/rooms/${encodeURIComponent(room.room)}` }, room.room);
  const members = element('span', { class: 'pill' });
  return {
    element: element('li', {}, element('div', { class: 'lead' }, name, facts), members),
    /** @param {RoomRow} room */
    update(room) {
      setText(members, room.error ? '?' : counted(room.members ?? 0, 'member'));
      const away = (room.members ?? 0) - (room.connections ?? 0);
      const queued = room.queuedBytes ? `${bytes(room.queuedBytes)} queued` : '';
      const text = room.error ?? [away ? `${away} away` : '', queued].filter(Boolean).join(' · ');
      setText(facts, text);
    },
  };
}

/** @param {{ room: string, settings: RoomSettings }} row */
function settingsRow({ room }) {
  const facts = element('span', { class: 'quiet' });
  const name = element('a', { href: `#/rooms/${encodeURIComponent(room)}` }, room);
  return {
    element: element('li', {}, element('div', { class: 'lead' }, name, facts)),
    /** @param {{ settings: RoomSettings }} row */
    update: ({ settings }) => setText(facts, different(settings).join(' · ')),
  };
}
