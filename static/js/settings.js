// @ts-check
// The server's settings, the user's name, and the forms.

import { BASE } from './base.js';
import { refusalText, text } from './texts.js';

/** The header with the code of an error. */
const CODE = 'Error-Code';

/** The code of the refusal of whoever has not entered the room's password. */
export const PASSWORD_NEEDED = 'password_needed';

/** A refusal by the server. The message is in the user's language if its code is known, else the server's sentence. */
export class Refusal extends Error {
  name = 'Refusal';
}

/** Half of a second, in which the header `Date` counts. */
const HALF_SECOND = 500;

/**
 * Requests JSON at a path below the server's; leaves the page if the server requires a login first.
 * @param {string} path
 * @param {RequestInit} [options]
 */
export async function ask(path, options) {
  return (await request(path, options)).json();
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
async function request(path, options) {
  const answer = await fetch(BASE + path, options);
  if (answer.status === 401) {
    // The page's own address leads to the form for a name, or tells where to log in.
    location.reload();
    return new Promise(() => {});
  }
  await check(answer);
  return answer;
}

/**
 * Sends a form, and follows its redirect.
 * @param {HTMLFormElement} form
 */
export async function send(form) {
  const fields = [...new FormData(form)].map(([name, value]) => [name, String(value)]);
  const answer = await fetch(form.action, { method: 'POST', body: new URLSearchParams(fields) });
  // An error at the redirect's target is shown by the page there.
  if (!answer.redirected) await check(answer);
  location.assign(answer.url);
}

/**
 * Returns the reason of the server for refusing a socket, or undefined if it would accept one: a browser shows a page
 * nothing of a refused upgrade.
 * @param {string} address
 * @param {RequestInit} options
 */
export async function askWhyRefused(address, options) {
  const answer = await fetch(`${address}&why`, options);
  switch (answer.status) {
    case 404:
      return undefined;
    case 426:
      return { code: '', reason: text('server.proxyBlocks') };
    default:
      return { code: answer.headers.get(CODE) ?? '', reason: await told(answer) };
  }
}

/**
 * Enters a room by its password.
 * @param {string} roomName
 * @param {string} password
 */
export async function enterRoom(roomName, password) {
  const path = `${BASE}api/rooms/${encodeURIComponent(roomName)}/enter`;
  await check(await fetch(path, { method: 'POST', body: JSON.stringify({ password }) }));
}

/** @param {Response} answer */
async function check(answer) {
  if (!answer.ok) throw new Refusal(await sentence(answer));
}

/**
 * Returns what an error says: the text for its code, the server's sentence, or else its status.
 * @param {Response} answer
 */
export async function sentence(answer) {
  return (await told(answer)) || text('server.status', { status: String(answer.status) });
}

/**
 * Returns the text for the code of an error, or else the server's sentence about it, or an empty string.
 * @param {Response} answer
 */
async function told(answer) {
  const known = refusalText(answer.headers.get(CODE));
  if (known) return known;
  const type = answer.headers.get('Content-Type') ?? '';
  let words = type.startsWith('text/plain') ? (await answer.text()).trim() : '';
  if (type.startsWith('application/json')) words = String((await answer.json()).error ?? '');
  if (!words) return '';
  const [first, ...rest] = words;
  return `${first.toUpperCase()}${rest.join('')}.`;
}

/**
 * The kinds of media that our identity may publish.
 * @typedef {{ audio: boolean, video: boolean, screen: boolean }} PublishGrants
 */

/** @typedef {Awaited<ReturnType<typeof loadSettings>>} Settings */

/**
 * Loads the settings of a room, with the page's defaults.
 * @param {string} roomName
 */
export async function loadSettings(roomName) {
  const answer = await request(settingsPath(roomName));
  const settings = await answer.json();
  const time = Date.parse(answer.headers.get('Date') ?? '') + HALF_SECOND;
  return {
    /** Milliseconds by which the server's clock is ahead of ours, to half a second. */
    clockAhead: Number.isNaN(time) ? 0 : time - Date.now(),
    name: settings.username,
    /** True if we chose our name, and can choose another one. */
    canRename: Boolean(settings.rename),
    /** True if our identity can be left by signing out. */
    canSignOut: Boolean(settings.signOut),
    /** @type {{ publish: PublishGrants, chat: boolean }} */
    grants: settings.grants,
    hasMedia: settings.media,
    /** True if members encrypt end to end, and could not decode this page's media. */
    mustEncrypt: settings.encryption,
    /** True if this page can send and receive. */
    canCarryMedia: settings.media && !settings.encryption,
    /** True if an AI can be invited. */
    hasAi: settings.ai,
    /**
     * The videos that may be watched together.
     * @type {{ files: boolean, youtube?: string } | undefined}
     */
    videos: settings.videos,
    /**
     * Files in the chat.
     * @type {{ everyone: boolean, bytes: number } | undefined}
     */
    files: settings.files,
    /** True if rooms remember their chat, unless one has it otherwise. */
    chatHistory: settings.chatHistory ?? true,
    iceServers: settings.iceServers,
    extraParams: settings.apiExtraParams ?? '',
    webcam: {
      framerate: settings.webcam.maxFramerate ?? 24,
      bitrate: settings.webcam.maxBitrate ?? 2_500_000,
      quality: settings.webcam.maxQualityLevel ?? 1080,
    },
    maxHistory: settings.maxApiHistory ?? 100,
  };
}

/**
 * Returns the path of a room's settings.
 * @param {string} roomName
 */
export function settingsPath(roomName) {
  return `api/rooms/${encodeURIComponent(roomName)}/settings`;
}
