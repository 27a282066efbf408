// @ts-check
// The server's settings and the user's name, as the stock client's pages load them.

/** A refusal by the server. The message is its sentence, if it sent one. */
export class Refusal extends Error {
  name = 'Refusal';
}

/**
 * Requests the data of one route; leaves the page if the server requires a login first.
 * @param {string} path
 * @param {string} route
 * @param {RequestInit} [options]
 */
export async function ask(path, route, options) {
  const answer = await request(path, route, options);
  return answer.json();
}

/**
 * Sends a form to the action of a route, and follows its redirect.
 * @param {HTMLFormElement} form
 * @param {string} route
 */
export function send(form, route) {
  const fields = [...new FormData(form)].map(([name, value]) => [name, String(value)]);
  return request(form.action, route, { method: 'POST', body: new URLSearchParams(fields) });
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
      return 'Meetings do not work at this address: a proxy in front of the server blocks WebSockets. Its operator has to enable them.';
    default:
      return `The server does not let you into the room. ${await sentence(answer)}`;
  }
}

/**
 * @param {string} path
 * @param {string} route
 * @param {RequestInit} [options]
 */
async function request(path, route, options) {
  const url = new URL(path, location.origin);
  if (route === 'routes/_index') url.searchParams.set('index', '');
  url.searchParams.set('_data', route);
  const answer = await fetch(url, options);
  const elsewhere = answer.headers.get('X-Remix-Redirect');
  if (elsewhere) {
    location.assign(elsewhere);
    return new Promise(() => {});
  }
  if (!answer.ok) throw new Refusal((await sentence(answer)) || `The server answers with ${answer.status}.`);
  return answer;
}

/**
 * Returns the server's sentence about an error, or an empty string.
 * @param {Response} answer
 */
async function sentence(answer) {
  const kind = answer.headers.get('Content-Type') ?? '';
  let text;
  if (kind.startsWith('application/json')) text = (await answer.json()).message;
  if (kind.startsWith('text/plain')) text = await answer.text();
  if (!text?.trim()) return '';
  const [first, ...rest] = text.trim();
  return `${first.toUpperCase()}${rest.join('')}.`;
}

/** @typedef {Awaited<ReturnType<typeof loadSettings>>} Settings */

/**
 * Loads all settings of a room's page. `roomPath` is the room's address, such as `/my-room` or `/meet/my-room`.
 * @param {string} roomPath
 */
export async function loadSettings(roomPath) {
  const [media, lobby, room] = await Promise.all([
    ask(roomPath, 'routes/_room'),
    ask(roomPath, 'routes/_room.$roomName._index'),
    ask(`${roomPath}/room`, 'routes/_room.$roomName.room'),
  ]);
  // Set for every media service, the embedded one included.
  const hasMedia = Boolean(lobby.callsAppId);
  return {
    name: lobby.username,
    hasMedia,
    /** True if members encrypt end to end, and could not decode this page's media. */
    mustEncrypt: media.e2eeEnabled,
    /** True if this page can send and receive. */
    canCarryMedia: hasMedia && !media.e2eeEnabled,
    /** True if an AI can be invited. */
    hasAi: room.hasAiCredentials,
    iceServers: media.iceServers,
    extraParams: media.apiExtraParams ?? '',
    webcam: {
      framerate: media.maxWebcamFramerate ?? 24,
      bitrate: media.maxWebcamBitrate ?? 2_500_000,
      quality: media.maxWebcamQualityLevel ?? 1080,
    },
    maxHistory: media.maxApiHistory ?? 100,
    asksForQuality: room.hasDb,
    takesReports: room.bugReportsEnabled,
  };
}
