// One session of the media API: one RTCPeerConnection that carries all we send and receive.
//
// A session knows nothing of healing. Its methods are to be called one after the other; they throw
// a CallsError if nothing has changed and the same may be tried again, and anything else if the two
// sides no longer agree about the session, which is its end.

import { CallsError } from './api.js';

/** ICE may be disconnected for this long before the session is given up. */
const ICE_PATIENCE = 7_000;

/** On a network that died calls wait for what will never come; a new one soon finds the next network. */
const RESTART_PATIENCE = 3_000;

/** A connection that both sides have agreed on has this long to come about. */
const CONNECT_PATIENCE = 15_000;

/** The answers after which this session will never work again. */
const FATAL = new Set(['session_error', 'not_found', 'unauthorized', 'repeated_local_track_error']);

/** The connection to the media service failed, or never came about. */
export class ConnectionError extends Error {}

/** Events: `connected`, `disconnected` when nothing answers for a moment, and `broken` with a ConnectionError, when the connection failed. */
export class CallsSession extends EventTarget {
  #api;
  #iceTimer;
  #connectTimer;

  constructor(api, id, iceServers) {
    super();
    this.#api = api;
    this.id = id;
    this.isBroken = false;
    this.wasConnected = false;
    this.connection = new RTCPeerConnection({ iceServers, bundlePolicy: 'max-bundle' });
    this.connection.addEventListener('connectionstatechange', () => {
      if (this.isConnected) this.#connected();
      else if (this.connection.connectionState === 'failed') this.#break();
    });
    this.connection.addEventListener('iceconnectionstatechange', () => {
      clearTimeout(this.#iceTimer);
      if (this.connection.iceConnectionState === 'disconnected') {
        this.#iceTimer = setTimeout(() => this.#break(), ICE_PATIENCE);
        this.dispatchEvent(new Event('disconnected'));
      }
    });
  }

  /** Opens a session; `iceServers` may be undefined, then the server is asked for them. */
  static async open(api, iceServers) {
    const [{ sessionId }, ice] = await Promise.all([
      api.call('POST', 'sessions/new'),
      // Most networks need none; without an answer we try it so.
      iceServers ? { iceServers } : api.call('GET', 'generate-ice-servers').catch(() => ({ iceServers: [] })),
    ]);
    if (!sessionId) throw new CallsError('unreachable', 'no session');
    return new CallsSession(api, sessionId, [ice.iceServers ?? []].flat());
  }

  get isConnected() {
    return this.connection.connectionState === 'connected';
  }

  /** Finds out at once what a connection shows only after a while: that the other side knows us no more. */
  async check() {
    try {
      await this.#api.call('GET', `sessions/${this.id}`);
    } catch (error) {
      if (FATAL.has(error.code)) this.#break();
    }
  }

  /** Publishes what these transceivers send: `[{ name, transceiver }]`. */
  async push(tracks) {
    await this.connection.setLocalDescription();
    const told = await this.#offer('POST', 'tracks/new', {
      tracks: tracks.map(({ name, transceiver }) => ({ location: 'local', trackName: name, mid: transceiver.mid })),
    });
    const failed = told.find(({ errorCode }) => errorCode);
    if (failed) throw new Error(`a track was refused: ${failed.errorCode}`);
  }

  /**
   * Subscribes to tracks `[{ sessionId, trackName }]`. Gives back a transceiver for each, or
   * undefined for one that cannot be had at the moment.
   */
  async pull(tracks) {
    const answer = await this.#call('POST', 'tracks/new', {
      tracks: tracks.map((track) => ({ location: 'remote', ...track })),
    });
    if (answer.requiresImmediateRenegotiation) {
      await this.connection.setRemoteDescription(answer.sessionDescription);
      await this.connection.setLocalDescription();
      try {
        const { sdp } = this.connection.localDescription;
        await this.#call('PUT', 'renegotiate', { sessionDescription: { type: 'answer', sdp } });
      } catch (error) {
        throw new Error('the other side does not know our answer', { cause: error });
      }
      this.#expectConnection();
    }
    const transceivers = this.connection.getTransceivers();
    return tracks.map(({ sessionId, trackName }) => {
      const told = answer.tracks?.find((track) => track.sessionId === sessionId && track.trackName === trackName);
      return told?.errorCode ? undefined : transceivers.find(({ mid }) => mid !== null && mid === told?.mid);
    });
  }

  /** Ends what these transceivers send or receive. To be called while connected: a media service may refuse it before. */
  async close(transceivers) {
    const tracks = transceivers.filter(({ mid }) => mid !== null).map(({ mid }) => ({ mid }));
    for (const transceiver of transceivers) transceiver.stop();
    if (tracks.length === 0) return;
    await this.connection.setLocalDescription();
    await this.#offer('PUT', 'tracks/close', { tracks, force: false });
  }

  /** Looks for another way to the same session, from whatever network we are in now (RFC 8445 section 9). */
  async restartIce() {
    if (!this.wasConnected) return;
    this.connection.restartIce();
    await this.connection.setLocalDescription();
    await this.#offer('PUT', 'renegotiate', {}, RESTART_PATIENCE);
  }

  end() {
    clearTimeout(this.#iceTimer);
    clearTimeout(this.#connectTimer);
    this.isBroken = true;
    this.connection.close();
  }

  /** Sends our newest offer along with a call, and takes the answer. */
  async #offer(method, path, body, patience) {
    let answer;
    try {
      const { type, sdp } = this.connection.localDescription;
      answer = await this.#call(method, path, { ...body, sessionDescription: { type, sdp } }, patience);
    } catch (error) {
      await this.connection.setLocalDescription({ type: 'rollback' });
      throw error;
    }
    await this.connection.setRemoteDescription(answer.sessionDescription);
    this.#expectConnection();
    return answer.tracks ?? [];
  }

  async #call(method, path, body, patience) {
    try {
      return await this.#api.call(method, `sessions/${this.id}/${path}`, body, patience);
    } catch (error) {
      if (FATAL.has(error.code)) throw new Error('the session is gone', { cause: error });
      throw error;
    }
  }

  /** Without a candidate of the other side a browser waits for ever. */
  #expectConnection() {
    if (!this.wasConnected) this.#connectTimer ??= setTimeout(() => this.#break(), CONNECT_PATIENCE);
  }

  #connected() {
    clearTimeout(this.#connectTimer);
    this.wasConnected = true;
    this.dispatchEvent(new Event('connected'));
  }

  #break() {
    this.isBroken = true;
    const what = this.wasConnected
      ? 'the connection to the media service broke'
      : 'this network lets no connection to the media service through';
    this.dispatchEvent(new CustomEvent('broken', { detail: new ConnectionError(what) }));
  }
}
