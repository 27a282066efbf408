// @ts-check
// One session of the media API: one RTCPeerConnection for all sent and received tracks.
//
// A session does not recover by itself. Its methods must be called one after the other; they throw a CallsError if
// nothing has changed and the call may be repeated, and another error if the two sides no longer agree about the
// session, which ends it.

import { Emitter } from '../events.js';
import { CallsError } from './api.js';

/** @import { ApiAnswer, ApiRequest, CallsApi } from './api.js' */
/** @import { Wanted } from './incoming.js' */

/** Time for which ICE may be disconnected before the session is given up. */
const ICE_PATIENCE = 7_000;

/** Timeout of an ICE restart: on a dead network the answer never arrives, and the next attempt may use another network. */
const RESTART_PATIENCE = 3_000;

/** Time for a negotiated connection to be established. */
const CONNECT_PATIENCE = 15_000;

/** Error codes after which this session cannot recover. */
const FATAL = new Set(['session_error', 'not_found', 'unauthorized', 'repeated_local_track_error']);

/** The connection to the media service failed, or was never established. */
export class ConnectionError extends Error {
  /** @param {boolean} wasConnected */
  constructor(wasConnected) {
    super(wasConnected ? 'the connection broke' : 'no connection was established');
    this.wasConnected = wasConnected;
  }
}

/**
 * Events: `connected`; `disconnected`, when ICE gets no answer for a moment; `broken`, when the connection failed.
 * @extends {Emitter<{ connected: void, disconnected: void, broken: ConnectionError }>}
 */
export class CallsSession extends Emitter {
  #api;
  /** @type {number | undefined} */
  #iceTimer;
  /** @type {number | undefined} */
  #connectTimer;

