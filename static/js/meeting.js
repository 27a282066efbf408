// @ts-check
// The meeting: connects the room's state, our own user, and the media that are sent and received.

import { Ai } from './ai.js';
import { CallsApi } from './calls/api.js';
import { cameraLayers } from './calls/layers.js';
import { Media } from './calls/media.js';
import { Chime } from './chime.js';
import { startClock } from './clock.js';
import { showAction } from './controls.js';
import { byId } from './element.js';
import { Emitter } from './events.js';
import { offerFiles } from './files.js';
import { controlHistory } from './history.js';
import { MemberNotices } from './member-notices.js';
import { Mix } from './mix.js';
import { Moderation } from './moderation.js';
import { watchNetwork } from './network.js';
import { lastingNotice, notice, withdrawNotice } from './notices.js';
import { offerRename } from './own-name.js';
import { Panels } from './panels.js';
import { People } from './people.js';
import { PIP_HEIGHT, PictureInPicture } from './pip.js';
import { offerReactions } from './reactions.js';
import { SharingBar } from './sharing-bar.js';
import { Sound } from './sound.js';
import { OwnSpeech } from './speech.js';
import { Stage } from './stage.js';
import { MemberStatus } from './status.js';
import { refusalText, text } from './texts.js';
import { isOn, wantedTracks } from './wanted.js';
import { Watch } from './watch/watch.js';

/** @import { Chat } from './chat.js' */
/** @import { Devices } from './devices.js' */
/** @import { Settings } from './settings.js' */
/** @import { RoomState, Signalling, User } from './signalling.js' */
/** @import { VideoKind } from './stage.js' */

/** A member who joins a room of more than this many starts with a muted microphone. */
const QUIET_ROOM = 5;

/** Maximum height of a camera's video. */
const CAMERA_LINES = 720;

/**
 * Event: `connection`, when media stop or resume.
 * @extends {Emitter<{ connection: void }>}
 */
export class Meeting extends Emitter {
  /** True if nothing arrives from the media service, although something should. */
  isCutOff = false;

  panels = new Panels();

  /** The AI that can be invited. */
  ai;

  #devices;
  #signalling;
  #webcam;
  #state;
  #raisedHand = false;
  /** The last `userUpdate` on this socket, as JSON. */
  #lastSent = '';
  #stage = new Stage(byId('stage'), () => this.#changed());
  #pip = new PictureInPicture();
  #sound = new Sound();
  #mix = new Mix();
  #sharing;
  #people;
  #moderation;
  #chat;
  /** @type {CallsApi | undefined} */
  #api;
  /** @type {Media | undefined} */
  #media;
  #status;
  #speech = new OwnSpeech(() => this.#changed());
  #isDue = false;
  #ending = new AbortController();
  #memberNotices = new MemberNotices(new Chime(this.#ending.signal));

  /** @param {{ settings: Settings, devices: Devices, signalling: Signalling, chat: Chat, state: RoomState }} parts */
  constructor({ settings, devices, signalling, chat, state }) {
    super();
    this.#state = state;
    this.#devices = devices;
    this.#signalling = signalling;
    this.#webcam = settings.webcam;
    this.#chat = chat;
    if (settings.canCarryMedia) this.#startMedia(settings, state.meetingId);
    this.ai = new Ai({
      signalling,
      isOffered: settings.hasAi && settings.canCarryMedia,
      voice: () => this.#media?.reference('audio'),
      state: state.ai,
    });
    this.#sharing = new SharingBar(byId('stage'), devices.screen);
    this.#status = new MemberStatus(() => this.#media, signalling.id);
    this.#moderation = new Moderation({ signalling, devices, mayWrite: settings.grants.chat }, this.#ending.signal);
    this.#moderation.show(state.room);
    const rename = settings.canRename ? offerRename(signalling, this.#ending.signal) : undefined;
    this.#people = new People({
      rename: rename && (({ name }) => rename(name)),
      manage: (user) => this.#moderation.manage(user),
      mute: ({ id }) => signalling.send({ type: 'muteUser', id }),
      write: (user) => {
        this.panels.open('chat');
        this.#chat.writeTo(user);
      },
    });
    this.panels.on('open', (name) => {
      if (name !== 'chat') return;
      this.#chat.focus();
      withdrawNotice('chat');
    });
    if (state.users.filter(({ joined }) => joined).length > QUIET_ROOM && devices.microphone.isWanted) {
      devices.muteMicrophone();
      notice(text('notice.manyPeople'), 'microphone');
    }

