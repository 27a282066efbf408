// @ts-check
// Our camera, microphone and screen.
//
// Wanted and actual state are kept apart: a browser may take a minute to ask its user for the camera, and by the
// answer the user may have muted, chosen another one, or left.

import { Device } from './device.js';
import { deviceProblem } from './device-problem.js';
import { Emitter } from './events.js';
import { Processing } from './processing.js';
import { ScreenShare } from './screen-share.js';
import { text } from './texts.js';

/** @import { PublishGrants } from './settings.js' */

/** @typedef {'camera' | 'microphone'} DeviceKind */
/** @typedef {DeviceKind | 'speaker'} ListedKind */

const KINDS = { camera: 'videoinput', microphone: 'audioinput', speaker: 'audiooutput' };
const CHOICES = 'satsuma.devices';

/** Devices this tab wants on, so that a reload switches nothing else on. */
const WANTED = 'satsuma.wanted';

/**
 * Events: `change`, for any change of a device; `replaced`, when another device took the place of one that went away.
 * @extends {Emitter<{ change: void, replaced: DeviceKind }>}
 */
export class Devices extends Emitter {
  camera = new Device();
  microphone = new Device();
  screen = new ScreenShare(() => this.emit('change'));

  processing = new Processing();

  /** @type {Partial<Record<ListedKind, string>>} */
  #chosen = stored(localStorage, CHOICES);
  #quality;
  /**
   * The ids of the devices that were there at the last change.
   * @type {Set<string> | undefined}
   */
  #present;
  /**
   * The side that a phone's camera looks to, if its user turned it.
   * @type {'user' | 'environment' | undefined}
   */
  #facing;
  #mayShareScreen;
  #isEnded = false;

