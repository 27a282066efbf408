// A room's page, from its lobby to its end.
//
// As an example of a client: `signalling.js` is the room's protocol, `calls/` is the media API, `meeting.js` connects the
// two; everything else is the user interface.

import { BASE } from './base.js';
import { listen, showAction } from './controls.js';
import { offerDevices } from './device-choice.js';
import { Devices } from './devices.js';
import { byId } from './element.js';
import { placeIcons } from './icons.js';
import { Lobby } from './lobby.js';
import { Meeting } from './meeting.js';
import { lastingNotice, notice, withdrawAllNotices, withdrawNotice } from './notices.js';
import { prepareReport } from './report.js';
import { ask, askWhyRefused, loadSettings, Refusal } from './settings.js';
import { Signalling } from './signalling.js';

/** On a dead network questions would wait for minutes, and in the way of all that is asked once it is back. */
const WHY_PATIENCE = 4_000;

const SOCKET_IS_LOST =
  'The server answers, but WebSockets do not reach it. A proxy, a firewall or a browser extension may block it.';

placeIcons();
const roomName = decodeURIComponent(location.pathname.slice(BASE.length).split('/')[0]);
const roomPath = `${BASE}${encodeURIComponent(roomName)}`;
document.title = `${roomName} – Satsuma`;
byId('lobby-title').textContent = roomName;
byId('room-title').textContent = roomName;

const settings = await loadSettings(roomPath);
const devices = new Devices({ lines: settings.webcam.quality, framerate: settings.webcam.framerate });
const signalling = new Signalling(roomName);
const lobby = new Lobby({ settings, devices, signalling });
offerDevices(byId('lobby-devices'), devices);
offerDevices(byId('room-devices'), devices);
let meeting;
let isAskingWhy = false;
let isWelcome = false;

listen({
  microphone: () => devices.toggleMicrophone().then(() => explain('microphone', 'Microphone')),
  camera: () => devices.toggleCamera().then(() => explain('camera', 'Camera')),
  screen: () => devices.toggleScreen(),
  hand: () => meeting.toggleHand(),
  people: () => meeting.panels.toggle('people'),
  chat: () => meeting.panels.toggle('chat'),
  invite: copyLink,
  ai: () => meeting.toggleAi(),
  'ai-ear': () => meeting.toggleAiEar(),
  devices: () => byId('devices').showModal(),
  shortcuts: () => byId('shortcuts').showModal(),
  report: prepareReport(() => ({
    roomName,
    identity: meeting.ownUser,
    roomHistory: meeting.history,
    url: location.href,
  })),
  leave: () => leave('You left the room'),
});

devices.addEventListener('change', showDevices);
lobby.addEventListener('join', () => {
  meeting = new Meeting({ settings, devices, signalling, state: lobby.state });
  meeting.addEventListener('connection', showDisconnected);
  document.body.dataset.view = 'room';
  byId('stage').focus();
});
signalling.addEventListener('away', ({ detail }) => {
  showDisconnected();
  if (detail.reason) notice(`The server says: ${detail.reason}`, 'away');
});
signalling.addEventListener('open', () => {
  isWelcome = false;
  showDisconnected();
  withdrawNotice('refused');
});
signalling.addEventListener('refused', askWhy);
signalling.addEventListener('superseded', () => leave('This room is open in a newer window'));
byId('return').addEventListener('click', () => location.reload());

addEventListener('pagehide', () => signalling.leave());
// A page out of the browser's memory has left its room.
addEventListener('pageshow', ({ persisted }) => persisted && location.reload());

showDevices();
document.body.dataset.view = 'lobby';
await devices.start();

/** One word about the network, whichever way it was noticed. */
function showDisconnected() {
  const isAway = !signalling.isOpen || Boolean(meeting?.isCutOff);
  byId('reconnecting').hidden = !isAway;
  document.body.classList.toggle('disconnected', isAway);
}

function showDevices() {
  const { microphone, camera, screen } = devices;
  showAction('microphone', {
    label: microphone.isWanted ? 'Switch the microphone off' : 'Switch the microphone on',
    icon: microphone.isWanted ? 'microphone' : 'microphone-off',
    isPressed: microphone.isWanted,
    isWarning: Boolean(microphone.problem),
  });
  showAction('camera', {
    label: camera.isWanted ? 'Switch the camera off' : 'Switch the camera on',
    icon: camera.isWanted ? 'camera' : 'camera-off',
    isPressed: camera.isWanted,
    isWarning: Boolean(camera.problem),
  });
  showAction('screen', {
    label: screen.track ? 'Stop sharing the screen' : 'Share the screen',
    isPressed: Boolean(screen.track),
    isPossible: devices.canShareScreen,
  });
}

/** Says why a device is not on, to those who have just asked for it. */
function explain(kind, label) {
  const { problem } = devices[kind];
  if (problem) notice(`${label}: ${problem}`, kind);
}

/** A browser does not tell a page why a socket was refused; plain requests do. */
async function askWhy() {
  if (isAskingWhy) return;
  isAskingWhy = true;
  const signal = AbortSignal.timeout(WHY_PATIENCE);
  let why;
  try {
    // Leaves the page if we are to log in again; the way back leads to this room.
    await ask(roomPath, 'routes/_room.$roomName._index', { signal });
    const reason = await askWhyRefused(signalling.address, { signal });
    // A server that has just come up refuses nothing: only another attempt shows that sockets do not reach it.
    why = reason || isWelcome ? `${reason ?? SOCKET_IS_LOST} Trying again…` : '';
    isWelcome = !reason;
  } catch (error) {
    // A server that cannot be reached refuses nobody.
    why = error instanceof Refusal ? error.message : '';
  }
  isAskingWhy = false;
  if (why && !signalling.isOpen && document.body.dataset.view !== 'left') lastingNotice(why, 'refused');
}

function leave(why) {
  signalling.leave();
  devices.end();
  meeting?.end();
  byId('left-title').textContent = why;
  byId('quality').hidden = !settings.asksForQuality || !meeting;
  byId('meeting-id').value = meeting?.id ?? '';
  withdrawAllNotices();
  document.body.dataset.view = 'left';
  byId('return').focus();
}

async function copyLink() {
  const link = location.origin + roomPath;
  try {
    await navigator.clipboard.writeText(link);
    notice('Link copied. Share it to invite others.');
  } catch {
    notice(link);
  }
}
