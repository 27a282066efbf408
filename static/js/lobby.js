// @ts-check
// The lobby: a preview of the camera, the members who are in the room, and the button to join.

import { BASE } from './base.js';
import { byId } from './element.js';
import { Emitter } from './events.js';
import { listOf, text } from './texts.js';

/** @import { Devices } from './devices.js' */
/** @import { Settings } from './settings.js' */
/** @import { RoomState, Signalling } from './signalling.js' */

/** Key in this tab's storage of the room to join as soon as its page is loaded. */
const RETURN = 'satsuma.return';

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
    byId('sign-out').hidden = !settings.canSignOut;
    byId('rename', HTMLAnchorElement).href = `${BASE}set-username?return-url=${encodeURIComponent(location.href)}`;
    byId('lobby-problem').textContent = text(settings.mustEncrypt ? 'lobby.mustEncrypt' : 'lobby.noMedia');
    byId('lobby-problem').hidden = settings.canCarryMedia;
    const join = byId('join', HTMLButtonElement);
    /** @type {RoomState | undefined} */
    let newest;
    // Firefox restores an enabled button when the page is loaded again.
    join.disabled = true;
    signalling.on('roomState', ({ state }) => {
      newest = state;
      if (join.disabled) {
        join.disabled = false;
        join.focus();
        if (takeReturn() === signalling.roomName) join.click();
      }
      this.#showMembers(state);
    });
    signalling.on('away', () => (byId('lobby-who').textContent = text('lobby.connecting')));
    join.addEventListener('click', () => newest && this.emit('join', newest), { once: true });
    devices.on('change', () => this.#showPreview());
    this.#showPreview();
  }

  /** Passes the lobby by, the next time that this page is loaded. */
  joinAfterReload() {
    sessionStorage.setItem(RETURN, this.#signalling.roomName);
  }

  /** @param {RoomState} state */
  #showMembers({ users }) {
    const names = users.filter(({ id, joined }) => joined && id !== this.#signalling.id).map(({ name }) => name);
    const shown = names.length > 4 ? [...names.slice(0, 3), text('lobby.others', { count: names.length - 3 })] : names;
    const here = { names: listOf(shown), count: names.length };
    byId('lobby-who').textContent = names.length === 0 ? text('lobby.empty') : text('lobby.here', here);
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
  if (isRequested) return text('lobby.allowCamera');
  return problem || text('lobby.cameraOff');
}

/** Returns the room to return to, once. */
function takeReturn() {
  const room = sessionStorage.getItem(RETURN);
  sessionStorage.removeItem(RETURN);
  return room;
}
