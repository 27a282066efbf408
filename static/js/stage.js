// @ts-check
// The stage: the visible members and screens, and the view of them that the user chose.

import { showAction } from './controls.js';
import { byId, element } from './element.js';
import { floatingPlace } from './floating.js';
import { Fold } from './fold.js';
import { cellsOf, fitTiles, stripTiles } from './grid.js';
import { arrange, divide, fit, nextSpeaker } from './layout.js';
import { Roving } from './roving.js';
import { text } from './texts.js';
import { Tile } from './tile.js';

/** @import { Size } from './grid.js' */
/** @import { Arrangement, Entry, View } from './layout.js' */
/** @import { User } from './signalling.js' */
/** @import { Status } from './status.js' */
/** @import { VideoTile } from './watch/tile.js' */

/**
 * A kind of video.
 * @typedef {'video' | 'screenshare'} VideoKind
 */

/** Maximum number of readable tiles; in larger rooms the last active members are shown. */
const MAX_TILES = 49;

/** Number of people from which the views differ. */
const VIEWS_DIFFER = 3;

const GAP = 8;

/** An undivided stage. */
const WHOLE = { isBeside: false, isRow: false, large: undefined, small: undefined };
const VIEW = 'satsuma.view';

/**
 * The tile of a video that is watched; a member's id has no asterisk.
 * @type {Entry}
 */
const VIDEO = { id: '*video', owner: '', kind: 'screen', isMe: false };

export class Stage {
  /** @type {Map<string, Tile>} */
  #tiles = new Map();
  /** @type {VideoTile | undefined} */
  #video;
  /** @type {Entry[]} */
  #entries = [];
  /** @type {Arrangement} */
  #arrangement = { large: [], small: [], floating: [] };
  #large = element('div', { class: 'tiles large' });
  #rest = element('div', { class: 'tiles rest' });
  #floating = floatingPlace(text('stage.floating'));
  #surface = element('div', { class: 'surface' }, this.#large, this.#rest, this.#floating);
  #alone = element('p', { class: 'alone', hidden: true }, text('stage.alone'));
  #fold;
  #roving = new Roving(this.#surface);
  #changed;
  /** The size of the surface: asking for it at each change would lay the page out each time. */
  #space = { width: 0, height: 0 };
  /** What the tiles were last sized for. */
  #sizedFor = '';
  /**
   * The height of each tile in pixels, by id.
   * @type {Map<string, number>}
   */
  #heights = new Map();
  /** @type {View} */
  #view = localStorage.getItem(VIEW) === 'speaker' ? 'speaker' : 'grid';
  /** @type {string | undefined} */
  #pinned;
  /**
   * The other member who speaks or spoke last.
   * @type {string | undefined}
   */
  speaker;
  /**
   * Time at which each member last spoke or raised a hand, by id.
   * @type {Map<string, number>}
   */
  #lastActive = new Map();
  /**
   * The ids of the members, in the order of their tiles.
   * @type {string[]}
   */
  #order = [];
  /**
   * The member in the foreground.
   * @type {string | undefined}
   */
  spotlight;

