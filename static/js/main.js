// A room's page, from its lobby to its end.
//
// Who reads this as an example: `signalling.js` is the room's protocol, `calls/` is the media API,
// `meeting.js` is what connects the two; everything else is what one sees.

import { listen, showAction } from './controls.js';
import { offerDevices } from './device-choice.js';
import { Devices } from './devices.js';
import { byId } from './element.js';
import { placeIcons } from './icons.js';
import { Lobby } from './lobby.js';
import { Meeting } from './meeting.js';
import { notice } from './notices.js';
import { prepareReport } from './report.js';
import { loadSettings } from './settings.js';
import { Signalling } from './signalling.js';

placeIcons();
const roomName = decodeURIComponent(location.pathname.split('/')[1]);
document.title = `${roomName} – Satsuma`;
byId('lobby-title').textContent = roomName;
byId('room-title').textContent = roomName;

const settings = await loadSettings(`/${encodeURIComponent(roomName)}`);
const devices = new Devices({ lines: settings.webcam.quality, framerate: settings.webcam.framerate });
const signalling = new Signalling(roomName);
const lobby = new Lobby({ settings, devices, signalling });
offerDevices(byId('lobby-devices'), devices);
offerDevices(byId('room-devices'), devices);
let meeting;

listen({
  microphone: () => devices.toggleMicrophone().then(() => explain('microphone', 'Microphone')),
  camera: () => devices.toggleCamera().then(() => explain('camera', 'Camera')),
  screen: () => devices.toggleScreen(),
  hand: () => meeting.toggleHand(),
  people: () => meeting.panels.toggle('people'),
  chat: () => meeting.panels.toggle('chat'),
  invite: copyLink,
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
  document.body.dataset.view = 'room';
  byId('stage').focus();
});
signalling.addEventListener('away', () => (byId('reconnecting').hidden = false));
signalling.addEventListener('open', () => (byId('reconnecting').hidden = true));
signalling.addEventListener('superseded', () => leave('This room is open in a newer window'));
byId('return').addEventListener('click', () => location.reload());

addEventListener('pagehide', () => signalling.leave());
// A page out of the browser's memory has left its room.
addEventListener('pageshow', ({ persisted }) => persisted && location.reload());

showDevices();
document.body.dataset.view = 'lobby';
await devices.start();

function showDevices() {
  const { microphone, camera, screen } = devices;
  showAction('microphone', {
    label: microphone.isOn ? 'Switch the microphone off' : 'Switch the microphone on',
    icon: microphone.isOn ? 'microphone' : 'microphone-off',
    isPressed: microphone.isOn,
    isWarning: Boolean(microphone.problem),
  });
  showAction('camera', {
    label: camera.isOn ? 'Switch the camera off' : 'Switch the camera on',
    icon: camera.isOn ? 'camera' : 'camera-off',
    isPressed: camera.isOn,
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

function leave(why) {
  signalling.leave();
  devices.end();
  meeting?.end();
  byId('left-title').textContent = why;
  byId('quality').hidden = !settings.asksForQuality || !meeting;
  byId('meeting-id').value = meeting?.id ?? '';
  byId('notices').replaceChildren();
  document.body.dataset.view = 'left';
  byId('return').focus();
}

async function copyLink() {
  const link = `${location.origin}/${encodeURIComponent(roomName)}`;
  try {
    await navigator.clipboard.writeText(link);
    notice('The link is copied. Send it to whom you want to meet.');
  } catch {
    notice(link);
  }
}
