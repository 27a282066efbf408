// The room's socket: it comes back by itself, and what is said while it is away waits.

import { BASE } from './base.js';

const ATTEMPT = 4_000;
const FIRST_PAUSE = 1_000;

/** Delays of a reconnect after a server restart in ms; the spread grows with each member of the room. */
const RESTART_PAUSE = 150;
const RESTART_SPREAD = 20;
const LONGEST_RESTART_SPREAD = 4_000;

/** A connection that broke without a close frame is spread by this at least: many rooms may share its fate. */
const BROKEN_SPREAD = 500;

/** Time for the server to respond once something else suggests that the network is dead. */
const PROBE = 2_000;

const LONGEST_PAUSE = 10_000;
const GROWTH = 1.3;

/** A socket that was open for this long was no failed attempt. */
const STEADY = 5_000;

/** After so many attempts in a row that led to no socket something is wrong that does not pass. */
const DOUBTFUL_ATTEMPTS = 2;

/**
 * A network can die without a word: the socket stays open, and nothing comes any more. Where media say
 * nothing about it, it is the server's silence that does. A server speaks at each tick (`room.tick`,
 * 15 s); after so many heartbeats without a word from it, it is asked for one.
 */
const QUIET_HEARTBEATS = 4;

/** Maximum number of messages queued while the socket is away. */
const WAITING_MESSAGES = 500;

/** The server restarts (RFC 6455 section 7.4.1 and its registry). */
const RESTART = 1012;

/** There was no close frame (RFC 6455 section 7.1.5). */
const BROKEN = 1006;

/** A newer socket replaced ours as this member. Reconnecting would only replace that one again. */
const SUPERSEDED = 4001;

/**
 * Events: each message of the server by its `type` (the message is `event.detail`); `open`, when a
 * client has to say who it is; `away`, when the socket is gone and will come back, with the server's
 * `reason`, if it gave one; `refused`, when it does not come back; `superseded`.
 */
export class Signalling extends EventTarget {
  /** Our id in the room; the same over all reconnects of this page. */
  id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

  /** Number of times the socket was opened. */
  opened = 0;

  #url;
  #socket;
  #failedAttempts = 0;
  #unheardHeartbeats = 0;
  #waiting = [];
  #pause = 0;
  #people = 1;
  #probe;
  #timer;
  #heartbeat;
  #ended = false;

  constructor(roomName) {
    super();
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.#url = `${scheme}://${location.host}${BASE}parties/rooms/${encodeURIComponent(roomName)}?_pk=${this.id}`;
    this.#heartbeat = new Worker(new URL('./heartbeat.js', import.meta.url));
    this.#heartbeat.addEventListener('message', () => this.#beat());
    addEventListener('online', () => this.comeBackNow());
    addEventListener('offline', () => this.#lose(this.#socket, { isOpened: true }));
    this.#connect();
  }

  /** To be called when something else says that the server can be reached: a pause is of no use then. */
  comeBackNow() {
    if (this.#ended || this.isOpen) return;
    clearTimeout(this.#timer);
    // An attempt from before may wait for an answer that was lost.
    const attempt = this.#socket;
    this.#socket = undefined;
    attempt?.close();
    // A network that has just come up may refuse the first attempts.
    this.#pause = RESTART_PAUSE;
    this.#connect();
  }

  /** The URL of the room's socket as an HTTP URL for a plain request. */
  get address() {
    return this.#url.replace(/^ws/, 'http');
  }

  /** Asks whether the server is there, and gives the socket up if no word comes. */
  probe() {
    if (!this.isOpen || this.#probe) return;
    const socket = this.#socket;
    this.#sayNow({ type: 'directMessage', to: this.id, message: this.#question });
    this.#probe = setTimeout(() => {
      this.#probe = undefined;
      this.#lose(socket, { isOpened: true });
    }, PROBE);
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Sends a message now, or as soon as the socket is back. */
  say(message) {
    if (this.isOpen) this.#sayNow(message);
    else if (this.#waiting.length < WAITING_MESSAGES) this.#waiting.push(message);
  }

  /** Sends a message now or drops it: for state that `open` sends again. */
  sayIfOpen(message) {
    this.#sayNow(message);
  }

  /** Leaves the room for good. */
  leave() {
    this.#sayNow({ type: 'userLeft' });
    this.#end();
    this.#socket?.close();
  }

  #sayNow(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  #connect() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    let isOpened = false;
    let steady;
    const attempt = setTimeout(() => this.#lose(socket, { isOpened }), ATTEMPT);
    socket.addEventListener('open', () => {
      isOpened = true;
      clearTimeout(attempt);
      steady = setTimeout(() => {
        if (socket === this.#socket) this.#pause = 0;
      }, STEADY);
      this.opened += 1;
      this.#failedAttempts = 0;
      this.#unheardHeartbeats = 0;
      this.#tell('open');
      for (const message of this.#waiting.splice(0)) this.#sayNow(message);
    });
    socket.addEventListener('message', ({ data }) => {
      if (socket !== this.#socket) return;
      this.#unheardHeartbeats = 0;
      clearTimeout(this.#probe);
      this.#probe = undefined;
      const message = JSON.parse(data);
      if (message.type === 'roomState') this.#people = message.state.users.length;
      if (message.type !== 'directMessage' || message.message !== this.#question) this.#tell(message.type, message);
    });
    socket.addEventListener('close', ({ code, reason }) => {
      clearTimeout(attempt);
      clearTimeout(steady);
      this.#lose(socket, { isOpened, code, reason });
    });
  }

  /** Gives up a socket that is gone, or as good as gone. */
  #lose(socket, { isOpened, code, reason }) {
    if (this.#ended || !socket || socket !== this.#socket) return;
    this.#socket = undefined;
    clearTimeout(this.#probe);
    this.#probe = undefined;
    // Its own end can take long, and is of no interest any more.
    socket.close();
    if (code === SUPERSEDED) {
      this.#end();
      this.#tell('superseded');
      return;
    }
    // Without a code it is we who gave it up.
    this.#timer = setTimeout(() => this.#connect(), this.#nextPause(isOpened ? (code ?? BROKEN) : undefined));
    this.#tell('away', { reason });
    if (isOpened) return;
    this.#failedAttempts += 1;
    if (this.#failedAttempts >= DOUBTFUL_ATTEMPTS) this.#tell('refused');
  }

  #beat() {
    if (!this.isOpen) return;
    this.#sayNow({ type: 'heartbeat' });
    this.#unheardHeartbeats += 1;
    if (this.#unheardHeartbeats >= QUIET_HEARTBEATS) this.probe();
  }

  /** A message to ourselves, which comes back if the server still hears us: a heartbeat is not answered. */
  get #question() {
    return `Is the server there? ${this.id}`;
  }

  /** The first pause is a matter of chance, so that a whole room does not come back at one moment. */
  #nextPause(code) {
    this.#pause = Math.min(this.#pause * GROWTH || this.#firstPause(code), LONGEST_PAUSE);
    return this.#pause;
  }

  #firstPause(code) {
    const spread = Math.min(RESTART_SPREAD * this.#people, LONGEST_RESTART_SPREAD);
    if (code === RESTART) return RESTART_PAUSE + Math.random() * spread;
    if (code === BROKEN) return RESTART_PAUSE + Math.random() * Math.max(spread, BROKEN_SPREAD);
    // Other codes are an answer to us (too many messages, too slow): coming back at once would not mend it.
    return FIRST_PAUSE + Math.random() * 4_000;
  }

  #end() {
    this.#ended = true;
    clearTimeout(this.#probe);
    this.#heartbeat.terminate();
    clearTimeout(this.#timer);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
