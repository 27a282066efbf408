// @ts-check
// The room's socket: it reconnects by itself, and messages wait while it is away.

import { BASE } from './base.js';
import { Emitter } from './events.js';

/**
 * A member as every client sees it (docs/protocol.md).
 * @typedef {object} User
 * @property {string} id
 * @property {string} name
 * @property {boolean} joined
 * @property {boolean} raisedHand
 * @property {boolean} speaking
 * @property {boolean} [readsChat] false for the stock client, which has no chat
 * @property {string[]} [watches] ids of the members whose screens this one sees
 * @property {string} [transceiverSessionId]
 * @property {UserTracks} tracks
 */

/**
 * The tracks of a member; references are `{session}/{track name}`.
 * @typedef {object} UserTracks
 * @property {boolean} [audioEnabled]
 * @property {boolean} [audioUnavailable]
 * @property {boolean} [videoEnabled]
 * @property {boolean} [screenShareEnabled]
 * @property {string} [audio]
 * @property {string} [video]
 * @property {string} [screenshare]
 */

/**
 * A snapshot of the room.
 * @typedef {object} RoomState
 * @property {string} [meetingId]
 * @property {User[]} users
 * @property {{ enabled?: boolean, connectionPending?: boolean, error?: string, controllingUser?: string }} [ai]
 * @property {RoomRules} [room]
 * @property {WatchedVideo} [watch]
 */

/**
 * A video that is watched together; its position in milliseconds is that at the server's time `at`.
 * @typedef {({ kind: 'file', url: string } | { kind: 'youtube', id: string })
 *   & { by?: string, playing: boolean, position: number, at: number }} WatchedVideo
 */

/**
 * A request about it.
 * @typedef {{ action: 'start', url: string } | { action: 'play' | 'pause' | 'seek', position: number } | { action: 'stop' }} WatchRequest
 */

/**
 * A file in the chat.
 * @typedef {{ id: string, name: string, bytes: number, kind: string }} SharedFile
 */

/**
 * The settings of the room, as far as they differ from the default.
 * @typedef {object} RoomRules
 * @property {string[]} [moderators]
 * @property {boolean} [locked]
 * @property {boolean} [waitingRoom]
 * @property {boolean} [chat]
 * @property {boolean} [screens]
 * @property {boolean} [videos]
 * @property {boolean} [files]
 * @property {boolean} [chatHistory]
 * @property {boolean} [password]
 * @property {string} [spotlight]
 * @property {string[]} [observers] names of programs that follow the meeting and are shown
 */

/**
 * An action of a moderator (docs/protocol.md).
 * @typedef {{ action: 'admit' | 'refuse' | 'grantModeration' | 'revokeModeration', id: string }
 *   | { action: 'lock' | 'waitingRoom' | 'chat' | 'screens' | 'videos' | 'files' | 'chatHistory', on: boolean }
 *   | { action: 'lowerHands' | 'spotlight', id?: string }
 *   | { action: 'mute', id: string, kind: 'audio' | 'video' | 'screen' }
 *   | { action: 'rename', id: string, name: string }
 *   | { action: 'remove', id: string, reason?: string, network: boolean }
 *   | { action: 'end' | 'clearChat' }} Moderate
 */

/**
 * Somebody who waits to be let in.
 * @typedef {{ id: string, name: string }} Knock
 */

/**
 * The server's messages that this page uses, by type.
 * @typedef {object} ServerMessages
 * @property {{ state: RoomState }} roomState
 * @property {{ id: number, from: string, name: string, message: string, at: number, file?: SharedFile }} chat
 * @property {{ messages: ServerMessages['chat'][] }} chatHistory
 * @property {{ id: number, from: string, name: string, message: string, at: number, asker: string }} chatUpdate
 * @property {{ ref: number, at: number }} clock
 * @property {{ reactions: { id: string, emoji: string }[] }} reactions
 * @property {{ from: string, message: string }} directMessage
 * @property {object} muteMic
 * @property {{ by?: string, reason?: string }} removed
 * @property {{ by?: string }} ended
 * @property {{ kind: 'audio' | 'video' | 'screen', by?: string }} muted
 * @property {{ before: number, by?: string }} chatCleared
 * @property {{ knocks: Knock[] }} knocks
 * @property {object} mediaMoved
 * @property {{ error: string, code?: string }} error
 */

/**
 * The messages that this page sends.
 * @typedef {{ type: 'userUpdate', user: User }
 *   | { type: 'heartbeat' | 'userLeft' | 'enableAi' | 'disableAi' | 'relenquishAiControl' | 'stopAnswer' }
 *   | { type: 'directMessage', to: string, message: string }
 *   | { type: 'chat', message: string }
 *   | { type: 'react', emoji: string }
 *   | { type: 'clock', ref: number }
 *   | ({ type: 'watch' } & WatchRequest)
 *   | { type: 'muteUser', id: string }
 *   | ({ type: 'moderate' } & Moderate)
 *   | { type: 'requestAiControl', track: { sessionId: string, trackName: string } }} ClientMessage
 */

