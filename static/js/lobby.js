// The lobby: how one looks, who is there already, and the way in.

import { BASE } from './base.js';
import { byId } from './element.js';

const NO_MEDIA = 'This server has no media service. You can chat and raise hands, but not see or hear each other.';
const MUST_ENCRYPT = 'This server requires end-to-end encryption, which this page does not support. You can chat and raise hands, but not see or hear each other.';

/** Event: `join`. */
export class Lobby extends EventTarget {
  /** The room's newest state, once it is known. */
  state;

  #devices;
  #signalling;

  constructor({ settings, devices, signalling }) {
    super();
    this.#devices = devices;
    this.#signalling = signalling;
    byId('lobby-name').textContent = settings.name;
    byId('rename').href = `${BASE}set-username?return-url=${encodeURIComponent(location.href)}`;
    const problem = settings.mustEncrypt ? MUST_ENCRYPT : NO_MEDIA;
    byId('lobby-problem').textContent = problem;
    byId('lobby-problem').hidden = settings.canCarryMedia;
    const join = byId('join');
    signalling.addEventListener('roomState', ({ detail }) => {
      this.state = detail.state;
      if (join.disabled) {
        join.disabled = false;
        join.focus();
      }
      this.#showWho();
    });
    signalling.addEventListener('away', () => (byId('lobby-who').textContent = 'Connecting to the server…'));
    join.addEventListener('click', () => this.dispatchEvent(new Event('join')), { once: true });
    devices.addEventListener('change', () => this.#showPreview());
    this.#showPreview();
  }

  #showWho() {
    const names = this.state.users.filter(({ id, joined }) => joined && id !== this.#signalling.id).map(({ name }) => name);
    const shown = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} others`] : names;
    const list = new Intl.ListFormat('en').format(shown);
    const verb = names.length === 1 ? 'is' : 'are';
    byId('lobby-who').textContent = names.length === 0 ? 'Nobody is here yet' : `${list} ${verb} here`;
  }

  #showPreview() {
    const { track, problem, question } = this.#devices.camera;
    const preview = byId('preview');
    if (preview.srcObject?.getTracks()[0] !== track) {
      preview.srcObject = track ? new MediaStream([track]) : null;
    }
    preview.hidden = !track;
    byId('preview-note').textContent = track ? '' : note({ problem, question });
  }
}

function note({ problem, question }) {
  if (question) return 'Allow the camera in your browser';
  return problem ? `No camera. ${problem}` : 'The camera is off';
}