  /**
   * Calls `changed` when videos come into view or go, or are shown in another size.
   * @param {HTMLElement} place
   * @param {() => void} changed
   */
  constructor(place, changed) {
    this.#changed = changed;
    this.#fold = new Fold(this.#rest, changed);
    this.#surface.append(this.#fold.hint);
    place.append(this.#surface, this.#alone);
    new ResizeObserver(([{ contentRect }]) => {
      this.#space = { width: contentRect.width, height: contentRect.height };
      this.#layOut();
    }).observe(this.#surface);
    document.addEventListener('fullscreenchange', changed);
  }

  /** Changes between the grid and the speaker's view, and remembers the choice. */
  toggleView() {
    this.#view = this.#view === 'grid' ? 'speaker' : 'grid';
    localStorage.setItem(VIEW, this.#view);
    this.#arrange();
  }

  /**
   * Returns the height of a member's video in pixels of the screen; undefined if it is not in view, so that it need not be
   * received.
   * @param {string} userId
   * @param {VideoKind} kind
   */
  heightOf(userId, kind) {
    const id = tileId(userId, kind);
    const tile = this.#tiles.get(id);
    if (!tile || !this.#fold.isNear(tile.element)) return undefined;
    const height = document.fullscreenElement === tile.element ? screen.height : (this.#heights.get(id) ?? 0);
    return height * devicePixelRatio;
  }

  /**
   * Returns the members on the stage, of all in the room.
   * @param {User[]} users
   * @param {string} myId
   */
  choose(users, myId) {
    const now = performance.now();
    for (const user of users) {
      if (user.speaking || user.raisedHand) this.#lastActive.set(user.id, now);
    }
    const ordered = this.#inOrder(users);
    if (ordered.length <= MAX_TILES) return ordered;
    /** @param {User} user */
    const active = ({ id }) => ([myId, this.spotlight, this.#pinned].includes(id) ? Infinity : (this.#lastActive.get(id) ?? 0));
    const chosen = new Set([...ordered].sort((a, b) => active(b) - active(a)).slice(0, MAX_TILES));
    return ordered.filter((user) => chosen.has(user));
  }

  /**
   * Returns members in the order of their coming. Whoever speaks outside the view comes to the front.
   * @param {User[]} users
   */
  #inOrder(users) {
    const present = new Map(users.map((user) => [user.id, user]));
    const known = new Set(this.#order.filter((id) => present.has(id)));
    const newcomers = users.flatMap(({ id }) => (known.has(id) ? [] : id));
    const outside = users.flatMap(({ id, speaking }) => {
      const tile = this.#tiles.get(id)?.element;
      return speaking && tile && !this.#fold.isNear(tile) ? id : [];
    });
    this.#order = [...new Set([...outside, ...known, ...newcomers])];
    return this.#order.flatMap((id) => present.get(id) ?? []);
  }

  /**
   * Shows these members, of `count` in the room.
   * @param {User[]} users
   * @param {number} count
   * @param {string} myId
   * @param {(user: User) => Status} statusOf
   * @param {(user: User, kind: VideoKind) => MediaStreamTrack | undefined} trackOf
   */
  show(users, count, myId, statusOf, trackOf) {
    this.#entries = [];
    for (const user of users) {
      const isMe = user.id === myId;
      const status = statusOf(user);
      this.#tile({ id: tileId(user.id, 'video'), owner: user.id, kind: 'person', isMe }).showPerson(user, { track: trackOf(user, 'video'), isMe, status });
      // Of one's own screen there may be nothing to show.
      if (user.tracks.screenShareEnabled && !(isMe && !trackOf(user, 'screenshare'))) {
        const tile = this.#tile({ id: tileId(user.id, 'screenshare'), owner: user.id, kind: 'screen', isMe });
        tile.showScreen(user, { track: trackOf(user, 'screenshare'), isMe, status });
      }
    }
    if (this.#video) this.#entries.push(VIDEO);
    for (const [id, tile] of this.#tiles) {
      if (this.#entries.some((entry) => entry.id === id)) continue;
      tile.element.remove();
      this.#tiles.delete(id);
    }
    this.speaker = nextSpeaker(this.speaker, users.filter(({ id }) => id !== myId));
    byId('others').textContent = count > users.length ? text('bar.unseen', { count: count - users.length }) : '';
    this.#alone.hidden = count !== 1;
    this.#arrange();
  }

  /**
   * Returns the tile of an entry, which is added.
   * @param {Entry} entry
   */
  #tile(entry) {
    this.#entries.push(entry);
    const { id } = entry;
    let tile = this.#tiles.get(id);
    if (!tile) {
      tile = new Tile({ pin: () => this.#togglePin(id), reshaped: () => this.#layOut() });
      this.#tiles.set(id, tile);
    }
    return tile;
  }

  /**
   * The ids of the members whose screens are seen now.
   * @returns {string[] | undefined}
   */
  get watched() {
    if (document.hidden) return undefined;
    const screens = this.#entries.filter(({ id, kind, isMe }) => kind === 'screen' && !isMe && this.#tiles.get(id)?.hasPicture);
    return screens.length > 0 ? screens.map(({ owner }) => owner) : undefined;
  }

  /**
   * Returns the tile of a member, if it is on the stage.
   * @param {string} id
   */
  tileOf(id) {
    return this.#tiles.get(id)?.element;
  }

  /**
   * Shows a video that is watched, as a screen, or none.
   * @param {VideoTile | undefined} video
   */
  showVideo(video) {
    if (video !== this.#video) this.#video?.element.remove();
    this.#video = video;
    this.#entries = [...this.#entries.filter((entry) => entry !== VIDEO), ...(video ? [VIDEO] : [])];
    this.#arrange();
  }

  pinVideo() {
    this.#togglePin(VIDEO.id);
  }

  /** Sizes the tiles again, since the aspect ratio of the video is another one. */
  reshaped() {
    this.#layOut();
  }

  /**
   * Returns the tile of an entry.
   * @param {string} id
   */
  #placed(id) {
    return id === VIDEO.id ? this.#video : this.#tiles.get(id);
  }

  /** @param {string} id */
  #togglePin(id) {
    this.#pinned = this.#pinned === id ? undefined : id;
    this.#arrange();
  }

  /** Puts all tiles in their places. */
  #arrange() {
    const { spotlight, speaker } = this;
    const arrangement = arrange(this.#entries, { view: this.#view, pinned: this.#pinned, spotlight, speaker });
    if (JSON.stringify(arrangement) !== JSON.stringify(this.#arrangement)) this.#place(arrangement);
    for (const [id, tile] of this.#tiles) tile.isPinned = id === this.#pinned;
    if (this.#video) this.#video.isPinned = VIDEO.id === this.#pinned;
    const isSpeaker = this.#view === 'speaker';
    showAction('view', {
      label: text(isSpeaker ? 'stage.grid' : 'stage.speaker'),
      icon: isSpeaker ? 'grid' : 'speaker-view',
      isPossible: this.#entries.filter(({ kind }) => kind === 'person').length >= VIEWS_DIFFER,
    });
    this.#layOut();
  }

  /** @param {Arrangement} arrangement */
  #place(arrangement) {
    this.#arrangement = arrangement;
    const focused = document.activeElement;
    this.#fill(this.#large, arrangement.large);
    this.#fill(this.#rest, arrangement.small);
    this.#fill(this.#floating, arrangement.floating);
    this.#roving.update();
    // A moved element loses the focus.
    if (focused instanceof HTMLElement && this.#surface.contains(focused)) focused.focus({ preventScroll: true });
  }

  /**
   * @param {HTMLElement} place
   * @param {string[]} ids
   */
  #fill(place, ids) {
    ids.forEach((id, index) => {
      const tile = this.#placed(id)?.element;
      if (tile && place.children[index] !== tile) place.insertBefore(tile, place.children[index] ?? null);
    });
    place.hidden = ids.length === 0;
  }

  /** Sizes all tiles. */
  #layOut() {
    const space = this.#space;
    const { large, small } = this.#arrangement;
    const sizedFor = JSON.stringify([space, large.map((id) => [id, this.#aspect(id, space)]), small]);
    if (sizedFor === this.#sizedFor || space.width === 0) return;
    this.#sizedFor = sizedFor;
    this.#heights = new Map();
    const isDivided = large.length > 0 && small.length > 0;
    const areas = isDivided ? divide(space, this.#aspect(large[0], space), GAP) : WHOLE;
    this.#surface.classList.toggle('beside', areas.isBeside);
    this.#surface.classList.toggle('row', areas.isRow);
    setSize(this.#large, areas.large ?? space);
    const cell = cellsOf(large.length, areas.large ?? space, GAP);
    for (const id of large) this.#size(id, fit(this.#aspect(id, cell), cell));
    const left = areas.small ?? space;
    setSize(this.#rest, left);
    const isStrip = areas.isBeside || areas.isRow;
    const size = isStrip ? stripTiles(small.length, left, areas.isRow, GAP) : fitTiles(small.length, left, GAP);
    for (const id of small) this.#size(id, size);
    this.#rest.classList.toggle('scrolls', size.scrolls);
    this.#fold.watch(size.scrolls);
    this.#changed();
  }

  /**
   * @param {string} id
   * @param {Size} size
   */
  #size(id, size) {
    const tile = this.#placed(id);
    if (!tile) return;
    this.#heights.set(id, Math.floor(size.height));
    setTileSize(tile.element, size);
  }

  /**
   * Returns the aspect ratio of a tile in a space: a screen is shown whole, a camera's edges may be cropped.
   * @param {string} id
   * @param {Size} space
   */
  #aspect(id, space) {
    const aspect = this.#placed(id)?.aspect ?? 16 / 9;
    if (this.#entries.find((entry) => entry.id === id)?.kind === 'screen') return aspect;
    const steepest = space.height > space.width ? Math.min(3 / 4, aspect) : 1;
    return Math.min(Math.max(space.width / space.height, steepest), 16 / 9);
  }
}

/**
 * @param {string} userId
 * @param {VideoKind} kind
 */
function tileId(userId, kind) {
  return kind === 'video' ? userId : `${userId}/screen`;
}

/**
 * @param {HTMLElement} place
 * @param {Size} size
 */
function setSize(place, { width, height }) {
  place.style.width = `${Math.floor(width)}px`;
  place.style.height = `${Math.floor(height)}px`;
}

/**
 * @param {HTMLElement} tile
 * @param {Size} size
 */
function setTileSize(tile, { width, height }) {
  tile.style.setProperty('--tile-width', `${Math.floor(width)}px`);
  tile.style.setProperty('--tile-height', `${Math.floor(height)}px`);
}