/** Timeout of one connection attempt. */
const ATTEMPT = 4_000;
const FIRST_PAUSE = 1_000;

/** Delays of a reconnect after a server restart in ms; the spread grows with each member of the room. */
const RESTART_PAUSE = 150;
const RESTART_SPREAD = 20;
const MAX_RESTART_SPREAD = 4_000;

/** Minimum spread after a connection broke without a close frame: many rooms may have lost theirs at once. */
const BROKEN_SPREAD = 500;

/** Time for the server to respond once something else suggests that the network is dead. */
const PROBE = 2_000;

const MAX_PAUSE = 10_000;
const GROWTH = 1.3;

/** Time after which an open socket is taken for one that stays. */
const STEADY = 5_000;

/** Failed attempts in a row after which the cause is likely not to pass by itself. */
const DOUBTFUL_ATTEMPTS = 2;

/**
 * Heartbeats without any message of the server after which it is probed. A network can die without closing the socket;
 * without media nothing else reveals it. The server sends a message at each tick (`room.tick`, 15 s).
 */
const QUIET_HEARTBEATS = 4;

/** Maximum number of messages queued while the socket is away. */
const MAX_WAITING = 500;

/** The server restarts (RFC 6455 section 7.4.1 and its registry). */
const RESTART = 1012;

/** There was no close frame (RFC 6455 section 7.1.5). */
const BROKEN = 1006;

/** A newer socket replaced ours as this member. Reconnecting would only replace that one again. */
const SUPERSEDED = 4001;

/** @typedef {{ isOpened: boolean, code?: number, reason?: string }} Loss */

/**
 * Events: each message of the server by its `type`, with the message; `open`, after which a client sends its user;
 * `away`, when the socket is gone and will reconnect, with the server's `reason` if it gave one; `refused`, when
 * several attempts failed; `superseded`.
 * @extends {Emitter<ServerMessages & { open: void, away: { reason?: string }, refused: void, superseded: void }>}
 */
export class Signalling extends Emitter {
  /** Our id in the room; the same over all reconnects of this page. */
  id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

  /** Number of times the socket was opened. */
  opened = 0;

  #url;
  /** @type {WebSocket | undefined} */
  #socket;
  #failedAttempts = 0;
  /** Attempts given up before they were answered. A server that hung admits them later, perhaps after their successor. */
  #abandoned = 0;
  #quietHeartbeats = 0;
  /** @type {ClientMessage[]} */
  #waiting = [];
  #pause = 0;
  #memberCount = 1;
  /** @type {number | undefined} */
  #probe;
  /** @type {number | undefined} */
  #timer;
  #heartbeat;
  #ended = false;

