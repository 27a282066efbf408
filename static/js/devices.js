// Our camera, microphone and screen.
//
// Wanted and actual state are kept apart: a browser may take a minute to ask its user for the camera, and by the
// answer the user may have muted, chosen another one, or left.

const KINDS = { camera: 'videoinput', microphone: 'audioinput' };
const CHOICES = 'satsuma.devices';

/** Devices this tab wants on, so that a reload switches nothing else on. */
const WANTED = 'satsuma.wanted';

/** Reasons that a device is unavailable, as text for the user. */
const PROBLEMS = {
  NotAllowedError: 'The browser was not allowed to use it.',
  NotFoundError: 'There is none.',
  NotReadableError: 'Another program may be using it.',
  OverconstrainedError: 'The chosen one is not connected.',
  InsecureContext: 'Browsers give it to https pages and to localhost only.',
};

class Device {
  isWanted = false;
  track;
  problem = '';
  /** The newest question for it that the browser has not answered. */
  question;

  get isOn() {
    return this.isWanted && Boolean(this.track);
  }
}

/** Event: `change`, whenever anything here has. */
export class Devices extends EventTarget {
  camera = new Device();
  microphone = new Device();
  screen = { track: undefined, isAsked: false };

  #chosen = stored(localStorage, CHOICES);
  #quality;
  #isEnded = false;

  /** `quality` is the most lines and frames a second of a picture. */
  constructor(quality) {
    super();
    this.#quality = quality;
    navigator.mediaDevices?.addEventListener('devicechange', () => this.#changed());
  }

  /** Asks for both at once, so that the browser asks its user only once. */
  async start() {
    const wanted = { camera: true, microphone: true, ...stored(sessionStorage, WANTED) };
    this.camera.isWanted = wanted.camera;
    this.microphone.isWanted = wanted.microphone;
    const both = ['microphone', 'camera'].filter((kind) => this[kind].isWanted);
    if (both.length === 0 || (await this.#ask(both))) return;
    // One of the two may be there all the same.
    for (const kind of both) {
      if (this[kind].isWanted && !this[kind].track && !this[kind].question) await this.#ask([kind]);
    }
  }

  toggleCamera() {
    return this.#want('camera', !this.camera.isWanted);
  }

  /** The microphone stays open while it is off: it sends silence, and is back at once. */
  toggleMicrophone() {
    return this.#want('microphone', !this.microphone.isWanted);
  }

  muteMicrophone() {
    this.#want('microphone', false);
  }

  async toggleScreen() {
    if (this.screen.isAsked) return;
    if (this.screen.track) {
      this.screen.track.stop();
      this.screen.track = undefined;
    } else {
      this.screen.isAsked = true;
      // Rejected if the user thinks better of it, and that is no problem.
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: true }).catch(() => undefined);
      this.screen.isAsked = false;
      const track = stream?.getVideoTracks()[0];
      if (this.#isEnded) return track?.stop();
      track?.addEventListener('ended', () => {
        if (this.screen.track === track) this.screen.track = undefined;
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
    const device = this[kind];
    this.#chosen[kind] = id;
    localStorage.setItem(CHOICES, JSON.stringify(this.#chosen));
    // To choose a device is not to switch it on; but where one did not work, another may.
    if (device.problem) device.isWanted = true;
    this.#remember();
    if (!device.isWanted && !device.track) return;
    const before = device.track?.getSettings().deviceId;
    // Many phones open no second camera while the first is open.
    if (kind === 'camera') this.#drop(device);
    if ((await this.#ask([kind])) || kind !== 'camera' || !before || before === id) return;
    const { problem } = device;
    this.#chosen[kind] = before;
    localStorage.setItem(CHOICES, JSON.stringify(this.#chosen));
    device.isWanted = true;
    if (await this.#ask([kind])) device.problem = `The chosen one does not work, so the one before is used. ${problem}`;
    this.#changed();
  }

  /** Gives all devices back, for good. */
  end() {
    this.#isEnded = true;
    for (const device of [this.camera, this.microphone, this.screen]) {
      device.track?.stop();
      device.track = undefined;
    }
    this.#changed();
  }

  #remember() {
    const wanted = { camera: this.camera.isWanted, microphone: this.microphone.isWanted };
    sessionStorage.setItem(WANTED, JSON.stringify(wanted));
  }

  async #want(kind, isWanted) {
    const device = this[kind];
    device.isWanted = isWanted;
    this.#remember();
    if (!isWanted && kind === 'camera') this.#drop(device);
    if (device.track) device.track.enabled = isWanted;
    this.#changed();
    if (isWanted && !device.track && !device.question) await this.#ask([kind]);
  }

  /** Asks the browser for these; true if it gave them. */
  async #ask(kinds) {
    const question = {};
    for (const kind of kinds) this[kind].question = question;
    this.#changed();
    let tracks = [];
    let problem = '';
    try {
      const stream = await this.#open(kinds);
      tracks = stream.getTracks();
    } catch (error) {
      problem = PROBLEMS[error.name] ?? 'It does not work.';
    }
    for (const kind of kinds) {
      const device = this[kind];
      const track = tracks.find((track) => track.kind === (kind === 'camera' ? 'video' : 'audio'));
      // Somebody has chosen another one meanwhile, and that is asked for.
      if (device.question !== question) {
        track?.stop();
        continue;
      }
      device.question = undefined;
      if (track) this.#use(device, track);
      else if (kinds.length === 1) this.#fail(device, problem);
    }
    this.#changed();
    return problem === '';
  }

  async #open(kinds) {
    if (!navigator.mediaDevices) {
      const error = new Error();
      error.name = 'InsecureContext';
      throw error;
    }
    const wish = (kind) => (this.#chosen[kind] ? { deviceId: { ideal: this.#chosen[kind] } } : {});
    const { lines, framerate } = this.#quality;
    const picture = { height: { ideal: Math.min(lines, 720) }, frameRate: { ideal: framerate } };
    return navigator.mediaDevices.getUserMedia({
      audio: kinds.includes('microphone') && wish('microphone'),
      video: kinds.includes('camera') && { ...wish('camera'), ...picture },
    });
  }

  #use(device, track) {
    device.problem = '';
    if (this.#isEnded || (device === this.camera && !device.isWanted)) {
      track.stop();
      return;
    }
    device.track?.stop();
    device.track = track;
    track.enabled = device.isWanted;
    // It was unplugged, or the browser took it away.
    track.addEventListener('ended', () => {
      if (device.track !== track) return;
      this.#drop(device);
      device.isWanted = false;
      this.#changed();
    });
  }

  #fail(device, problem) {
    this.#drop(device);
    device.isWanted = false;
    device.problem = problem;
  }

  #drop(device) {
    device.track?.stop();
    device.track = undefined;
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}

function stored(storage, key) {
  try {
    return JSON.parse(storage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}
