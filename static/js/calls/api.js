// @ts-check
// Calls of the media API, through our server.

import { BASE } from '../base.js';

/** Timeout of one call; our server times out earlier. */
const PATIENCE = 20_000;

/** The media API refused a call, or could not be reached. `code` is its error code, its status as `http_400`, or `unreachable`. */
export class CallsError extends Error {
  /**
   * @param {string} code
   * @param {string} [description]
   */
  constructor(code, description = '') {
    super(`${code}: ${description}`);
    this.code = code;
    this.description = description;
  }
}

/**
 * A session description in an answer or a request.
 * @typedef {{ type: RTCSdpType, sdp: string }} Description
 */

/**
 * A track in an answer; `errorCode` if this track failed.
 * @typedef {object} ApiTrack
 * @property {string} [sessionId]
 * @property {string} [trackName]
 * @property {string} [mid]
 * @property {string} [errorCode]
 */

/**
 * An answer of the media API; each call fills some of its fields.
 * @typedef {object} ApiAnswer
 * @property {string} [errorCode]
 * @property {string} [errorDescription]
 * @property {string} [sessionId]
 * @property {ApiTrack[]} [tracks]
 * @property {Description} [sessionDescription]
 * @property {boolean} [requiresImmediateRenegotiation]
 * @property {RTCIceServer | RTCIceServer[]} [iceServers]
 */

/**
 * The body of a request.
 * @typedef {{ tracks?: object[], sessionDescription?: Description, force?: boolean }} ApiRequest
 */

/**
 * An entry of the log of calls.
 * @typedef {object} LogEntry
 * @property {string} at
 * @property {string} method
 * @property {string} endpoint
 * @property {object[]} [tracks]
 * @property {number} [status]
 * @property {string} [failure]
 * @property {{ errorCode?: string, sessionId?: string, tracks?: ApiTrack[] }} [answer]
 */

export class CallsApi {
  /**
   * Log of calls for bug reports, without session descriptions, because those hold passwords.
   * @type {LogEntry[]}
   */
  history = [];

  #parameters;
  #maxHistory;

  /**
   * `parameters` is the query string of every call.
   * @param {URLSearchParams} parameters
   * @param {number} maxHistory
   */
  constructor(parameters, maxHistory) {
    this.#parameters = parameters;
    this.#maxHistory = maxHistory;
  }

  /**
   * Calls the API and returns its answer, in which single tracks may still have failed.
   * @param {string} method
   * @param {string} path
   * @param {ApiRequest} [body]
   * @param {number} [patience] timeout in milliseconds
   * @returns {Promise<ApiAnswer>}
   */
  async call(method, path, body, patience = PATIENCE) {
    /** @type {LogEntry} */
    const entry = { at: new Date().toISOString(), method, endpoint: path, tracks: body?.tracks };
    this.history.push(entry);
    if (this.history.length > this.#maxHistory) this.history.shift();
    let response;
    /** @type {ApiAnswer} */
    let answer;
    try {
      response = await fetch(`${BASE}partytracks/${path}?${this.#parameters}`, {
        method,
        headers: body && { 'Content-Type': 'application/json' },
        body: body && JSON.stringify(body),
        signal: AbortSignal.timeout(patience),
      });
      entry.status = response.status;
      // A refusal may have no body.
      answer = response.ok ? await response.json() : await response.json().catch(() => ({}));
    } catch (error) {
      const { name, message } = error instanceof Error ? error : new Error(String(error));
      entry.failure = name;
      throw new CallsError('unreachable', message);
    }
    entry.answer = { errorCode: answer.errorCode, sessionId: answer.sessionId, tracks: answer.tracks };
    if (answer.errorCode) throw new CallsError(answer.errorCode, answer.errorDescription);
    if (!response.ok) throw new CallsError(response.status < 500 ? `http_${response.status}` : 'unreachable');
    return answer;
  }
}
