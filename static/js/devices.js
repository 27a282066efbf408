// Our camera, microphone and screen.

const KINDS = { camera: 'videoinput', microphone: 'audioinput' };
const CHOICES = 'satsuma.devices';

/** Why a device cannot be had, in words for its owner. */
const PROBLEMS = {
  NotAllowedError: 'The browser was not allowed to use it.',
  NotFoundError: 'There is none.',
  NotReadableError: 'Another program may be using it.',
  OverconstrainedError: 'The chosen one is not connected.',
  InsecureContext: 'Browsers give it to https pages and to localhost only.',
};

/** Event: `change`, whenever anything here has. */
export class Devices extends EventTarget {
  camera = { isOn: false, track: undefined, problem: '' };
  microphone = { isOn: false, track: undefined, problem: '' };
  screen = { track: undefined };

  #chosen = JSON.parse(localStorage.getItem(CHOICES) ?? '{}');
  #quality;

  /** `quality` is the most lines and frames a second of a picture. */
  constructor(quality) {
    super();
    this.#quality = quality;
    navigator.mediaDevices?.addEventListener('devicechange', () => this.#changed());
  }

  /** Asks for both at once, so that the browser asks its user only once. */
  async start() {
    try {
      const stream = await this.#open({ camera: true, microphone: true });
      for (const track of stream.getTracks()) this.#use(track.kind === 'video' ? 'camera' : 'microphone', track);
    } catch {
      // One of the two may be there all the same.
      await this.#switchOn('microphone');
      await this.#switchOn('camera');
    }
    this.#changed();
  }

  async toggleCamera() {
    if (this.camera.isOn) this.#drop('camera');
    else await this.#switchOn('camera');
    this.#changed();
  }

  /** The microphone stays open while it is off: it sends silence, and is back at once. */
  async toggleMicrophone() {
    if (this.microphone.track) this.#mute(this.microphone.isOn);
    else await this.#switchOn('microphone');
    this.#changed();
  }

  muteMicrophone() {
    this.#mute(true);
    this.#changed();
  }

  async toggleScreen() {
    if (this.screen.track) {
      this.screen.track.stop();
      this.screen.track = undefined;
    } else {
      // Rejected if the user thinks better of it, and that is no problem.
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: true }).catch(() => undefined);
      const track = stream?.getVideoTracks()[0];
      track?.addEventListener('ended', () => {
        this.screen.track = undefined;
        this.#changed();
      });
      this.screen.track = track;
    }
    this.#changed();
  }

  get canShareScreen() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /** The devices of a kind that the browser shows us: `[{ id, label, isChosen }]`. */
  async list(kind) {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const used = this[kind].track?.getSettings().deviceId ?? this.#chosen[kind];
    return all
      .filter((device) => device.kind === KINDS[kind] && device.deviceId)
      .map(({ deviceId, label }) => ({ id: deviceId, label, isChosen: deviceId === used }));
  }

  async choose(kind, id) {
    this.#chosen[kind] = id;
    localStorage.setItem(CHOICES, JSON.stringify(this.#chosen));
    const { track, isOn, problem } = this[kind];
    // To choose a device is not to switch it on; but where one did not work, another may.
    if (track || problem) {
      await this.#switchOn(kind);
      if (track && !isOn) this.#mute(true);
    }
    this.#changed();
  }

  end() {
    for (const device of [this.camera, this.microphone, this.screen]) {
      device.track?.stop();
      device.track = undefined;
      device.isOn = false;
    }
    this.#changed();
  }

  async #switchOn(kind) {
    try {
      const stream = await this.#open({ [kind]: true });
      this.#use(kind, stream.getTracks()[0]);
    } catch (error) {
      this.#drop(kind);
      this[kind].problem = PROBLEMS[error.name] ?? 'It does not work.';
    }
  }

  async #open({ camera, microphone }) {
    if (!navigator.mediaDevices) {
      const error = new Error();
      error.name = 'InsecureContext';
      throw error;
    }
    const wish = (kind) => (this.#chosen[kind] ? { deviceId: { ideal: this.#chosen[kind] } } : {});
    const { lines, framerate } = this.#quality;
    return navigator.mediaDevices.getUserMedia({
      audio: microphone && wish('microphone'),
      video: camera && { ...wish('camera'), height: { ideal: Math.min(lines, 720) }, frameRate: { ideal: framerate } },
    });
  }

  #use(kind, track) {
    this[kind].track?.stop();
    Object.assign(this[kind], { track, isOn: true, problem: '' });
    // It was unplugged, or the browser took it away.
    track.addEventListener('ended', () => {
      if (this[kind].track !== track) return;
      this.#drop(kind);
      this.#changed();
    });
  }

  #drop(kind) {
    this[kind].track?.stop();
    Object.assign(this[kind], { track: undefined, isOn: false });
  }

  #mute(off) {
    const { track } = this.microphone;
    if (track) track.enabled = !off;
    this.microphone.isOn = Boolean(track) && !off;
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}
