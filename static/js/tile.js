// @ts-check
// One member, or one shared screen, on the stage.

import { element } from './element.js';
import { icon } from './icons.js';
import { text } from './texts.js';

/** @import { User } from './signalling.js' */

/** @typedef {{ track: MediaStreamTrack | undefined, isMe: boolean, isLost: boolean }} TileState */

export class Tile {
  #video = element('video', { autoplay: true, playsinline: true, 'aria-hidden': 'true' });
  #initials = element('span', { class: 'initials', 'aria-hidden': 'true' });
  #name = element('span', { class: 'name', dir: 'auto' });
  #muted = element('span', { class: 'muted', role: 'img', 'aria-label': text('tile.muted') }, icon('microphone-off'));
  #hand = element('span', { class: 'hand', role: 'img', 'aria-label': text('tile.hand') }, icon('hand'));
  #lost = element('span', { class: 'connection-lost', role: 'status' }, text('tile.lost'));
  #pin;
  #fullScreen = element('button', { class: 'tool', type: 'button', onclick: () => this.#toggleFullScreen() }, icon('full-screen'));
  #tools;
  /** @type {MediaStreamTrack | undefined} */
  #track;

  /** @param {{ pin: () => void, reshaped: () => void }} listeners */
  constructor({ pin, reshaped }) {
    // Audio is played by `Sound`, and browsers let a muted video autoplay.
    this.#video.muted = true;
    this.#video.addEventListener('resize', reshaped);
    const label = element('figcaption', {}, this.#muted, this.#name);
    this.#pin = element('button', { class: 'tool', type: 'button', onclick: pin }, icon('pin'));
    this.#tools = element('div', { class: 'tools' }, this.#pin, this.#fullScreen);
    this.element = element('figure', { class: 'tile' }, this.#initials, this.#video, this.#hand, this.#lost, label, this.#tools);
    this.element.addEventListener('dblclick', ({ target }) => {
      if (target instanceof Element && !target.closest('button')) this.#toggleFullScreen();
    });
  }

  /** The aspect ratio of the video, once there is one. */
  get aspect() {
    const { videoWidth, videoHeight } = this.#video;
    return videoHeight > 0 ? videoWidth / videoHeight : undefined;
  }

  /** @param {boolean} isPinned */
  set isPinned(isPinned) {
    this.#pin.setAttribute('aria-pressed', String(isPinned));
  }

  /**
   * Shows a member.
   * @param {User} user
   * @param {TileState} state
   */
  showPerson(user, { track, isMe, isLost }) {
    this.#show(track, isMe ? text('tile.you', { name: user.name }) : user.name);
    this.element.dataset.user = user.id;
    this.#initials.textContent = initials(user.name);
    this.element.style.setProperty('--hue', String(hue(user.id)));
    this.#muted.hidden = Boolean(user.tracks.audioEnabled);
    this.#hand.hidden = !user.raisedHand;
    this.#showLost(isLost);
    this.element.classList.toggle('speaking', Boolean(user.speaking && user.tracks.audioEnabled && !isLost));
    this.element.classList.toggle('mirrored', isMe);
  }

  /**
   * Shows a member's screen.
   * @param {User} user
   * @param {TileState} state
   */
  showScreen(user, { track, isMe, isLost }) {
    this.#show(track, isMe ? text('tile.yourScreen') : text('tile.screenOf', { name: user.name }));
    // Enlarged it would contain itself.
    this.#tools.hidden = isMe;
    this.#initials.textContent = '';
    this.#muted.hidden = true;
    this.#hand.hidden = true;
    this.#showLost(isLost);
    this.element.classList.add('screen');
  }

  /** @param {boolean} isLost */
  #showLost(isLost) {
    this.#lost.hidden = !isLost;
    this.element.classList.toggle('lost', isLost);
  }

  /**
   * @param {MediaStreamTrack | undefined} track
   * @param {string} name
   */
  #show(track, name) {
    this.#name.textContent = name;
    this.element.title = name;
    label(this.#pin, text('tile.pin', { name }));
    label(this.#fullScreen, text('tile.fullScreen', { name }));
    this.element.classList.toggle('picture', Boolean(track));
    if (track === this.#track) return;
    this.#track = track;
    this.#video.srcObject = track ? new MediaStream([track]) : null;
  }

  async #toggleFullScreen() {
    if (this.#tools.hidden) return;
    // iPhones show nothing but videos full screen.
    const video = /** @type {HTMLVideoElement & { webkitEnterFullscreen?: () => void }} */ (this.#video);
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (this.element.requestFullscreen) await this.element.requestFullscreen().catch(() => {});
    else video.webkitEnterFullscreen?.();
  }
}

/**
 * @param {HTMLElement} button
 * @param {string} name
 */
function label(button, name) {
  button.setAttribute('aria-label', name);
  button.title = name;
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
