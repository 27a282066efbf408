// @ts-check
// The list of members, with the actions on each.

import { byId, element } from './element.js';
import { icon } from './icons.js';
import { text } from './texts.js';
import { hue, initials, label } from './tile.js';

/** @import { User } from './signalling.js' */

/** @typedef {ReturnType<typeof makeRow>} Row */

export class People {
  #mute;
  #write;
  #manage;
  #rename;
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /**
   * The members with a raised hand, in the order in which they raised it.
   * @type {string[]}
   */
  #hands = [];

  /**
   * `rename` is there if we can change our name.
   * @param {{ mute: (user: User) => void, write: (user: User) => void, manage: (user: User) => void, rename?: (user: User) => void }} actions
   */
  constructor({ mute, write, manage, rename }) {
    this.#rename = rename;
    this.#mute = mute;
    this.#write = write;
    this.#manage = manage;
  }

  /**
   * Shows all members of the room; raised hands come first. Rows are updated in place, so that the focus stays.
   * @param {User[]} users
   * @param {string} myId
   * @param {{ isModerator: boolean, moderates: (id: string) => boolean }} roles
   * @param {string[]} observers names of programs
   */
  show(users, myId, roles, observers) {
    byId('observers').hidden = observers.length === 0;
    byId('observers').textContent = text('people.observers', { names: observers.join(', ') });
    byId('people-title').textContent = text('people.count', { count: users.length });
    const raised = users.filter(({ raisedHand }) => raisedHand).map(({ id }) => id);
    this.#hands = [...this.#hands.filter((id) => raised.includes(id)), ...raised.filter((id) => !this.#hands.includes(id))];
    /** @param {User} user */
    const place = ({ id }) => (this.#hands.includes(id) ? this.#hands.indexOf(id) : Infinity);
    const sorted = [...users].sort((a, b) => (place(a) === place(b) ? a.name.localeCompare(b.name) : place(a) - place(b)));
    for (const [id, row] of this.#rows) {
      if (users.some((user) => user.id === id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    const list = byId('people');
    sorted.forEach((user, index) => {
      const row = this.#rows.get(user.id) ?? this.#add(user);
      row.user = user;
      const isMe = user.id === myId;
      row.name.textContent = isMe ? text('tile.you', { name: user.name }) : user.name;
      row.initials.textContent = initials(user.name);
      row.hand.hidden = !user.raisedHand;
      row.order.textContent = raised.length > 1 && user.raisedHand ? String(place(user) + 1) : '';
      row.muted.hidden = Boolean(user.tracks.audioEnabled);
      // The AI cannot be muted, only removed.
      const isPerson = user.id !== 'ai';
      row.role.hidden = !roles.moderates(user.id);
      row.manage.hidden = isMe || !isPerson || !roles.isModerator;
      label(row.manage, text('people.moderate', { name: user.name }));
      row.mute.hidden = isMe || !isPerson || !user.tracks.audioEnabled;
      label(row.mute, text('people.muteName', { name: user.name }));
      row.rename.hidden = !isMe || !this.#rename;
      row.write.hidden = isMe || !isPerson;
      label(row.write, text('people.writeTo', { name: user.name }));
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    });
  }

  /** @param {User} user */
  #add(user) {
    const row = makeRow(user);
    row.mute.addEventListener('click', () => this.#mute(row.user));
    row.write.addEventListener('click', () => this.#write(row.user));
    row.rename.addEventListener('click', () => this.#rename?.(row.user));
    row.manage.addEventListener('click', () => this.#manage(row.user));
    this.#rows.set(user.id, row);
    return row;
  }
}

/** @param {User} user */
function makeRow(user) {
  const parts = {
    initials: element('span', { class: 'initials', 'aria-hidden': 'true' }),
    name: element('span', { class: 'name', dir: 'auto' }),
    role: element('span', { class: 'role', role: 'img', 'aria-label': text('people.moderator'), title: text('people.moderator') }, icon('shield')),
    order: element('span', { class: 'order', 'aria-hidden': 'true' }),
    hand: element('span', { class: 'hand', role: 'img', 'aria-label': text('tile.hand') }, icon('hand')),
    muted: element('span', { class: 'muted', role: 'img', 'aria-label': text('tile.muted') }, icon('microphone-off')),
    mute: element('button', { class: 'plain', type: 'button' }, icon('microphone')),
    rename: element('button', { class: 'plain', type: 'button', 'aria-label': text('who.change'), title: text('who.change') }, icon('edit')),
    write: element('button', { class: 'plain', type: 'button' }, icon('chat')),
    manage: element('button', { class: 'plain', type: 'button' }, icon('more')),
  };
  const { initials, name, role, order, hand, muted, mute, rename, write, manage } = parts;
  const row = element('li', {}, initials, name, role, order, hand, muted, mute, rename, write, manage);
  row.style.setProperty('--hue', String(hue(user.id)));
  return { user, element: row, ...parts };
}
