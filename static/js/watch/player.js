// @ts-check
// Players of videos, behind one interface: a file in an element of the browser's.

import { element } from '../element.js';
import { Emitter } from '../events.js';

/**
 * Event: `change`, when something of it is another; `failed`, if the video cannot be played.
 * @typedef {{ change: void, failed: void }} PlayerEvents
 */

/**
 * A player. Positions and durations are in seconds; `duration` is undefined if it is not known.
 * @typedef {Emitter<PlayerEvents> & {
 *   readonly element: HTMLElement, readonly aspect: number | undefined, readonly isReady: boolean, readonly isBusy: boolean,
 *   readonly isPaused: boolean, readonly isMuted: boolean, readonly position: number, readonly duration: number | undefined,
 *   play(): void, pause(): void, seek(position: number): void, mute(isMuted: boolean): void, end(): void,
 * }} Player
 */

/** @extends {Emitter<PlayerEvents>} */
export class FilePlayer extends Emitter {
  element;

  /** @param {string} url */
  constructor(url) {
    super();
    this.element = element('video', { playsinline: true, preload: 'auto', src: url });
    const changed = () => this.emit('change');
    for (const type of ['loadedmetadata', 'seeked', 'pause', 'playing', 'volumechange', 'resize', 'durationchange']) {
      this.element.addEventListener(type, changed);
    }
    this.element.addEventListener('error', () => this.emit('failed'));
  }

  get aspect() {
    const { videoWidth, videoHeight } = this.element;
    return videoHeight > 0 ? videoWidth / videoHeight : undefined;
  }

  get isReady() {
    return this.element.readyState >= HTMLMediaElement.HAVE_METADATA;
  }

  /** True while it waits for data: moving it then would only let it wait for more. */
  get isBusy() {
    const { seeking, paused, readyState } = this.element;
    return seeking || (!paused && readyState < HTMLMediaElement.HAVE_FUTURE_DATA);
  }

  get isPaused() {
    return this.element.paused;
  }

  get isMuted() {
    return this.element.muted;
  }

  get position() {
    return this.element.currentTime;
  }

  get duration() {
    const { duration } = this.element;
    return Number.isFinite(duration) ? duration : undefined;
  }

  async play() {
    try {
      await this.element.play();
    } catch (error) {
      // Without a click before, browsers play without sound alone.
      if (!(error instanceof DOMException) || error.name !== 'NotAllowedError' || this.element.muted) return;
      this.element.muted = true;
      this.emit('change');
    }
  }

  pause() {
    this.element.pause();
  }

  /** @param {number} position */
  seek(position) {
    this.element.currentTime = position;
  }

  /** @param {boolean} isMuted */
  mute(isMuted) {
    this.element.muted = isMuted;
  }

  /** Stops loading. */
  end() {
    this.element.pause();
    this.element.removeAttribute('src');
    this.element.load();
  }
}
