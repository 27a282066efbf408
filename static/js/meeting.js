// The meeting: what the room says, what we say about ourselves, and whom we see and hear.

import { CallsApi } from './calls/api.js';
import { Media } from './calls/media.js';
import { Chat } from './chat.js';
import { showAction } from './controls.js';
import { watchSpeech } from './loudness.js';
import { lastingNotice, notice, withdrawNotice } from './notices.js';
import { Panels } from './panels.js';
import { People } from './people.js';
import { Sound } from './sound.js';
import { Stage } from './stage.js';

/** A member who joins a room of more than this many starts with a muted microphone. */
const QUIET_ROOM = 5;

/** Event: `connection`, when media stop or go on arriving. */
export class Meeting extends EventTarget {
  /** True if nothing arrives from the media service, although something should. */
  isCutOff = false;

  panels = new Panels();

  #devices;
  #signalling;
  #webcam;
  #state = { users: [] };
  #hasAi;
  #raisedHand = false;
  #speaking = false;
  #lastSaid = '';
  #stage = new Stage(document.getElementById('stage'));
  #sound = new Sound();
  #people;
  #chat;
  #api;
  #media;
  /** Microphone state by user id: muted or not, and the time of the last change. */
  #microphones = new Map();
  #heardTrack;
  #stopWatching = () => {};
  #isDue = false;
  #ending = new AbortController();

