// @ts-check
// Our camera, microphone and screen.
//
// Wanted and actual state are kept apart: a browser may take a minute to ask its user for the camera, and by the
// answer the user may have muted, chosen another one, or left.

import { deviceProblem } from './device-problem.js';
import { Emitter } from './events.js';
import { ScreenShare } from './screen-share.js';
import { text } from './texts.js';

/** @typedef {'camera' | 'microphone'} DeviceKind */

const KINDS = { camera: 'videoinput', microphone: 'audioinput' };
const CHOICES = 'satsuma.devices';

/** Devices this tab wants on, so that a reload switches nothing else on. */
const WANTED = 'satsuma.wanted';

class Device {
  isWanted = false;
  /** @type {MediaStreamTrack | undefined} */
  track;
  problem = '';
  /**
   * The newest request for it that the browser has not answered.
   * @type {object | undefined}
   */
  request;

  get isOn() {
    return this.isWanted && Boolean(this.track);
  }
}

/**
 * Event: `change`, for any change of a device.
 * @extends {Emitter<{ change: void }>}
 */
export class Devices extends Emitter {
  camera = new Device();
  microphone = new Device();
  screen = new ScreenShare(() => this.emit('change'));

  /** @type {Partial<Record<DeviceKind, string>>} */
  #chosen = stored(localStorage, CHOICES);
  #quality;
  #isEnded = false;

  /**
   * `quality` limits the video's height and frames per second.
   * @param {{ lines: number, framerate: number }} quality
   */
  constructor(quality) {
    super();
    this.#quality = quality;
    navigator.mediaDevices?.addEventListener('devicechange', () => this.emit('change'));
  }