  /** @param {string} roomName */
  constructor(roomName) {
    super();
    this.roomName = roomName;
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.#url = `${scheme}://${location.host}${BASE}parties/rooms/${encodeURIComponent(roomName)}?_pk=${this.id}`;
    this.#heartbeat = new Worker(new URL('./heartbeat.js', import.meta.url));
    this.#heartbeat.addEventListener('message', () => this.#beat());
    addEventListener('online', () => this.reconnectNow());
    addEventListener('offline', () => this.#lose(this.#socket, { isOpened: true }));
    this.#connect();
  }

  /** Reconnects without a pause. To be called when something else shows that the server is reachable. */
  reconnectNow() {
    if (this.#ended || this.isOpen) return;
    clearTimeout(this.#timer);
    // An earlier attempt may wait for an answer that was lost.
    const attempt = this.#socket;
    this.#socket = undefined;
    if (attempt) this.#abandoned += 1;
    attempt?.close();
    // The first attempts on a network that has just come up may fail.
    this.#pause = RESTART_PAUSE;
    this.#connect();
  }

  /** Replaces the socket by another one, so that the server reads our identity again. */
  renew() {
    if (this.#ended || !this.isOpen) return;
    const old = this.#socket;
    this.#socket = undefined;
    this.#connect();
    old?.close();
  }

  /** The URL of the room's socket as an HTTP URL for a plain request. */
  get address() {
    return this.#url.replace(/^ws/, 'http');
  }

  /** Checks that the server responds, and gives the socket up if it does not. */
  probe() {
    if (!this.isOpen || this.#probe) return;
    const socket = this.#socket;
    this.#sendNow({ type: 'directMessage', to: this.id, message: this.#probeText });
    this.#probe = setTimeout(() => {
      this.#probe = undefined;
      this.#lose(socket, { isOpened: true });
    }, PROBE);
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /**
   * Sends a message now, or as soon as the socket is back.
   * @param {ClientMessage} message
   */
  send(message) {
    if (this.isOpen) this.#sendNow(message);
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(message);
  }

  /**
   * Sends a message now or drops it: for state that is sent again after `open`.
   * @param {ClientMessage} message
   */
  sendIfOpen(message) {
    this.#sendNow(message);
  }

  /** Leaves the room for good. */
  leave() {
    this.#sendNow({ type: 'userLeft' });
    this.#end();
    this.#socket?.close();
  }

  /** @param {ClientMessage} message */
  #sendNow(message) {
    if (this.isOpen) this.#socket?.send(JSON.stringify(message));
  }

  #connect() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    let isOpened = false;
    /** @type {number | undefined} */
    let steady;
    const attempt = setTimeout(() => this.#lose(socket, { isOpened }), ATTEMPT);
    socket.addEventListener('open', () => {
      isOpened = true;
      clearTimeout(attempt);
      steady = setTimeout(() => {
        if (socket !== this.#socket) return;
        this.#pause = 0;
        this.#abandoned = 0;
      }, STEADY);
      this.opened += 1;
      this.#failedAttempts = 0;
      this.#quietHeartbeats = 0;
      this.emit('open');
      for (const message of this.#waiting.splice(0)) this.#sendNow(message);
    });
    socket.addEventListener('message', ({ data }) => {
      if (socket !== this.#socket) return;
      this.#quietHeartbeats = 0;
      clearTimeout(this.#probe);
      this.#probe = undefined;
      const message = JSON.parse(data);
      if (message.type === 'roomState') this.#memberCount = message.state.users.length;
      if (message.type !== 'directMessage' || message.message !== this.#probeText) this.emit(message.type, message);
    });
    socket.addEventListener('close', ({ code, reason }) => {
      clearTimeout(attempt);
      clearTimeout(steady);
      this.#lose(socket, { isOpened, code, reason });
    });
  }

  /**
   * Gives up a socket that is gone, or that no longer responds.
   * @param {WebSocket | undefined} socket
   * @param {Loss} loss
   */
  #lose(socket, { isOpened, code, reason }) {
    if (this.#ended || !socket || socket !== this.#socket) return;
    this.#socket = undefined;
    clearTimeout(this.#probe);
    this.#probe = undefined;
    // Its own close event may take long, and is ignored.
    socket.close();
    if (code === SUPERSEDED && this.#abandoned === 0) {
      this.#end();
      this.emit('superseded');
      return;
    }
    const isByAbandoned = code === SUPERSEDED;
    if (isByAbandoned) this.#abandoned -= 1;
    // Without a code this page gave it up.
    const cause = isByAbandoned ? BROKEN : (code ?? BROKEN);
    this.#timer = setTimeout(() => this.#connect(), this.#nextPause(isOpened ? cause : undefined));
    this.emit('away', { reason: isByAbandoned ? undefined : reason });
    if (isOpened) return;
    // A refused attempt ends by itself.
    if (code === undefined) this.#abandoned += 1;
    this.#failedAttempts += 1;
    if (this.#failedAttempts >= DOUBTFUL_ATTEMPTS) this.emit('refused');
  }

  #beat() {
    if (!this.isOpen) return;
    this.#sendNow({ type: 'heartbeat' });
    this.#quietHeartbeats += 1;
    if (this.#quietHeartbeats >= QUIET_HEARTBEATS) this.probe();
  }

  /** A message to ourselves, which the server returns: a heartbeat is not answered. */
  get #probeText() {
    return `Is the server there? ${this.id}`;
  }

  /**
   * Returns the delay of the next attempt. The first one is random, so that a whole room does not reconnect at once.
   * @param {number | undefined} code the close code, if the socket was open
   */
  #nextPause(code) {
    this.#pause = Math.min(this.#pause * GROWTH || this.#firstPause(code), MAX_PAUSE);
    return this.#pause;
  }

  /** @param {number | undefined} code */
  #firstPause(code) {
    const spread = Math.min(RESTART_SPREAD * this.#memberCount, MAX_RESTART_SPREAD);
    if (code === RESTART) return RESTART_PAUSE + Math.random() * spread;
    if (code === BROKEN) return RESTART_PAUSE + Math.random() * Math.max(spread, BROKEN_SPREAD);
    // Other codes concern this client (too many messages, too slow); an immediate reconnect would repeat the cause.
    return FIRST_PAUSE + Math.random() * 4_000;
  }

  #end() {
    this.#ended = true;
    clearTimeout(this.#probe);
    this.#heartbeat.terminate();
    clearTimeout(this.#timer);
  }
}