  constructor({ settings, devices, signalling, state }) {
    super();
    this.#devices = devices;
    this.#signalling = signalling;
    this.#webcam = settings.webcam;
    this.#hasAi = settings.hasAi && settings.canCarryMedia;
    this.#chat = new Chat(signalling);
    this.#people = new People({
      mute: ({ id }) => signalling.say({ type: 'muteUser', id }),
      write: (user) => {
        this.panels.open('chat');
        this.#chat.writeTo(user);
      },
    });
    this.panels.addEventListener('open', ({ detail }) => detail === 'chat' && this.#chat.focus());
    if (settings.canCarryMedia) this.#startMedia(settings, state.meetingId);
    if (state.users.filter(({ joined }) => joined).length > QUIET_ROOM && devices.microphone.isWanted) {
      devices.muteMicrophone();
      notice('Your microphone starts muted, because many people are here', 'microphone');
    }

    const on = (target, type, handle) => target.addEventListener(type, handle, { signal: this.#ending.signal });
    on(signalling, 'roomState', ({ detail }) => this.#take(detail.state));
    on(signalling, 'open', () => this.#introduce());
    on(signalling, 'chat', ({ detail }) => {
      if (this.#chat.hear(detail)) this.#news(`${detail.name}: ${detail.message}`);
    });
    on(signalling, 'directMessage', ({ detail }) => {
      this.#chat.hearDirect(detail);
      this.#news(`${detail.from} to you alone: ${detail.message}`);
    });
    on(signalling, 'muteMic', () => {
      devices.muteMicrophone();
      notice('Somebody muted your microphone', 'microphone');
    });
    on(signalling, 'error', ({ detail }) => notice(`The server says: ${detail.error}`, 'error'));
    on(devices, 'change', () => this.#useDevices());
    this.#state = state;
    this.#showHand();
    this.#showAi();
    this.#useDevices();
  }

  /** The meeting's id, once there is one. */
  get id() {
    return this.#state.meetingId;
  }

  /** History of media API calls, for bug reports. */
  get history() {
    const userSessions = this.#state.users.map(({ name, transceiverSessionId }) => ({
      username: name,
      sessionId: transceiverSessionId,
    }));
    return { apiHistory: this.#api?.history ?? [], userSessions };
  }

  /** Ourselves, as all others see us (docs/protocol.md). */
  get ownUser() {
    const { camera, microphone, screen } = this.#devices;
    const { id } = this.#signalling;
    return {
      id,
      // The server puts in what it knows to be our name.
      name: this.#state.users.find((user) => user.id === id)?.name ?? '',
      joined: true,
      raisedHand: this.#raisedHand,
      speaking: this.#speaking,
      // The stock client has no chat.
      readsChat: true,
      transceiverSessionId: this.#media?.sessionId,
      tracks: {
        audioEnabled: microphone.isOn,
        audioUnavailable: !microphone.track,
        videoEnabled: camera.isOn,
        screenShareEnabled: Boolean(screen.track),
        audio: this.#media?.reference('audio'),
        video: this.#media?.reference('video'),
        screenshare: this.#media?.reference('screenshare'),
      },
    };
  }

  toggleHand() {
    this.#raisedHand = !this.#raisedHand;
    this.#showHand();
    this.#changed();
  }

  /** Calls the AI in, or sends it away, whoever called it. */
  toggleAi() {
    const { enabled, connectionPending } = this.#ai;
    this.#signalling.say({ type: enabled || connectionPending ? 'disableAi' : 'enableAi' });
  }

  /** The AI hears one person at a time: us, or nobody of those who asked before. */
  toggleAiEar() {
    if (this.#ai.controllingUser === this.#signalling.id) {
      this.#signalling.say({ type: 'relenquishAiControl' });
      return;
    }
    const audio = this.#media.reference('audio');
    if (!audio) {
      notice('Your microphone is not connected yet', 'ai');
      return;
    }
    const [sessionId, trackName] = audio.split('/');
    this.#signalling.say({ type: 'requestAiControl', track: { sessionId, trackName } });
  }

  get #ai() {
    return this.#state.ai ?? {};
  }

  end() {
    this.#ending.abort();
    this.#media?.end();
    this.#stopWatching();
    this.#sound.play(new Map());
  }

  #startMedia(settings, meetingId) {
    const parameters = new URLSearchParams(settings.extraParams);
    if (meetingId) parameters.set('correlationId', meetingId);
    this.#api = new CallsApi(parameters, settings.maxHistory);
    this.#media = new Media(this.#api, settings.iceServers);
    const on = (type, handle) => this.#media.addEventListener(type, handle, { signal: this.#ending.signal });
    on('sent', () => this.#changed());
    on('received', () => this.#changed());
    on('trouble', ({ detail }) => lastingNotice(`Audio and video do not work: ${detail}. Trying again…`, 'media'));
    on('well', () => withdrawNotice('media'));
    const restart = () => this.#media.restartIce();
    addEventListener('online', restart, { signal: this.#ending.signal });
    const network = navigator.connection;
    let kind = network?.type;
    const look = () => {
      // Most changes are other estimates of the same network's speed.
      if (network.type !== kind) restart();
      kind = network.type;
    };
    network?.addEventListener('change', look, { signal: this.#ending.signal });
    on('connected', () => this.#signalling.comeBackNow());
    on('flow', () => {
      const wasCutOff = this.isCutOff;
      this.isCutOff = this.#media.isCutOff;
      // Socket and media most likely share a network path, so either may reveal a dead one.
      if (this.isCutOff && !wasCutOff) this.#signalling.probe();
      if (this.isCutOff !== wasCutOff) this.dispatchEvent(new Event('connection'));
      this.#changed();
    });
  }

  #take(state) {
    this.#chat.giveUpLost();
    const before = new Map(this.#others.map((user) => [user.id, user]));
    const aiError = this.#ai.error;
    this.#state = state;
    if (this.#ai.error && this.#ai.error !== aiError) notice(this.#ai.error, 'ai');
    this.#showAi();
    for (const user of this.#others) {
      const known = before.get(user.id);
      before.delete(user.id);
      if (!known) notice(`${user.name} joined`, 'came');
      else if (user.raisedHand && !known.raisedHand) notice(`${user.name} raised a hand`, 'hand');
    }
    for (const user of before.values()) {
      notice(`${user.name} left`, 'left');
      this.#microphones.delete(user.id);
    }
    this.#changed();
  }

  get #others() {
    return this.#state.users.filter(({ id, joined }) => joined && id !== this.#signalling.id);
  }

  #useDevices() {
    const { camera, microphone, screen } = this.#devices;
    const { framerate, bitrate } = this.#webcam;
    // A subscriber with low bandwidth gets lower resolution instead of broken video.
    const pictures = [
      { rid: 'a', maxBitrate: Math.min(bitrate, 1_300_000), maxFramerate: framerate },
      { rid: 'b', maxBitrate: 500_000, maxFramerate: framerate, scaleResolutionDownBy: 2 },
      { rid: 'c', maxBitrate: 150_000, maxFramerate: Math.min(framerate, 15), scaleResolutionDownBy: 4 },
    ];
    this.#media?.send('audio', microphone.track, [{ networkPriority: 'high' }]);
    this.#media?.send('video', camera.track, pictures);
    this.#media?.send('screenshare', screen.track);
    if (microphone.track !== this.#heardTrack) {
      this.#heardTrack = microphone.track;
      this.#stopWatching();
      this.#stopWatching = microphone.track ? watchSpeech(microphone.track, (is) => this.#setSpeaking(is)) : () => {};
    }
    this.#changed();
  }

  #setSpeaking(isSpeaking) {
    this.#speaking = isSpeaking;
    this.#changed();
  }

  /** Several changes at once are shown and said once. */
  #changed() {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      if (this.#ending.signal.aborted) return;
      this.#tellOthers();
      this.#show();
    });
  }

  /** To a server that may have forgotten us. */
  #introduce() {
    this.#lastSaid = '';
    this.#media?.check();
    this.#tellOthers();
  }

  #tellOthers() {
    const user = this.ownUser;
    const said = JSON.stringify(user);
    if (said === this.#lastSaid || !this.#signalling.isOpen) return;
    this.#lastSaid = said;
    this.#signalling.sayIfOpen({ type: 'userUpdate', user });
  }

  #show() {
    // Our own state is newer than the server's copy of it.
    const me = this.ownUser;
    const all = [me, ...this.#others];
    const seen = this.#stage.choose(all, me.id);
    this.#receive(seen);
    const received = this.#media?.received ?? new Map();
    const own = { video: this.#devices.camera.track, screenshare: this.#devices.screen.track };
    this.#stage.show(seen, all.length, me.id, (user) => this.#isLost(user), (user, kind) => {
      if (user.id === me.id) return own[kind];
      return isShown(user, kind) ? received.get(user.tracks[kind]) : undefined;
    });
    const voices = new Set(this.#others.map(({ tracks }) => tracks.audio));
    this.#sound.play(new Map([...received].filter(([reference]) => voices.has(reference))));
    this.#people.show(all, me.id);
    this.#chat.showUsers(all);
  }

  /** True if nothing arrives of somebody else. A model that has nothing to say may send nothing. */
  #isLost({ id, tracks }) {
    if (id === this.#signalling.id || id === 'ai') return false;
    const isMuted = !tracks.audioEnabled;
    if (this.#microphones.get(id)?.isMuted !== isMuted) this.#microphones.set(id, { isMuted, since: performance.now() });
    const video = tracks.videoEnabled ? tracks.video : undefined;
    return Boolean(this.#media?.isLost({ audio: tracks.audio, video, ...this.#microphones.get(id) }));
  }

  /** Audio of all members, and video of those on the stage. */
  #receive(seen) {
    const others = new Set(this.#others);
    const pictures = seen
      .filter((user) => others.has(user))
      .flatMap((user) => ['video', 'screenshare'].filter((kind) => isShown(user, kind)).map((kind) => user.tracks[kind]));
    const voices = [...others].map(({ tracks }) => tracks.audio);
    this.#media?.receive([...voices, ...pictures].filter(Boolean));
  }

  #showHand() {
    const label = this.#raisedHand ? 'Lower your hand' : 'Raise your hand';
    showAction('hand', { label, isPressed: this.#raisedHand });
  }

  #showAi() {
    const { enabled, connectionPending, controllingUser } = this.#ai;
    const isHeard = controllingUser === this.#signalling.id;
    let label = 'Invite an AI';
    if (enabled) label = 'Remove the AI';
    else if (connectionPending) label = 'The AI is joining. Cancel';
    showAction('ai', { label, isPressed: Boolean(enabled || connectionPending), isPossible: this.#hasAi });
    showAction('ai-ear', {
      label: isHeard ? 'Stop the AI from hearing you' : 'Let the AI hear you',
      isPressed: isHeard,
      isPossible: this.#hasAi && Boolean(enabled),
    });
  }

  #news(text) {
    if (this.panels.isOpen('chat')) return;
    this.panels.countUnread();
    notice(text.length > 140 ? `${text.slice(0, 139)}…` : text);
  }
}

function isShown(user, kind) {
  return kind === 'video' ? user.tracks.videoEnabled : user.tracks.screenShareEnabled;
}
