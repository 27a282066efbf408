// @ts-check
// The lobby: a preview of the camera, the members who are in the room, and the button to join.

import { BASE } from './base.js';
import { byId } from './element.js';
import { Emitter } from './events.js';

/** @import { Devices } from './devices.js' */
/** @import { Settings } from './settings.js' */
/** @import { RoomState, Signalling } from './signalling.js' */

const NO_MEDIA = 'This server has no media service. You can chat and raise hands, but not see or hear each other.';
const MUST_ENCRYPT = 'This server requires end-to-end encryption, which this page does not support. You can chat and raise hands, but not see or hear each other.';

/**
 * Event: `join`, with the room's newest state.
 * @extends {Emitter<{ join: RoomState }>}
 */
export class Lobby extends Emitter {
  #devices;
  #signalling;

  /** @param {{ settings: Settings, devices: Devices, signalling: Signalling }} parts */
  constructor({ settings, devices, signalling }) {
    super();
    this.#devices = devices;
    this.#signalling = signalling;
    byId('lobby-name').textContent = settings.name;
    byId('rename', HTMLAnchorElement).href = `${BASE}set-username?return-url=${encodeURIComponent(location.href)}`;
    const problem = settings.mustEncrypt ? MUST_ENCRYPT : NO_MEDIA;
    byId('lobby-problem').textContent = problem;
    byId('lobby-problem').hidden = settings.canCarryMedia;
    const join = byId('join', HTMLButtonElement);
    /** @type {RoomState | undefined} */
    let newest;
    signalling.on('roomState', ({ state }) => {
      newest = state;
      if (join.disabled) {
        join.disabled = false;
        join.focus();
      }
      this.#showMembers(state);
    });
    signalling.on('away', () => (byId('lobby-who').textContent = 'Connecting to the server…'));
    join.addEventListener('click', () => newest && this.emit('join', newest), { once: true });
    devices.on('change', () => this.#showPreview());
    this.#showPreview();
  }

  /** @param {RoomState} state */
  #showMembers({ users }) {
    const names = users.filter(({ id, joined }) => joined && id !== this.#signalling.id).map(({ name }) => name);
    const shown = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} others`] : names;
    const list = new Intl.ListFormat('en').format(shown);
    const verb = names.length === 1 ? 'is' : 'are';
    byId('lobby-who').textContent = names.length === 0 ? 'Nobody is here yet' : `${list} ${verb} here`;
  }

  #showPreview() {
    const { track, problem, request } = this.#devices.camera;
    const preview = byId('preview', HTMLVideoElement);
    const shown = preview.srcObject instanceof MediaStream ? preview.srcObject.getTracks()[0] : undefined;
    if (shown !== track) preview.srcObject = track ? new MediaStream([track]) : null;
    preview.hidden = !track;
    byId('preview-note').textContent = track ? '' : note(problem, Boolean(request));
  }
}

/**
 * @param {string} problem
 * @param {boolean} isRequested
 */
function note(problem, isRequested) {
  if (isRequested) return 'Allow the camera in your browser';
  return problem ? `No camera. ${problem}` : 'The camera is off';
}
