// @ts-check
// A room with its members, those who wait, its settings and moderation.

import { element } from '../element.js';
import { get, path, post, Refusal } from './api.js';
import { check, choice, labelled, question } from './dialog.js';
import { Switches } from './room-settings.js';
import { act, button, bytes, duration, head, List, repeat, section, setText } from './view.js';

/** @import { View } from './view.js' */

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

/**
 * Somebody who waits to be admitted.
 * @typedef {object} Waiting
 * @property {string} id
 * @property {string} name
 */

const PAUSE = 2_000;

/** @type {View} */
export const room = {
  title: 'Rooms',
  show(place, name, signal) {
    const facts = element('span', { class: 'quiet' });
    /** @type {List<Member, ReturnType<typeof memberRow>>} */
    const list = new List('No member.', (member) => member.id, (member) => memberRow(name, member));
    /** @type {List<Waiting, ReturnType<typeof waitingRow>>} */
    const waiting = new List('', (knock) => knock.id, (knock) => waitingRow(name, knock));
    const waitingSection = section('Waiting to be admitted', waiting.element);
    const switches = new Switches((action, done) => moderate(name, action, done));
    place.append(
      element('a', { href: '#/rooms' }, '← All rooms'),
      head(name, facts),
      // What is pressed is not moved by members who come and go.
      section('Meeting', switches.element, meetingActions(name)),
      waitingSection,
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
        waiting.show(view.waiting);
        waitingSection.hidden = view.waiting.length === 0;
        switches.show(view.settings, true);
        setText(facts, view.meetingId ? `meeting ${view.meetingId}` : 'no meeting');
      } catch (error) {
        if (!(error instanceof Refusal && error.status === 404)) throw error;
        list.show([]);
        waitingSection.hidden = true;
        switches.show(await get(path('rooms', name, 'settings'), signal), false);
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

/**
 * @param {string} room
 * @param {Waiting} first
 */
function waitingRow(room, { id, name: first }) {
  const name = element('strong', {}, first);
  const admit = button('Admit', () => void moderate(room, { action: 'admit', id }, `${name.textContent} may come in.`));
  const refuse = button('Refuse', () => void moderate(room, { action: 'refuse', id }, `${name.textContent} is refused.`), 'danger');
  const lead = element('div', { class: 'lead' }, name, element('span', { class: 'quiet' }, id));
  return {
    element: element('li', {}, lead, element('div', { class: 'actions change' }, admit, refuse)),
    /** @param {Waiting} knock */
    update: (knock) => setText(name, knock.name),
  };
}

/** @param {string} room */
function meetingActions(room) {
  const lower = button('Lower all hands', () => void moderate(room, { action: 'lowerHands' }, 'All hands are lowered.'));
  const end = button('End for all', () => void askToEnd(room), 'danger');
  return element('div', { class: 'actions change', role: 'group', 'aria-label': 'Meeting' }, lower, end);
}

/** @param {string} room */
async function askToEnd(room) {
  const answer = await question(`End the meeting in ${room} for everyone?`, 'End');
  if (answer) await moderate(room, { action: 'end' }, 'The meeting is over.');
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
