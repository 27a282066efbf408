// Data of the server about itself and about us, as the stock client's pages load them.

/** The server answers, and says no. The message is its own sentence, if it had one, as its pages write it. */
export class Refusal extends Error {
  name = 'Refusal';
}

/** Asks for the data of one route; leaves the page if the server wants us to log in first. */
export async function ask(path, route, options) {
  const answer = await request(path, route, options);
  return answer.json();
}

/** Sends a form to the action of a route, and goes where the answer leads. */
export function send(form, route) {
  return request(form.action, route, { method: 'POST', body: new URLSearchParams(new FormData(form)) });
}

/**
 * The reason why the server does not let a socket of ours in, or undefined if it would let it in; a browser shows
 * a page nothing of a refused upgrade.
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

/** The sentence in which the server says what is wrong. */
async function sentence(answer) {
  const kind = answer.headers.get('Content-Type') ?? '';
  let said;
  if (kind.startsWith('application/json')) said = (await answer.json()).message;
  if (kind.startsWith('text/plain')) said = await answer.text();
  if (!said?.trim()) return '';
  const [first, ...rest] = said.trim();
  return `${first.toUpperCase()}${rest.join('')}.`;
}

/** Everything that a room needs to know. `roomPath` is the room's address, such as `/my-room` or `/meet/my-room`. */
export async function loadSettings(roomPath) {
  const [media, lobby, room] = await Promise.all([
    ask(roomPath, 'routes/_room'),
    ask(roomPath, 'routes/_room.$roomName._index'),
    ask(`${roomPath}/room`, 'routes/_room.$roomName.room'),
  ]);
  // A server without a media service has none to name; one that carries the media itself has a name too.
  const hasMedia = Boolean(lobby.callsAppId);
  return {
    name: lobby.username,
    hasMedia,
    /** Everyone else would only get noise from a page that does not encrypt. */
    mustEncrypt: media.e2eeEnabled,
    /** True if this page can send and receive. */
    canCarryMedia: hasMedia && !media.e2eeEnabled,
    /** True if an AI can be called in. */
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
