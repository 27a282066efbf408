// @ts-check
// The stage: the visible members and screens, their order and their size.

import { byId, element } from './element.js';
import { fitTiles } from './grid.js';
import { Tile } from './tile.js';

/** @import { User } from './signalling.js' */

/**
 * A kind of video.
 * @typedef {'video' | 'screenshare'} VideoKind
 */

/** Maximum number of readable tiles; in larger rooms the last active members are shown. */
const MAX_TILES = 49;

const GAP = 8;

export class Stage {
  /** @type {Map<string, Tile>} */
  #tiles = new Map();
  #screens = element('div', { class: 'tiles screens' });
  #people = element('div', { class: 'tiles' });
  #alone = element('p', { class: 'alone', hidden: true }, 'Nobody else is here yet. Share the link of this page.');
  /**
   * Time at which each member last spoke or raised a hand, by id.
   * @type {Map<string, number>}
   */
  #lastActive = new Map();
  /**
   * The member in the foreground.
   * @type {string | undefined}
   */
  spotlight;

  /** @param {HTMLElement} place */
  constructor(place) {
    place.append(this.#screens, this.#people, this.#alone);
    const resized = new ResizeObserver(() => this.#layOut());
    resized.observe(this.#screens);
    resized.observe(this.#people);
  }

  /**
   * Returns the members on the stage, of all in the room, ourselves first. Only their video is received.
   * @param {User[]} users
   * @param {string} myId
   */
  choose(users, myId) {
    const now = performance.now();
    for (const user of users) {
      if (user.speaking || user.raisedHand) this.#lastActive.set(user.id, now);
    }
    /** @param {User} user */
    const isMe = ({ id }) => id === myId;
    const mineFirst = [...users.filter(isMe), ...users.filter((user) => !isMe(user))];
    if (mineFirst.length <= MAX_TILES) return mineFirst;
    /** @param {User} user */
    const active = (user) => (isMe(user) || user.id === this.spotlight ? Infinity : (this.#lastActive.get(user.id) ?? 0));
    const chosen = new Set([...mineFirst].sort((a, b) => active(b) - active(a)).slice(0, MAX_TILES));
    return mineFirst.filter((user) => chosen.has(user));
  }

  /**
   * Shows these members, of `count` in the room.
   * @param {User[]} users
   * @param {number} count
   * @param {string} myId
   * @param {(user: User) => boolean} isLost returns true if nothing arrives from a member
   * @param {(user: User, kind: VideoKind) => MediaStreamTrack | undefined} trackOf
   */
  show(users, count, myId, isLost, trackOf) {
    /** @type {Set<string>} */
    const seen = new Set();
    for (const user of users) {
      const isMe = user.id === myId;
      const place = user.id === this.spotlight ? this.#screens : this.#people;
      this.#tile(user.id, place, seen).showPerson(user, { track: trackOf(user, 'video'), isMe, isLost: isLost(user) });
      if (user.tracks.screenShareEnabled) {
        const track = trackOf(user, 'screenshare');
        this.#tile(`${user.id}/screen`, this.#screens, seen).showScreen(user, { track, isMe, isLost: isLost(user) });
      }
    }
    for (const [id, tile] of this.#tiles) {
      if (seen.has(id)) continue;
      tile.element.remove();
      this.#tiles.delete(id);
    }
    this.#screens.hidden = this.#screens.childElementCount === 0;
    this.#people.classList.toggle('strip', !this.#screens.hidden);
    byId('others').textContent = count > users.length ? `${count - users.length} more, unseen` : '';
    this.#alone.hidden = count !== 1;
    this.#layOut();
  }

  /**
   * Returns the tile of this id, appended to `place` if it is not there.
   * @param {string} id
   * @param {HTMLElement} place
   * @param {Set<string>} seen
   */
  #tile(id, place, seen) {
    seen.add(id);
    let tile = this.#tiles.get(id);
    if (!tile) {
      tile = new Tile();
      this.#tiles.set(id, tile);
    }
    if (tile.element.parentElement !== place) place.append(tile.element);
    return tile;
  }

  /**
   * Returns the tile of a member, if it is on the stage.
   * @param {string} id
   */
  tileOf(id) {
    return this.#tiles.get(id)?.element;
  }

  #layOut() {
    for (const place of [this.#screens, this.#people]) {
      const space = { width: place.clientWidth, height: place.clientHeight };
      const { width, height, scrolls } = fitTiles(place.childElementCount, space, GAP);
      place.style.setProperty('--tile-width', `${width}px`);
      place.style.setProperty('--tile-height', `${height}px`);
      place.classList.toggle('scrolls', scrolls);
    }
  }
}