  /**
   * `quality` limits the video's height and frames per second, `publish` says what our identity may send.
   * @param {{ lines: number, framerate: number }} quality
   * @param {PublishGrants} publish
   */
  constructor(quality, publish) {
    super();
    if (!publish.audio) Object.assign(this.microphone, { isAllowed: false, problem: text('rights.audio') });
    if (!publish.video) Object.assign(this.camera, { isAllowed: false, problem: text('rights.video') });
    this.#mayShareScreen = publish.screen;
    this.#quality = quality;
    navigator.mediaDevices?.addEventListener('devicechange', () => this.#devicesChanged());
  }

  /** Requests both at once, so that the browser asks its user only once. */
  async start() {
    this.#present = new Set((await present()).map(({ deviceId }) => deviceId));
    const wanted = { camera: true, microphone: true, ...stored(sessionStorage, WANTED) };
    this.camera.isWanted = wanted.camera && this.camera.isAllowed;
    this.microphone.isWanted = wanted.microphone && this.microphone.isAllowed;
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

  /** True if our identity may share a screen. */
  get mayShareScreen() {
    return this.#mayShareScreen;
  }

  /**
   * Returns the devices of a kind that the browser reveals.
   * @param {ListedKind} kind
   */
  async list(kind) {
    const all = await present();
    const used = (kind !== 'speaker' && this[kind].track?.getSettings().deviceId) || this.#chosen[kind];
    return all
      .filter((device) => device.kind === KINDS[kind] && device.deviceId)
      .map(({ deviceId, label }) => ({ id: deviceId, label, isChosen: deviceId === used }));
  }

  /**
   * Uses another device of a kind.
   * @param {ListedKind} kind
   * @param {string} id
   */
  async choose(kind, id) {
    if (kind === 'speaker') {
      this.#storeChoice(kind, id);
      this.emit('change');
      return;
    }
    const device = this[kind];
    if (!device.isAllowed) return;
    this.#storeChoice(kind, id);
    if (kind === 'camera') this.#facing = undefined;
    // Choosing a device does not switch it on, unless the previous one failed.
    if (device.problem) device.isWanted = true;
    this.#storeWanted();
    if (!device.isWanted && !device.track) return;
    const before = device.track?.getSettings().deviceId;
    // Many phones open no second camera while the first is open.
    if (kind === 'camera') device.stop();
    if ((await this.#request([kind])) || kind !== 'camera' || !before || before === id) return;
    const { problem } = device;
    this.#storeChoice(kind, before);
    device.isWanted = true;
    if (await this.#request([kind])) {
      device.problem = text('devices.previous', { problem });
    }
    this.emit('change');
  }

  /** The id of the chosen speaker; empty for the browser's own choice. */
  get speaker() {
    return this.#chosen.speaker ?? '';
  }

  /** True for the camera of a phone, which has another one on its other side. */
  get canTurnCamera() {
    return Boolean(this.camera.track?.getSettings().facingMode);
  }

  /** True if our camera looks to where we look. */
  get looksAhead() {
    return this.camera.track?.getSettings().facingMode === 'environment';
  }

  /** Uses the camera on the other side of a phone. */
  async turnCamera() {
    this.#facing = this.looksAhead ? 'user' : 'environment';
    this.camera.stop();
    await this.#request(['camera']);
  }

  /**
   * Opens the microphone anew, with noise suppression or without.
   * @param {boolean} isOn
   */
  async suppressNoise(isOn) {
    this.processing.suppressesNoise = isOn;
    if (this.microphone.track) await this.#request(['microphone']);
  }

  /**
   * Blurs the background of the camera's picture, or leaves it as it is.
   * @param {boolean} isOn
   */
  blurBackground(isOn) {
    this.processing.blursBackground = isOn;
    this.#blurCamera();
    this.emit('change');
  }

  /** Releases all devices for good. */
  end() {
    this.#isEnded = true;
    this.screen.end();
    for (const device of [this.camera, this.microphone]) device.stop();
    this.emit('change');
  }

  /**
   * @param {ListedKind} kind
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
    if (!device.isAllowed) return;
    device.isWanted = isWanted;
    this.#storeWanted();
    if (!isWanted && kind === 'camera') device.stop();
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
      audio: kinds.includes('microphone') && { ...preferred('microphone'), ...this.processing.ofAudio },
      video: kinds.includes('camera') && { ...(this.#facing ? { facingMode: this.#facing } : preferred('camera')), ...video },
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
    device.stop();
    device.track = track;
    track.enabled = device.isWanted;
    if (device === this.camera) this.#blurCamera();
    // It was unplugged, or the browser revoked it.
    track.addEventListener('ended', () => device.track === track && this.#replace(device));
  }

  /**
   * Uses another device in place of one that went away while it was on.
   * @param {Device} device
   */
  async #replace(device) {
    device.stop();
    this.emit('change');
    if (!device.isWanted) return;
    const kind = device === this.camera ? 'camera' : 'microphone';
    if (await this.#request([kind])) this.emit('replaced', kind);
  }

  /** Uses a chosen device again that has come back, such as a headset. */
  async #devicesChanged() {
    this.emit('change');
    const before = this.#present;
    this.#present = new Set((await present()).map(({ deviceId }) => deviceId));
    for (const kind of /** @type {DeviceKind[]} */ (['microphone', 'camera'])) {
      const { track, request } = this[kind];
      const id = this.#chosen[kind] ?? '';
      const hasCome = before && !before.has(id) && this.#present.has(id);
      if (hasCome && track && !request && track.getSettings().deviceId !== id) await this.choose(kind, id);
    }
  }

  /**
   * @param {Device} device
   * @param {string} problem
   */
  #fail(device, problem) {
    device.stop();
    device.isWanted = false;
    device.problem = problem;
  }

  /** Blurs what the camera sends, if that was chosen. */
  #blurCamera() {
    const { camera, processing } = this;
    camera.blur?.end();
    camera.blur = undefined;
    if (!camera.track) return;
    processing.blur(camera.track);
    camera.blur = processing.blurEdges(camera.track, () => {
      processing.blursBackground = false;
      this.#fail(camera, text('devices.blurFailed'));
      this.emit('change');
    });
  }
}

/** Returns the devices that the browser reveals. */
async function present() {
  return (await navigator.mediaDevices?.enumerateDevices()) ?? [];
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
