// Calls to the media API, through our server.

import { BASE } from '../base.js';

/** Timeout of one call; our server times out earlier. */
const PATIENCE = 20_000;

/** The media API refused, or could not be asked. `code` is its word, its status as `http_400`, or `unreachable`. */
export class CallsError extends Error {
  constructor(code, description = '') {
    super(`${code}: ${description}`);
    this.code = code;
    this.description = description;
  }
}

export class CallsApi {
  /** Log of calls for bug reports, without session descriptions, because those hold passwords. */
  history = [];

  #parameters;
  #maxHistory;

  /** `parameters` is a query string that goes along with every call. */
  constructor(parameters, maxHistory) {
    this.#parameters = parameters;
    this.#maxHistory = maxHistory;
  }

  /** Calls, and gives back the answer's JSON, in which single tracks may still have failed. */
  async call(method, path, body, patience = PATIENCE) {
    const entry = { at: new Date().toISOString(), method, endpoint: path, tracks: body?.tracks };
    this.history.push(entry);
    if (this.history.length > this.#maxHistory) this.history.shift();
    let response, answer;
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
      entry.failure = error.name;
      throw new CallsError('unreachable', error.message);
    }
    entry.answer = { errorCode: answer.errorCode, sessionId: answer.sessionId, tracks: answer.tracks };
    if (answer.errorCode) throw new CallsError(answer.errorCode, answer.errorDescription);
    if (!response.ok) throw new CallsError(response.status < 500 ? `http_${response.status}` : 'unreachable');
    return answer;
  }
}
