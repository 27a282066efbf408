// @ts-check
// One member, or one shared screen, on the stage.

import { element, setText } from './element.js';
import { icon } from './icons.js';
import { text } from './texts.js';

/** @import { User } from './signalling.js' */

/** @import { Level } from './calls/quality.js' */
/** @import { Status } from './status.js' */
/** @import { TextKey } from './texts.js' */

/** @typedef {{ track: MediaStreamTrack | undefined, isMe: boolean, status: Status }} TileState */

/** @type {Record<Level, TextKey>} */
const QUALITY = { 1: 'quality.poor', 2: 'quality.fair', 3: 'quality.good' };

export class Tile {
  /** The video of a member or a screen, without its sound. */
  video = element('video', { autoplay: true, playsinline: true, 'aria-hidden': 'true' });
  #initials = element('span', { class: 'initials', 'aria-hidden': 'true' });
  #name = element('span', { class: 'name', dir: 'auto' });
  #muted = element('span', { class: 'muted', role: 'img', 'aria-label': text('tile.muted') }, icon('microphone-off'));
  #hand = element('span', { class: 'hand', role: 'img', 'aria-label': text('tile.hand') }, icon('hand'));
  #bars = element('span', { class: 'bars', role: 'img', hidden: true }, element('i'), element('i'), element('i'));
  #spinner = element('span', { class: 'spinner', role: 'img', 'aria-label': text('tile.loading'), hidden: true });
  #state = element('span', { class: 'state', role: 'status', hidden: true });
  #pin;
  #fullScreen = element('button', { class: 'tool', type: 'button', onclick: () => this.#toggleFullScreen() }, icon('full-screen'));
  #tools;
  /** @type {MediaStreamTrack | undefined} */
  #track;
  /** True while a video is on of which no frame came yet. */
  #isLoading = false;

  /** @param {{ pin: () => void, reshaped: () => void }} listeners */
  constructor({ pin, reshaped }) {
    // Audio is played by `Sound`, and browsers let a muted video autoplay.
    this.video.muted = true;
    this.video.addEventListener('resize', reshaped);
    this.video.addEventListener('loadeddata', () => this.#showLoading());
    const label = element('figcaption', {}, this.#muted, this.#name, this.#bars);
    this.#pin = element('button', { class: 'tool', type: 'button', onclick: pin }, icon('pin'));
    this.#tools = element('div', { class: 'tools' }, this.#pin, this.#fullScreen);
    this.element = element('figure', { class: 'tile' }, this.#initials, this.video, this.#spinner, this.#hand, this.#state, label, this.#tools);
    this.element.addEventListener('dblclick', ({ target }) => {
      if (target instanceof Element && !target.closest('button')) this.#toggleFullScreen();
    });
  }

  /** The aspect ratio of the video, once there is one. */
  get aspect() {
    const { videoWidth, videoHeight } = this.video;
    return videoHeight > 0 ? videoWidth / videoHeight : undefined;
  }

  /** True once a frame of the video is shown. */
  get hasPicture() {
    return this.element.classList.contains('picture');
  }

  /** @param {boolean} isPinned */
  set isPinned(isPinned) {
    const pressed = String(isPinned);
    if (this.#pin.getAttribute('aria-pressed') !== pressed) this.#pin.setAttribute('aria-pressed', pressed);
  }

  /**
   * Shows a member.
   * @param {User} user
   * @param {TileState} state
   */
  showPerson(user, { track, isMe, status }) {
    this.#show(track, isMe ? text('tile.you', { name: user.name }) : user.name);
    this.#showStatus({ ...status, isLoading: status.isReceived && Boolean(user.tracks.videoEnabled) });
    setText(this.#initials, initials(user.name));
    if (this.element.dataset.user !== user.id) {
      this.element.dataset.user = user.id;
      this.element.style.setProperty('--hue', String(hue(user.id)));
    }
    this.#muted.hidden = Boolean(user.tracks.audioEnabled);
    this.#hand.hidden = !user.raisedHand;
    this.element.classList.toggle('speaking', Boolean(user.speaking && user.tracks.audioEnabled && !status.isLost));
    this.element.classList.toggle('mirrored', isMe);
  }

  /**
   * Shows a member's screen.
   * @param {User} user
   * @param {TileState} state
   */
  showScreen(user, { track, isMe, status }) {
    this.#show(track, isMe ? text('tile.yourScreen') : text('tile.screenOf', { name: user.name }));
    // Enlarged it would contain itself.
    this.#tools.hidden = isMe;
    setText(this.#initials, '');
    this.#muted.hidden = true;
    this.#hand.hidden = true;
    this.#showStatus({ ...status, isFrozen: false, quality: status.screenQuality, isLoading: status.isReceived && !isMe });
    this.element.classList.add('screen');
  }

  /** @param {Status & { isLoading: boolean }} status */
  #showStatus({ isLost, isFrozen, quality, isLoading }) {
    this.#isLoading = isLoading;
    this.#showLoading();
    this.element.classList.toggle('lost', isLost);
    this.element.classList.toggle('frozen', isFrozen);
    this.#state.hidden = !isLost && !isFrozen;
    const state = text(isLost ? 'tile.lost' : 'tile.frozen');
    if (!this.#state.hidden) setText(this.#state, state);
    this.#bars.hidden = quality === undefined || isLost;
    if (quality === undefined || this.#bars.dataset.level === String(quality)) return;
    this.#bars.dataset.level = String(quality);
    label(this.#bars, text(QUALITY[quality]));
  }

  /** Shows the video from its first frame on, and a sign of waiting before. */
  #showLoading() {
    const hasFrame = this.video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
    this.element.classList.toggle('picture', Boolean(this.#track) && hasFrame);
    this.#spinner.hidden = !this.#isLoading || (Boolean(this.#track) && hasFrame);
  }

  /**
   * @param {MediaStreamTrack | undefined} track
   * @param {string} name
   */
  #show(track, name) {
    if (this.element.title !== name) {
      setText(this.#name, name);
      this.element.title = name;
      label(this.#pin, text('tile.pin', { name }));
      label(this.#fullScreen, text('tile.fullScreen', { name }));
    }
    if (track === this.#track) return;
    this.#track = track;
    this.video.srcObject = track ? new MediaStream([track]) : null;
  }

  /** Stops playing the video. */
  clear() {
    this.#track = undefined;
    this.video.srcObject = null;
  }

  async #toggleFullScreen() {
    if (this.#tools.hidden) return;
    // iPhones show nothing but videos full screen.
    const phone = /** @type {{ webkitEnterFullscreen?: () => void }} */ (this.video);
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (this.element.requestFullscreen) await this.element.requestFullscreen().catch(() => {});
    else phone.webkitEnterFullscreen?.();
  }
}

/**
 * Names a part that has no text, for screen readers and for whoever hovers over it.
 * @param {HTMLElement} part
 * @param {string} name
 */
export function label(part, name) {
  part.setAttribute('aria-label', name);
  part.title = name;
}

/**
 * Returns the first letters of the first and the last word of a name.
 * @param {string} name
 */
export function initials(name) {
  const words = name.trim().split(/\s+/);
  const chosen = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return chosen.map((word) => [...word][0] ?? '').join('').toLocaleUpperCase();
}

/**
 * Returns a colour's hue in degrees, the same for the same id.
 * @param {string} id
 */
export function hue(id) {
  let sum = 7;
  for (const letter of id) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 360;
  return sum;
}
