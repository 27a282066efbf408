// @ts-check
// The tile of a video that is watched together: the question before it is loaded, the player, and its controls.

import { element } from '../element.js';
import { Emitter } from '../events.js';
import { icon, setIcon } from '../icons.js';
import { text } from '../texts.js';

/** @import { Player } from './player.js' */

/** Seconds that the arrow keys move the video by. */
const STEP = 5;

/**
 * Events: `agree`, to load the video; `toggle`, to play or pause; `seek`, with a position in seconds; `stop`, for all; `pin`.
 * @extends {Emitter<{ agree: void, toggle: void, seek: number, stop: void, pin: void }>}
 */
export class VideoTile extends Emitter {
  /** @type {Player | undefined} */
  #player;
  #isDragging = false;
  #place = element('div', { class: 'player' });
  #question = element('p');
  #consent = element(
    'div',
    { class: 'consent' },
    this.#question,
    element('button', { class: 'primary', type: 'button', onclick: () => this.emit('agree') }, text('watch.agree')),
  );
  #play = element('button', { class: 'tool', type: 'button', onclick: () => this.emit('toggle') });
  #seek = element('input', { type: 'range', min: '0', max: '0', step: String(STEP), value: '0', 'aria-label': text('watch.position') });
  #time = element('span', { class: 'time' });
  #sound = element('button', { class: 'tool', type: 'button', onclick: () => this.#toggleSound() });
  #fullScreen = element('button', { class: 'tool', type: 'button', onclick: () => this.#toggleFullScreen() }, icon('full-screen'));
  #pin = element('button', { class: 'tool', type: 'button', onclick: () => this.emit('pin') }, icon('pin'));
  #stop = element('button', { class: 'small', type: 'button', onclick: () => this.emit('stop') }, text('watch.stop'));
  #name = element('span', { class: 'name' });
  #bar = element('div', { class: 'watch-bar', role: 'group', 'aria-label': text('watch.controls') }, this.#play, this.#seek, this.#time, this.#sound, this.#stop);

  constructor() {
    super();
    for (const [button, label] of /** @type {const} */ ([[this.#fullScreen, 'watch.fullScreen'], [this.#pin, 'watch.pin']])) {
      button.title = text(label);
      button.setAttribute('aria-label', text(label));
    }
    this.#seek.addEventListener('input', () => (this.#isDragging = true));
    this.#seek.addEventListener('change', () => {
      this.#isDragging = false;
      this.emit('seek', Number(this.#seek.value));
    });
    this.element = element(
      'figure',
      { class: 'tile screen watch' },
      this.#place,
      this.#consent,
      element('figcaption', {}, this.#name),
      element('div', { class: 'tools' }, this.#pin, this.#fullScreen),
      this.#bar,
    );
  }

  /** The aspect ratio of the video, once it is known. */
  get aspect() {
    return this.#player?.aspect;
  }

  /** @param {boolean} isPinned */
  set isPinned(isPinned) {
    this.#pin.setAttribute('aria-pressed', String(isPinned));
  }

  /**
   * Shows who shares the video, and asks before it is loaded.
   * @param {{ name: string, question: string }} shown
   */
  introduce({ name, question }) {
    this.#name.textContent = name;
    this.#question.textContent = question;
  }

  /**
   * Puts a player into the tile, or the question in place of one.
   * @param {Player | undefined} player
   */
  use(player) {
    this.#player = player;
    this.#place.replaceChildren(...(player ? [player.element] : []));
    this.#consent.hidden = Boolean(player);
    this.#bar.hidden = !player;
  }

  /**
   * Shows the state of the room.
   * @param {{ isPlaying: boolean, position: number, mayControl: boolean }} state `position` is in seconds
   */
  show({ isPlaying, position, mayControl }) {
    const { duration, isMuted } = this.#player ?? {};
    setIcon(this.#play, isPlaying ? 'pause' : 'play');
    label(this.#play, text(isPlaying ? 'watch.pause' : 'watch.play'));
    setIcon(this.#sound, isMuted ? 'sound-off' : 'sound');
    label(this.#sound, text(isMuted ? 'watch.soundOn' : 'watch.soundOff'));
    this.#play.disabled = !mayControl;
    this.#seek.disabled = !mayControl || duration === undefined;
    this.#stop.hidden = !mayControl;
    if (duration !== undefined) this.#seek.max = String(Math.ceil(duration / STEP) * STEP);
    const shown = Math.min(position, duration ?? position);
    if (!this.#isDragging) this.#seek.value = String(shown);
    const at = clockTime(shown);
    this.#seek.setAttribute('aria-valuetext', at);
    this.#time.textContent = duration === undefined ? at : `${at} / ${clockTime(duration)}`;
  }

  #toggleSound() {
    this.#player?.mute(!this.#player.isMuted);
  }

  async #toggleFullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await this.element.requestFullscreen?.().catch(() => {});
  }
}

/**
 * @param {HTMLElement} button
 * @param {string} text
 */
function label(button, text) {
  button.setAttribute('aria-label', text);
  button.title = text;
}

/** @param {number} seconds */
function clockTime(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = String(whole % 60).padStart(2, '0');
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}