    const { signal } = this.#ending;
    startClock(() => this.#state.meetingId, settings.clockAhead, signal);
    signalling.on('roomState', ({ state }) => this.#update(state), { signal });
    signalling.on('open', () => this.#introduce(), { signal });
    signalling.on('mediaMoved', () => this.#media?.check(), { signal });
    new Watch({ signalling, stage: this.#stage, settings, state }, signal);
    offerFiles({ signalling, settings, state }, signal);
    controlHistory({ signalling, state, isOn: settings.chatHistory }, signal);
    offerReactions(signalling, (id) => this.#stage.tileOf(id), signal);
    chat.on('received', (line) => this.#showUnread(line), { signal });
    signalling.on(
      'muteMic',
      () => {
        devices.muteMicrophone();
        // The server tells who it was in the next message.
        notice(text('notice.muted'), 'audio');
      },
      { signal },
    );
    signalling.on('error', ({ error, code }) => notice(refusalText(code) ?? text('notice.server', { message: error }), 'error'), { signal });
    devices.on('change', () => this.#useDevices(), { signal });
    document.addEventListener('visibilitychange', () => this.#changed(), { signal });
    this.#showHand();
    showAction('pip', { label: text('pip.open'), isPossible: PictureInPicture.isPossible });
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

  /**
   * Our own user, as the other members receive it (docs/protocol.md).
   * @returns {User}
   */
  get ownUser() {
    const { camera, microphone, screen } = this.#devices;
    const { id } = this.#signalling;
    return {
      id,
      // The server overwrites it with the verified name.
      name: this.#state.users.find((user) => user.id === id)?.name ?? '',
      joined: true,
      raisedHand: this.#raisedHand,
      speaking: this.#speech.isSpeaking && microphone.isOn,
      // The stock client has no chat.
      readsChat: true,
      watches: this.#stage.watched,
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

  toggleView() {
    this.#stage.toggleView();
  }

  async togglePip() {
    if (!(await this.#pip.toggle())) notice(text('pip.none'), 'pip');
  }

  end() {
    this.#ending.abort();
    this.#media?.end();
    this.#pip.close();
    this.#mix.end();
    this.#speech.end();
    this.#sound.play(new Map());
  }

  /**
   * @param {Settings} settings
   * @param {string | undefined} meetingId
   */
  #startMedia(settings, meetingId) {
    const parameters = new URLSearchParams(settings.extraParams);
    if (meetingId) parameters.set('correlationId', meetingId);
    this.#api = new CallsApi(parameters, settings.maxHistory);
    const { camera, microphone } = this.#devices;
    // The media service answers while the room is being shown.
    const isNeeded = camera.isWanted || microphone.isWanted || this.#others.length > 0;
    const media = new Media(this.#api, settings.iceServers, isNeeded);
    this.#media = media;
    const { signal } = this.#ending;
    media.on('sent', () => this.#changed(), { signal });
    media.on('received', () => this.#changed(), { signal });
    media.on('trouble', (cause) => lastingNotice(text('media.trouble', { cause }), 'media'), { signal });
    media.on('well', () => withdrawNotice('media'), { signal });
    media.on('connected', () => this.#signalling.reconnectNow(), { signal });
    media.on('quality', () => this.#changed(), { signal });
    media.on('flow', () => this.#updateConnection(media.isCutOff), { signal });
    watchNetwork(() => media.restartIce(), signal);
  }

  /** @param {boolean} isCutOff */
  #updateConnection(isCutOff) {
    const wasCutOff = this.isCutOff;
    this.isCutOff = isCutOff;
    // Socket and media most likely share a network path, so either may reveal a dead one.
    if (isCutOff && !wasCutOff) this.#signalling.probe();
    if (isCutOff !== wasCutOff) this.emit('connection');
    this.#changed();
  }

  /** @param {RoomState} state */
  #update(state) {
    this.#chat.giveUpLost();
    const before = this.#others;
    this.#state = state;
    this.ai.show(state.ai);
    this.#moderation.show(state.room);
    this.#memberNotices.show(before, this.#others);
    for (const { id } of before) if (!state.users.some((user) => user.id === id && user.joined)) this.#status.forget(id);
    this.#changed();
  }

  get #others() {
    return this.#state.users.filter(({ id, joined }) => joined && id !== this.#signalling.id);
  }

  #useDevices() {
    const { camera, microphone, screen } = this.#devices;
    this.#sound.speaker = this.#devices.speaker;
    // Whoever was muted, or stopped, is so no longer.
    if (microphone.isOn) for (const subject of ['microphone', 'audio', 'speaking']) withdrawNotice(subject);
    if (camera.isOn) withdrawNotice('video');
    if (screen.track) withdrawNotice('screen');
    this.#media?.send('audio', this.#mix.of(microphone.track, screen.sound), [{ networkPriority: 'high' }]);
    this.#media?.send('video', camera.sent, cameraLayers(this.#webcam));
    this.#media?.send('screenshare', screen.track);
    this.#speech.watch(microphone);
    this.#changed();
  }

  /** Shows and sends several changes at once. */
  #changed() {
    if (this.#isDue) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      if (this.#ending.signal.aborted) return;
      this.#sendUser();
      this.#show();
    });
  }

  /** Sends our user again: a restarted server may have lost it. */
  #introduce() {
    this.#lastSent = '';
    this.#media?.check();
    this.#sendUser();
  }

  #sendUser() {
    const user = this.ownUser;
    const json = JSON.stringify(user);
    if (json === this.#lastSent || !this.#signalling.isOpen) return;
    this.#lastSent = json;
    this.#signalling.sendIfOpen({ type: 'userUpdate', user });
  }

  #show() {
    // Our own state is newer than the server's copy of it.
    const me = this.ownUser;
    const all = [me, ...this.#others];
    this.#stage.spotlight = this.#moderation.spotlight;
    const seen = this.#stage.choose(all, me.id);
    const received = this.#media?.received ?? new Map();
    const own = { video: this.#devices.camera.sent, screenshare: this.#devices.screen.preview };
    /** @param {User} user @param {VideoKind} kind */
    const trackOf = (user, kind) => {
      if (user.id === me.id) return own[kind];
      return isOn(user, kind) ? received.get(user.tracks[kind] ?? '') : undefined;
    };
    this.#stage.show(seen, all.length, me.id, (user) => this.#status.of(user), trackOf);
    this.#receive();
    const speaker = seen.find(({ id }) => id === this.#stage.speaker) ?? me;
    this.#pip.show(speaker, { track: trackOf(speaker, 'video'), isMe: speaker === me, status: this.#status.of(speaker) });
    // Others' clients may send anything here.
    const watchers = this.#others.filter(({ watches }) => Array.isArray(watches) && watches.includes(me.id));
    this.#sharing.show(watchers.map(({ name }) => name));
    const voices = new Set(this.#others.map(({ tracks }) => tracks.audio));
    this.#sound.play(new Map([...received].filter(([reference]) => voices.has(reference))));
    const moderates = (/** @type {string} */ id) => this.#moderation.moderates(id);
    const roles = { isModerator: this.#moderation.isModerator, moderates };
    this.#people.show(all, me.id, roles, this.#state.room?.observers ?? []);
    this.#chat.showUsers(all);
    this.panels.memberCount = all.length;
  }

  /** Receives the audio of all members, and the video of the visible ones, as large as it is shown. */
  #receive() {
    const best = Math.min(this.#webcam.quality, CAMERA_LINES);
    /** @param {User} user @param {VideoKind} kind */
    const heightOf = ({ id }, kind) => this.#stage.heightOf(id, kind) ?? (kind === 'video' && this.#pip.shows(id) ? PIP_HEIGHT : undefined);
    this.#media?.receive(wantedTracks(this.#others, best, heightOf));
  }

  #showHand() {
    const label = text(this.#raisedHand ? 'controls.lowerHand' : 'controls.raiseHand');
    showAction('hand', { name: text('controls.raiseHand'), label, isPressed: this.#raisedHand });
  }

  /**
   * Shows a message of the chat while its panel is closed.
   * @param {string} line
   */
  #showUnread(line) {
    this.panels.countUnread();
    if (!this.panels.isOpen('chat')) notice(line.length > 140 ? `${line.slice(0, 139)}…` : line, 'chat');
  }
}
