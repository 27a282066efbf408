// @ts-check
// The running rooms, and one room with its members and moderation.

import { element } from '../element.js';
import { get, path, post, Refusal } from './api.js';
import { check, choice, labelled, question } from './dialog.js';
import { act, button, bytes, counted, duration, head, List, repeat, section, setText } from './view.js';

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

/**
 * @typedef {object} Member
 * @property {string} id
 * @property {string} name
 * @property {{ ageSeconds: number } | null} connection
 * @property {number} lastHeartbeatSecondsAgo
 * @property {number} queuedBytes
 * @property {boolean} joined
 * @property {boolean} hidden
 * @property {boolean} raisedHand
 * @property {boolean} audio
 * @property {boolean} video
 * @property {boolean} screen
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
    const show = () => {
      const wanted = filter.value.toLowerCase();
      const found = all.filter((room) => room.room.toLowerCase().includes(wanted));
      found.sort((a, b) => (b.members ?? 0) - (a.members ?? 0) || a.room.localeCompare(b.room));
      list.show(found.slice(0, MAX_ROWS));
      const members = all.reduce((sum, room) => sum + (room.members ?? 0), 0);
      const more = found.length > MAX_ROWS ? `, the ${MAX_ROWS} largest are shown` : '';
      setText(count, `${counted(all.length, 'room')}, ${counted(members, 'member')}${more}`);
    };
    filter.addEventListener('input', show);
    place.append(head('Rooms', count), filter, section('Running', list.element));
    void repeat(signal, PAUSE, async () => {
      all = (await get('/admin/rooms', signal)).rooms;
      show();
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

/** @type {View} */
export const room = {
  title: 'Rooms',
  show(place, name, signal) {
    const facts = element('span', { class: 'quiet' });
    /** @type {List<Member, ReturnType<typeof memberRow>>} */
    const list = new List('No member.', (member) => member.id, (member) => memberRow(name, member));
    place.append(
      element('a', { href: '#/rooms' }, '← All rooms'),
      head(name, facts),
      meetingActions(name),
      section('Members', list.element),
      section('Message to everyone', messageForm(name)),
    );
    void repeat(signal, PAUSE, async () => {
      try {
        const view = await get(path('rooms', name), signal);
        /** @type {Member[]} */
        const members = view.members;
        members.sort((a, b) => Number(b.raisedHand) - Number(a.raisedHand));
        list.show(members);
        setText(facts, view.meetingId ? `meeting ${view.meetingId}` : 'no meeting');
      } catch (error) {
        if (!(error instanceof Refusal && error.status === 404)) throw error;
        list.show([]);
        setText(facts, 'not running');
      }
    });
  },
};

/**
 * @param {string} room
 * @param {object} action
 * @param {string} done
 */
function moderate(room, action, done) {
  return act(() => post(path('rooms', room, 'moderate'), action), done);
}

/** @param {string} room */
function meetingActions(room) {
  const actions = /** @type {[string, object, string][]} */ ([
    ['Lock', { action: 'lock', on: true }, 'The meeting is locked.'],
    ['Unlock', { action: 'lock', on: false }, 'The meeting is open.'],
    ['Waiting room on', { action: 'waitingRoom', on: true }, 'Whoever is new waits to be let in.'],
    ['Waiting room off', { action: 'waitingRoom', on: false }, 'Nobody has to wait.'],
    ['Lower all hands', { action: 'lowerHands' }, 'All hands are lowered.'],
  ]);
  const buttons = actions.map(([text, action, done]) => button(text, () => void moderate(room, action, done)));
  return element('div', { class: 'actions change', role: 'group', 'aria-label': 'Meeting' }, ...buttons);
}

/**
 * @param {string} room
 * @param {Member} first
 */
function memberRow(room, first) {
  let member = first;
  const name = element('strong');
  const facts = element('span', { class: 'quiet' });
  const badges = element('span', { class: 'actions' });
  /** @param {string} action */
  const of = (action) => ({ action, id: member.id });
  /** @type {[kind: 'audio' | 'video' | 'screen', text: string, done: string][]} */
  const kinds = [['audio', 'Mute', 'is muted'], ['video', 'Stop camera', 'has no camera on'], ['screen', 'Stop screen', 'shares no screen']];
  const stops = kinds.map(([kind, text, done]) => {
    const stop = button(text, () => void moderate(room, { ...of('mute'), kind }, `${member.name} ${done}.`));
    return { kind, stop };
  });
  const lower = button('Lower hand', () => void moderate(room, of('lowerHands'), `${member.name}’s hand is lowered.`));
  const host = button('Make moderator', () => void moderate(room, of('grantModeration'), `${member.name} is a moderator.`));
  const guest = button('Take moderation', () => void moderate(room, of('revokeModeration'), `${member.name} is no moderator.`));
  const out = button('Remove', () => void askToRemove(room, member), 'danger');
  const actions = element('div', { class: 'actions change' }, lower, ...stops.map(({ stop }) => stop), host, guest, out);
  return {
    element: element('li', {}, element('div', { class: 'lead' }, name, facts), badges, actions),
    /** @param {Member} now */
    update(now) {
      member = now;
      setText(name, now.name);
      const connected = now.connection ? `connected for ${duration(now.connection.ageSeconds)}` : 'away';
      const queued = now.queuedBytes ? `${bytes(now.queuedBytes)} queued` : '';
      const silent = now.lastHeartbeatSecondsAgo > 10 ? `silent for ${duration(now.lastHeartbeatSecondsAgo)}` : '';
      setText(facts, [now.id, connected, silent, queued].filter(Boolean).join(' · '));
      const shown = [
        now.raisedHand && 'hand raised',
        now.audio && 'mic',
        now.video && 'camera',
        now.screen && 'screen',
        !now.joined && 'lobby',
        now.hidden && 'hidden',
      ].filter((text) => typeof text === 'string');
      if (badges.textContent !== shown.join('')) badges.replaceChildren(...shown.map((text) => element('span', { class: 'pill' }, text)));
      lower.hidden = !now.raisedHand;
      for (const { kind, stop } of stops) stop.hidden = !now[kind];
      // The AI leaves when its meeting sends it away.
      for (const of of [host, guest, out]) of.hidden = now.id === 'ai';
    },
  };
}

/**
 * @param {string} room
 * @param {Member} member
 */
async function askToRemove(room, member) {
  const answer = await question(
    `Remove ${member.name}?`,
    'Remove',
    labelled('Reason, which it is told', element('input', { name: 'reason', maxlength: '200', autocomplete: 'off' })),
    labelled('Keep it out', choice('ban', [['', 'until the meeting ends'], ['600', 'for 10 minutes'], ['3600', 'for an hour'], ['0', 'not at all']])),
    check('network', 'Keep everybody at its network out, too'),
  );
  if (!answer) return;
  const reason = String(answer.get('reason') ?? '').trim();
  const ban = String(answer.get('ban') ?? '');
  const action = {
    action: 'remove',
    id: member.id,
    network: answer.has('network'),
    ...(reason ? { reason } : {}),
    ...(ban ? { seconds: Number(ban) } : {}),
  };
  await moderate(room, action, `${member.name} is removed.`);
}

/** @param {string} room */
function messageForm(room) {
  const text = element('input', { name: 'message', maxlength: '2000', required: true, autocomplete: 'off', 'aria-label': 'Message' });
  const form = element('form', { class: 'line-form change' }, element('div', {}, text), element('button', { type: 'submit' }, 'Send'));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (await act(() => post(path('rooms', room, 'chat'), { message: text.value }), 'The message is sent.')) form.reset();
  });
  return form;
}
