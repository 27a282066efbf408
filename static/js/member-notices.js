// @ts-check
// Notices and sounds of members who join, leave, or raise a hand.

import { notice, withdrawNotice } from './notices.js';
import { text } from './texts.js';

/** @import { Chime } from './chime.js' */
/** @import { User } from './signalling.js' */

export class MemberNotices {
  #chime;

  /** @param {Chime} chime */
  constructor(chime) {
    this.#chime = chime;
  }

  /**
   * Shows the changes between two states.
   * @param {User[]} before
   * @param {User[]} now
   */
  show(before, now) {
    const left = new Map(before.map((user) => [user.id, user]));
    for (const user of now) {
      const known = left.get(user.id);
      left.delete(user.id);
      if (!known) {
        notice(text('notice.joined', { name: user.name }), 'came');
        this.#chime.play('joined');
      }
      if (known && user.raisedHand && !known.raisedHand) notice(text('notice.hand', { name: user.name }), 'hand');
      if (known?.raisedHand && !user.raisedHand) withdrawNotice('hand', text('notice.hand', { name: known.name }));
    }
    for (const user of left.values()) {
      withdrawNotice('came', text('notice.joined', { name: user.name }));
      withdrawNotice('hand', text('notice.hand', { name: user.name }));
      notice(text('notice.left', { name: user.name }), 'left');
      this.#chime.play('left');
    }
  }
}
