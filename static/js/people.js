// The list of who is here, with what can be done about them.

import { byId, element } from './element.js';
import { icon } from './icons.js';
import { hue, initials } from './tile.js';

export class People {
  #mute;
  #write;
  #rows = new Map();

  /** `mute` and `write` are called with a user. */
  constructor({ mute, write }) {
    this.#mute = mute;
    this.#write = write;
  }

  /** Shows all in the room; raised hands come first. Rows are kept, and with them the focus. */
  show(users, myId) {
    byId('people-title').textContent = `People (${users.length})`;
    const sorted = [...users].sort((a, b) => Number(b.raisedHand) - Number(a.raisedHand) || a.name.localeCompare(b.name));
    for (const [id, row] of this.#rows) {
      if (users.some((user) => user.id === id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    const list = byId('people');
    sorted.forEach((user, place) => {
      const row = this.#rows.get(user.id) ?? this.#add(user.id);
      row.user = user;
      const isMe = user.id === myId;
      row.name.textContent = isMe ? `${user.name} (you)` : user.name;
      row.initials.textContent = initials(user.name);
      row.hand.hidden = !user.raisedHand;
      row.muted.hidden = Boolean(user.tracks.audioEnabled);
      // Nobody can mute the AI: it is sent away.
      const isPerson = user.id !== 'ai';
      row.mute.hidden = isMe || !isPerson || !user.tracks.audioEnabled;
      row.mute.setAttribute('aria-label', `Mute ${user.name}`);
      row.write.hidden = isMe || !isPerson;
      row.write.setAttribute('aria-label', `Write to ${user.name}`);
      if (list.children[place] !== row.element) list.insertBefore(row.element, list.children[place] ?? null);
    });
  }

  #add(id) {
    const row = {
      initials: element('span', { class: 'initials', 'aria-hidden': 'true' }),
      name: element('span', { class: 'name' }),
      hand: element('span', { class: 'hand', role: 'img', 'aria-label': 'hand raised' }, icon('hand')),
      muted: element('span', { class: 'muted', role: 'img', 'aria-label': 'muted' }, icon('microphone-off')),
      mute: element('button', { class: 'small', type: 'button', onclick: () => this.#mute(row.user) }, 'Mute'),
      write: element(
        'button',
        { class: 'plain', type: 'button', onclick: () => this.#write(row.user) },
        icon('chat'),
      ),
    };
    row.element = element('li', {}, row.initials, row.name, row.hand, row.muted, row.mute, row.write);
    row.element.style.setProperty('--hue', hue(id));
    this.#rows.set(id, row);
    return row;
  }
}
