// The room's socket: it comes back by itself, and what is said while it is away waits.

const ATTEMPT = 4_000;
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 10_000;
const GROWTH = 1.3;

/** A socket that was open for this long was no failed attempt. */
const STEADY = 5_000;

/** More than this is not said later. */
const WAITING_MESSAGES = 500;

/** The server gave our seat to a newer socket. Coming back would only take it from there again. */
const SUPERSEDED = 4001;

/**
 * Events: each message of the server by its `type` (the message is `event.detail`); `open`, when a
 * client has to say who it is; `away`, when the socket is gone and will come back; `superseded`.
 */
export class Signalling extends EventTarget {
  /** Our id in the room; the same over all reconnects of this page. */
  id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

  #url;
  #socket;
  #waiting = [];
  #pause = 0;
  #timer;
  #heartbeat;
  #ended = false;

  constructor(roomName) {
    super();
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.#url = `${scheme}://${location.host}/parties/rooms/${encodeURIComponent(roomName)}?_pk=${this.id}`;
    this.#heartbeat = new Worker(new URL('./heartbeat.js', import.meta.url));
    this.#heartbeat.addEventListener('message', () => this.#sayNow({ type: 'heartbeat' }));
    addEventListener('online', () => this.#comeBackNow());
    this.#connect();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Says it now, or as soon as the socket is back. */
  say(message) {
    if (this.isOpen) this.#sayNow(message);
    else if (this.#waiting.length < WAITING_MESSAGES) this.#waiting.push(message);
  }

  /** Says it now or never: for what `open` says anew. */
  sayIfOpen(message) {
    this.#sayNow(message);
  }

  /** Leaves the room for good. */
  leave() {
    this.#sayNow({ type: 'userLeft' });
    this.#end();
    this.#socket.close();
  }

  #sayNow(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  #connect() {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    const attempt = setTimeout(() => socket.close(), ATTEMPT);
    let steady;
    socket.addEventListener('open', () => {
      clearTimeout(attempt);
      steady = setTimeout(() => (this.#pause = 0), STEADY);
      this.dispatchEvent(new Event('open'));
      for (const message of this.#waiting.splice(0)) this.#sayNow(message);
    });
    socket.addEventListener('message', ({ data }) => {
      const message = JSON.parse(data);
      this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
    });
    socket.addEventListener('close', ({ code }) => {
      clearTimeout(attempt);
      clearTimeout(steady);
      if (this.#ended) return;
      if (code === SUPERSEDED) {
        this.#end();
        this.dispatchEvent(new Event('superseded'));
        return;
      }
      this.dispatchEvent(new Event('away'));
      this.#timer = setTimeout(() => this.#connect(), this.#nextPause());
    });
  }

  /** The first pause is a matter of chance, so that a whole room does not come back at one moment. */
  #nextPause() {
    const grown = this.#pause * GROWTH || FIRST_PAUSE + Math.random() * 4_000;
    this.#pause = Math.min(grown, LONGEST_PAUSE);
    return this.#pause;
  }

  #comeBackNow() {
    if (this.#ended || this.#socket.readyState !== WebSocket.CLOSED) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  #end() {
    this.#ended = true;
    this.#heartbeat.terminate();
    clearTimeout(this.#timer);
  }
}