  /**
   * @param {CallsApi} api
   * @param {string} id
   * @param {RTCIceServer[]} iceServers
   */
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
        this.emit('disconnected');
      }
    });
  }

  /**
   * Opens a session; without `iceServers` it requests them from the server.
   * @param {CallsApi} api
   * @param {RTCIceServer[] | undefined} iceServers
   */
  static async open(api, iceServers) {
    const [{ sessionId }, ice] = await Promise.all([
      api.call('POST', 'sessions/new'),
      // Most networks need no TURN, so a failed request is no reason to fail.
      iceServers ? { iceServers } : api.call('GET', 'generate-ice-servers').catch(() => ({ iceServers: [] })),
    ]);
    if (!sessionId) throw new CallsError('unreachable', 'no session');
    return new CallsSession(api, sessionId, [ice.iceServers ?? []].flat());
  }

  get isConnected() {
    return this.connection.connectionState === 'connected';
  }

  /** Detects at once that the media service lost this session, which ICE shows only after a while. */
  async check() {
    try {
      await this.#api.call('GET', `sessions/${this.id}`);
    } catch (error) {
      if (error instanceof CallsError && FATAL.has(error.code)) this.#break();
    }
  }

  /**
   * Publishes the tracks that these transceivers send.
   * @param {{ name: string, transceiver: RTCRtpTransceiver }[]} tracks
   */
  async push(tracks) {
    await this.connection.setLocalDescription();
    const answers = await this.#offer('POST', 'tracks/new', {
      tracks: tracks.map(({ name, transceiver }) => ({ location: 'local', trackName: name, mid: transceiver.mid })),
    });
    const failed = answers.find(({ errorCode }) => errorCode);
    if (failed) throw new Error(`a track was refused: ${failed.errorCode}`);
  }

  /**
   * Subscribes to tracks. Returns a transceiver for each, or undefined for one that is unavailable at the moment.
   * @param {Wanted[]} wanted
   */
  async pull(wanted) {
    const tracks = wanted.map(remote);
    const answer = await this.#call('POST', 'tracks/new', { tracks });
    await this.#renegotiate(answer);
    const transceivers = this.connection.getTransceivers();
    return tracks.map(({ sessionId, trackName }) => {
      const known = answer.tracks?.find((track) => track.sessionId === sessionId && track.trackName === trackName);
      return known?.errorCode ? undefined : transceivers.find(({ mid }) => mid !== null && mid === known?.mid);
    });
  }

  /**
   * Asks for other layers of received tracks.
   * @param {(Wanted & { transceiver?: RTCRtpTransceiver })[]} wanted
   */
  async askLayers(wanted) {
    const tracks = wanted.map((track) => ({ ...remote(track), mid: track.transceiver?.mid }));
    await this.#renegotiate(await this.#call('PUT', 'tracks/update', { tracks }));
  }

  /**
   * Answers the media service's offer, if there is one.
   * @param {ApiAnswer} answer
   */
  async #renegotiate(answer) {
    if (answer.requiresImmediateRenegotiation) {
      await this.connection.setRemoteDescription(required(answer.sessionDescription));
      await this.connection.setLocalDescription();
      try {
        const { sdp } = required(this.connection.localDescription);
        await this.#call('PUT', 'renegotiate', { sessionDescription: { type: 'answer', sdp } });
      } catch (error) {
        throw new Error('the media service did not receive our answer', { cause: error });
      }
      this.#expectConnection();
    }
  }

  /**
   * Closes the tracks of these transceivers. To be called while connected: a media service may refuse it before.
   * @param {RTCRtpTransceiver[]} transceivers
   */
  async close(transceivers) {
    const tracks = transceivers.filter(({ mid }) => mid !== null).map(({ mid }) => ({ mid }));
    for (const transceiver of transceivers) transceiver.stop();
    if (tracks.length === 0) return;
    await this.connection.setLocalDescription();
    await this.#offer('PUT', 'tracks/close', { tracks, force: false });
  }

  /** Restarts ICE from the current network, with the same session (RFC 8445 section 9). */
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

  /**
   * Makes a call that includes the local offer, and applies the answer.
   * @param {string} method
   * @param {string} path
   * @param {ApiRequest} body
   * @param {number} [patience]
   */
  async #offer(method, path, body, patience) {
    let answer;
    try {
      const { type, sdp } = required(this.connection.localDescription);
      answer = await this.#call(method, path, { ...body, sessionDescription: { type, sdp } }, patience);
    } catch (error) {
      await this.connection.setLocalDescription({ type: 'rollback' });
      throw error;
    }
    await this.connection.setRemoteDescription(required(answer.sessionDescription));
    this.#expectConnection();
    return answer.tracks ?? [];
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {ApiRequest} body
   * @param {number} [patience]
   */
  async #call(method, path, body, patience) {
    try {
      return await this.#api.call(method, `sessions/${this.id}/${path}`, body, patience);
    } catch (error) {
      if (error instanceof CallsError && FATAL.has(error.code)) throw new Error('the session is gone', { cause: error });
      throw error;
    }
  }

  /** Limits the time to connect: without a remote candidate a browser waits for ever. */
  #expectConnection() {
    if (!this.wasConnected) this.#connectTimer ??= setTimeout(() => this.#break(), CONNECT_PATIENCE);
  }

  #connected() {
    clearTimeout(this.#connectTimer);
    this.wasConnected = true;
    this.emit('connected');
  }

  #break() {
    this.isBroken = true;
    this.emit('broken', new ConnectionError(this.wasConnected));
  }
}

/**
 * Returns a session description that must exist at this point of the negotiation.
 * @template T
 * @param {T | null | undefined} description
 */
function required(description) {
  if (!description) throw new Error('the media service sent no session description');
  return description;
}

/**
 * Returns a track of another session, with the best wanted layer: less where the connection carries no more, or where the
 * publisher has others.
 * @param {Wanted} wanted
 */
function remote({ reference, layer }) {
  const slash = reference.indexOf('/');
  const track = { location: 'remote', sessionId: reference.slice(0, slash), trackName: reference.slice(slash + 1) };
  if (layer === undefined) return track;
  return { ...track, simulcast: { preferredRid: layer, priorityOrdering: 'asciibetical', ridNotAvailable: 'asciibetical' } };
}
