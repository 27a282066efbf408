// @ts-check
// Sounds when members join and leave, which their hearer can switch off.

import { byId } from './element.js';

const KEY = 'satsuma.chime';

/** Minimum pause between two sounds, in ms: a whole class may come at once. */
const PAUSE = 1_500;

const TONES = { joined: [523.25, 783.99], left: [783.99, 523.25] };

export class Chime {
  /** @type {AudioContext | undefined} */
  #context;
  #last = -Infinity;
  #box = byId('chime', HTMLInputElement);

  /** @param {AbortSignal} signal */
  constructor(signal) {
    this.#box.checked = localStorage.getItem(KEY) !== 'off';
    this.#box.addEventListener('change', () => localStorage.setItem(KEY, this.#box.checked ? 'on' : 'off'), { signal });
    signal.addEventListener('abort', () => this.#context?.close());
  }

  /** @param {keyof typeof TONES} event */
  play(event) {
    const now = performance.now();
    if (!this.#box.checked || now - this.#last < PAUSE) return;
    this.#last = now;
    this.#context ??= new AudioContext();
    const start = this.#context.currentTime + 0.02;
    TONES[event].forEach((frequency, index) => this.#tone(frequency, start + index * 0.12));
  }

  /**
   * @param {number} frequency
   * @param {number} at
   */
  #tone(frequency, at) {
    if (!this.#context) return;
    const [tone, volume] = [this.#context.createOscillator(), this.#context.createGain()];
    tone.frequency.value = frequency;
    volume.gain.setValueAtTime(0.06, at);
    volume.gain.exponentialRampToValueAtTime(0.0005, at + 0.3);
    tone.connect(volume).connect(this.#context.destination);
    tone.start(at);
    tone.stop(at + 0.3);
  }
}