  /** Requests both at once, so that the browser asks its user only once. */
  async start() {
    const wanted = { camera: true, microphone: true, ...stored(sessionStorage, WANTED) };
    this.camera.isWanted = wanted.camera;
    this.microphone.isWanted = wanted.microphone;
    const both = /** @type {DeviceKind[]} */ (['microphone', 'camera']).filter((kind) => this[kind].isWanted);
    if (both.length === 0 || (await this.#request(both))) return;
    // One of the two may be available all the same.
    for (const kind of both) {
      if (this[kind].isWanted && !this[kind].track && !this[kind].request) await this.#request([kind]);
    }
  }

  toggleCamera() {
    return this.#want('camera', !this.camera.isWanted);
  }

  /** A muted microphone stays open: it sends silence, and is unmuted without delay. */
  toggleMicrophone() {
    return this.#want('microphone', !this.microphone.isWanted);
  }

  muteMicrophone() {
    this.#want('microphone', false);
  }

  /**
   * Returns the devices of a kind that the browser reveals.
   * @param {DeviceKind} kind
   */
  async list(kind) {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const used = this[kind].track?.getSettings().deviceId ?? this.#chosen[kind];
    return all
      .filter((device) => device.kind === KINDS[kind] && device.deviceId)
      .map(({ deviceId, label }) => ({ id: deviceId, label, isChosen: deviceId === used }));
  }

  /**
   * Uses another device of a kind.
   * @param {DeviceKind} kind
   * @param {string} id
   */
  async choose(kind, id) {
    const device = this[kind];
    this.#storeChoice(kind, id);
    // Choosing a device does not switch it on, unless the previous one failed.
    if (device.problem) device.isWanted = true;
    this.#storeWanted();
    if (!device.isWanted && !device.track) return;
    const before = device.track?.getSettings().deviceId;
    // Many phones open no second camera while the first is open.
    if (kind === 'camera') this.#drop(device);
    if ((await this.#request([kind])) || kind !== 'camera' || !before || before === id) return;
    const { problem } = device;
    this.#storeChoice(kind, before);
    device.isWanted = true;
    if (await this.#request([kind])) {
      device.problem = text('devices.previous', { problem });
    }
    this.emit('change');
  }

  /** Releases all devices for good. */
  end() {
    this.#isEnded = true;
    this.screen.end();
    for (const device of [this.camera, this.microphone]) {
      device.track?.stop();
      device.track = undefined;
    }
    this.emit('change');
  }

  /**
   * @param {DeviceKind} kind
   * @param {string} id
   */
  #storeChoice(kind, id) {
    this.#chosen[kind] = id;
    localStorage.setItem(CHOICES, JSON.stringify(this.#chosen));
  }

  #storeWanted() {
    const wanted = { camera: this.camera.isWanted, microphone: this.microphone.isWanted };
    sessionStorage.setItem(WANTED, JSON.stringify(wanted));
  }

  /**
   * @param {DeviceKind} kind
   * @param {boolean} isWanted
   */
  async #want(kind, isWanted) {
    const device = this[kind];
    device.isWanted = isWanted;
    this.#storeWanted();
    if (!isWanted && kind === 'camera') this.#drop(device);
    if (device.track) device.track.enabled = isWanted;
    this.emit('change');
    if (isWanted && !device.track && !device.request) await this.#request([kind]);
  }

  /**
   * Requests these from the browser; returns true on success.
   * @param {DeviceKind[]} kinds
   */
  async #request(kinds) {
    const request = {};
    for (const kind of kinds) this[kind].request = request;
    this.emit('change');
    /** @type {MediaStreamTrack[]} */
    let tracks = [];
    /** @type {unknown} */
    let failure;
    try {
      const stream = await this.#open(kinds);
      tracks = stream.getTracks();
    } catch (error) {
      failure = error;
    }
    for (const kind of kinds) {
      const device = this[kind];
      const track = tracks.find((track) => track.kind === (kind === 'camera' ? 'video' : 'audio'));
      // The user chose another device meanwhile, which has a request of its own.
      if (device.request !== request) {
        track?.stop();
        continue;
      }
      device.request = undefined;
      if (track) this.#use(device, track);
      else if (kinds.length === 1) this.#fail(device, deviceProblem(kind, failure));
    }
    this.emit('change');
    return !failure;
  }

  /** @param {DeviceKind[]} kinds */
  async #open(kinds) {
    if (!navigator.mediaDevices) {
      const error = new Error();
      error.name = 'InsecureContext';
      throw error;
    }
    /** @param {DeviceKind} kind */
    const preferred = (kind) => (this.#chosen[kind] ? { deviceId: { ideal: this.#chosen[kind] } } : {});
    const { lines, framerate } = this.#quality;
    const video = { height: { ideal: Math.min(lines, 720) }, frameRate: { ideal: framerate } };
    return navigator.mediaDevices.getUserMedia({
      audio: kinds.includes('microphone') && preferred('microphone'),
      video: kinds.includes('camera') && { ...preferred('camera'), ...video },
    });
  }

  /**
   * @param {Device} device
   * @param {MediaStreamTrack} track
   */
  #use(device, track) {
    device.problem = '';
    if (this.#isEnded || (device === this.camera && !device.isWanted)) {
      track.stop();
      return;
    }
    device.track?.stop();
    device.track = track;
    track.enabled = device.isWanted;
    // It was unplugged, or the browser revoked it.
    track.addEventListener('ended', () => {
      if (device.track !== track) return;
      this.#drop(device);
      device.isWanted = false;
      this.emit('change');
    });
  }

  /**
   * @param {Device} device
   * @param {string} problem
   */
  #fail(device, problem) {
    this.#drop(device);
    device.isWanted = false;
    device.problem = problem;
  }

  /** @param {Device} device */
  #drop(device) {
    device.track?.stop();
    device.track = undefined;
  }
}

/**
 * Returns the object stored under `key`; an empty one if there is none.
 * @param {Storage} storage
 * @param {string} key
 */
function stored(storage, key) {
  try {
    return JSON.parse(storage.getItem(key) ?? '{}') ?? {};
  } catch {
    return {};
  }
}
