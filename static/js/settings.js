// What the server says about itself and about us: the data that the stock client's pages load.

/** Asks for the data of one route; leaves the page if the server wants us to log in first. */
export async function ask(path, route) {
  const url = new URL(path, location.origin);
  if (route === 'routes/_index') url.searchParams.set('index', '');
  url.searchParams.set('_data', route);
  const answer = await fetch(url);
  const elsewhere = answer.headers.get('X-Remix-Redirect');
  if (elsewhere) {
    location.assign(elsewhere);
    return new Promise(() => {});
  }
  if (!answer.ok) throw new Error(`${route} is answered with ${answer.status}`);
  return answer.json();
}

/** Everything that a room needs to know. `roomPath` is the room's address, such as `/my-room`. */
export async function loadSettings(roomPath) {
  const [media, lobby, room] = await Promise.all([
    ask(roomPath, 'routes/_room'),
    ask(roomPath, 'routes/_room.$roomName._index'),
    ask(`${roomPath}/room`, 'routes/_room.$roomName.room'),
  ]);
  return {
    name: lobby.username,
    /** Whether there is a media service at all. */
    hasMedia: Boolean(lobby.callsAppId),
    /** Everyone else would only get noise from a page that does not encrypt. */
    mustEncrypt: media.e2eeEnabled,
    iceServers: media.iceServers,
    extraParams: media.apiExtraParams ?? '',
    webcam: {
      framerate: media.maxWebcamFramerate ?? 24,
      bitrate: media.maxWebcamBitrate ?? 2_500_000,
      quality: media.maxWebcamQualityLevel ?? 1080,
      simulcast: media.simulcastEnabled,
    },
    maxHistory: media.maxApiHistory ?? 100,
    asksForQuality: room.hasDb,
    takesReports: room.bugReportsEnabled,
  };
}
