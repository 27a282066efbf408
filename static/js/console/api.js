// @ts-check
// Requests to the operators' API, by the session's cookie.

/** The server refused a request; the message is its sentence. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Says on every request that it comes from this page: pages of other origins cannot. */
const HEADERS = { 'x-satsuma-console': '1' };

/** Time for an answer in milliseconds. */
const PATIENCE = 30_000;

/** @type {() => void} */
let signedOut = () => {};

/**
 * Sets the listener for the end of the session.
 * @param {() => void} listener
 */
export function onSignedOut(listener) {
  signedOut = listener;
}

/**
 * Asks for JSON.
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export function get(path, signal) {
  return ask('GET', path, undefined, signal);
}

/**
 * Posts JSON; returns that of the answer, if it has any.
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
export function post(path, body = {}) {
  return ask('POST', path, body);
}

/** @param {string} path */
export function remove(path) {
  return ask('DELETE', path);
}

/**
 * Opens a stream of server-sent events.
 * @param {string} path
 * @param {string} lastId
 * @param {AbortSignal} signal
 */
export async function stream(path, lastId, signal) {
  const headers = lastId ? { ...HEADERS, 'last-event-id': lastId } : HEADERS;
  const answer = await fetch(path, { headers, signal, cache: 'no-store' });
  if (!answer.ok || !answer.body) throw await refusal(answer);
  return answer.body.pipeThrough(new TextDecoderStream());
}

/** @param {string[]} segments */
export function path(...segments) {
  return `/admin/${segments.map(encodeURIComponent).join('/')}`;
}

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @param {AbortSignal} [signal]
 */
async function ask(method, path, body, signal) {
  const ends = [AbortSignal.timeout(PATIENCE), ...(signal ? [signal] : [])];
  const headers = body === undefined ? HEADERS : { ...HEADERS, 'content-type': 'application/json' };
  const answer = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: 'no-store',
    signal: AbortSignal.any(ends),
  });
  if (!answer.ok) throw await refusal(answer);
  const text = await answer.text();
  return text && answer.headers.get('content-type')?.startsWith('application/json') ? JSON.parse(text) : text;
}

/** @param {Response} answer */
async function refusal(answer) {
  const text = (await answer.text()).trim();
  if (answer.status === 401) signedOut();
  let sentence = text.split('\n')[0] ?? '';
  if (answer.headers.get('content-type')?.startsWith('application/json')) {
    const said = JSON.parse(text);
    if (typeof said.error === 'string') sentence = said.error;
  }
  return new Refusal(answer.status, sentence || `the server answered ${answer.status}`);
}
