// @ts-check
// YouTube's player in a frame, spoken to by messages: no script of another server runs in this page.

import { element } from '../element.js';
import { Emitter } from '../events.js';

/** @import { PlayerEvents } from './player.js' */

/** States of YouTube's player. */
const ENDED = 0;
const PLAYING = 1;
const BUFFERING = 3;

/** Interval of greeting the frame until it answers. */
const GREETING = 250;

/** Time after which a player that does not begin is taken for one that may not play with sound. */
const PATIENCE = 2_500;

/** @extends {Emitter<PlayerEvents>} */
export class YouTubePlayer extends Emitter {
  element;
  #origin;
  /** @type {number | undefined} */
  #state;
  #known = 0;
  #knownAt = 0;
  /** @type {number | undefined} */
  #duration;
  #isMuted = false;
  #isAnswered = false;
  #seekedAt = -Infinity;
  #playedAt = Infinity;
  #ending = new AbortController();

  /**
   * @param {string} server that has the player
   * @param {string} id
   */
  constructor(server, id) {
    super();
    this.#origin = new URL(server).origin;
    const query = new URLSearchParams({
      enablejsapi: '1',
      origin: location.origin,
      playsinline: '1',
      // The room's own controls are shown.
      controls: '0',
      disablekb: '1',
      fs: '0',
      rel: '0',
    });
    this.element = element('iframe', {
      src: `${this.#origin}/embed/${encodeURIComponent(id)}?${query}`,
      title: 'YouTube',
      allow: 'autoplay; encrypted-media',
      sandbox: 'allow-scripts allow-same-origin',
      // It refuses to play for whoever it knows nothing of; it gets the origin, and no room's name.
      referrerpolicy: 'strict-origin-when-cross-origin',
    });
    const { signal } = this.#ending;
    addEventListener('message', (message) => this.#receive(message), { signal });
    // A frame that is moved in the page is loaded anew.
    this.element.addEventListener('load', () => this.#begin(), { signal });
    const timer = setInterval(() => this.#greet(), GREETING);
    signal.addEventListener('abort', () => clearInterval(timer));
  }

  get aspect() {
    return 16 / 9;
  }

  get isReady() {
    return this.#isAnswered;
  }

  get isBusy() {
    return this.#state === BUFFERING || performance.now() - this.#seekedAt < 1_000;
  }

  get isPaused() {
    return this.#state !== PLAYING && this.#state !== BUFFERING;
  }

  get isMuted() {
    return this.#isMuted;
  }

  get position() {
    const passed = this.#state === PLAYING ? (performance.now() - this.#knownAt) / 1000 : 0;
    return this.#known + passed;
  }

  get duration() {
    return this.#duration;
  }

  play() {
    // It says that it has ended until it is moved.
    if (this.#state !== ENDED) this.#command('playVideo');
    if (this.#playedAt === Infinity) this.#playedAt = performance.now();
  }

  pause() {
    this.#playedAt = Infinity;
    this.#command('pauseVideo');
  }

  /** @param {number} position */
  seek(position) {
    [this.#known, this.#knownAt, this.#seekedAt] = [position, performance.now(), performance.now()];
    this.#command('seekTo', position, true);
  }

  /** @param {boolean} isMuted */
  mute(isMuted) {
    this.#isMuted = isMuted;
    this.#command(isMuted ? 'mute' : 'unMute');
    this.emit('change');
  }

  end() {
    this.#ending.abort();
  }

  #begin() {
    this.#isAnswered = false;
    this.#state = undefined;
    this.#greet();
  }

  #greet() {
    if (!this.#isAnswered) this.#post({ event: 'listening' });
    // Browsers let it play without sound, if not with it.
    const isBlocked = this.isPaused && performance.now() - this.#playedAt > PATIENCE;
    if (!isBlocked) return;
    this.#playedAt = Infinity;
    if (!this.#isMuted) this.mute(true);
  }

  /**
   * @param {string} func
   * @param {unknown[]} args
   */
  #command(func, ...args) {
    this.#post({ event: 'command', func, args });
  }

  /** @param {object} message */
  #post(message) {
    this.element.contentWindow?.postMessage(JSON.stringify({ ...message, id: 1, channel: 'widget' }), this.#origin);
  }

  /** @param {MessageEvent} message */
  #receive({ source, origin, data }) {
    if (source !== this.element.contentWindow || origin !== this.#origin || typeof data !== 'string') return;
    let told;
    try {
      told = JSON.parse(data);
    } catch {
      return;
    }
    this.#isAnswered = true;
    if (told?.event === 'onError') this.emit('failed');
    this.#take(told?.info);
    this.emit('change');
  }

  /** @param {unknown} info */
  #take(info) {
    if (typeof info !== 'object' || info === null) return;
    const { playerState, currentTime, duration, muted } = /** @type {Record<string, unknown>} */ (info);
    if (typeof playerState === 'number') {
      // Its clock stands still until it plays.
      if (playerState !== this.#state) this.#knownAt = performance.now();
      this.#state = playerState;
      if (playerState === PLAYING) this.#playedAt = Infinity;
    }
    if (typeof currentTime === 'number') [this.#known, this.#knownAt] = [currentTime, performance.now()];
    if (typeof duration === 'number' && duration > 0) this.#duration = duration;
    if (typeof muted === 'boolean') this.#isMuted = muted;
  }
}
