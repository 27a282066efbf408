// @ts-check
// A room's page, from the lobby to its end.
//
// As an example of a client: `signalling.js` is the room's protocol, `calls/` is the media API, `meeting.js` connects the
// two; everything else is the user interface.

import { BASE } from './base.js';
import { Chat } from './chat.js';
import { listen, showAction } from './controls.js';
import { offerDevices } from './device-choice.js';
import { Devices } from './devices.js';
import { byId } from './element.js';
import { placeIcons } from './icons.js';
import { prepareInvitation } from './invite.js';
import { Knocks } from './knocks.js';
import { Lobby } from './lobby.js';
import { Meeting } from './meeting.js';
import { lastingNotice, notice, withdrawAllNotices, withdrawNotice } from './notices.js';
import { rememberRoom } from './recent.js';
import { prepareReport } from './report.js';
import { ScreenShare } from './screen-share.js';
import { ask, askWhyRefused, enterRoom, loadSettings, PASSWORD_NEEDED, Refusal, settingsPath } from './settings.js';
import { Signalling } from './signalling.js';
import { text } from './texts.js';

/** @import { DeviceKind } from './devices.js' */

/** Timeout of the requests below: on a dead network they would be pending for minutes, and delay later ones. */
const WHY_TIMEOUT = 4_000;

placeIcons();
const roomName = decodeURIComponent(location.pathname.slice(BASE.length).split('/')[0]);
const roomPath = `${BASE}${encodeURIComponent(roomName)}`;
document.title = `${roomName} – Satsuma`;
byId('lobby-title').textContent = roomName;
byId('room-title').textContent = roomName;

const settings = await loadSettings(roomName);
const devices = new Devices({ lines: settings.webcam.quality, framerate: settings.webcam.framerate }, settings.grants.publish);
const signalling = new Signalling(roomName);
const chat = new Chat(signalling);
const lobby = new Lobby({ settings, devices, signalling });
new Knocks(signalling);
offerDevices(byId('lobby-devices'), devices, { isFull: false });
offerDevices(byId('room-devices'), devices, { isFull: true });
/** @type {Meeting | undefined} */
let meeting;
let isAskingWhy = false;
/** True while the microphone is on because the space bar is held. */
let isTalking = false;
/** True if the server had no reason to refuse the last attempt. */
let isAccepted = false;

listen({
  microphone: () => devices.toggleMicrophone().then(() => explain('microphone')),
  camera: () => devices.toggleCamera().then(() => explain('camera')),
  flip: () => devices.turnCamera().then(() => explain('camera')),
  screen: () => (devices.mayShareScreen ? devices.screen.toggle() : notice(text('rights.screen'), 'screen')),
  hand: () => meeting?.toggleHand(),
  view: () => meeting?.toggleView(),
  pip: () => meeting?.togglePip(),
  people: () => meeting?.panels.toggle('people'),
  chat: () => meeting?.panels.toggle('chat'),
  invite: prepareInvitation(location.origin + roomPath, `${BASE}api/rooms/${encodeURIComponent(roomName)}/code.svg`),
  ai: () => meeting?.ai.toggle(),
  'ai-ear': () => meeting?.ai.toggleEar(),
  devices: () => byId('devices', HTMLDialogElement).showModal(),
  shortcuts: () => byId('shortcuts', HTMLDialogElement).showModal(),
  report: prepareReport(() => ({
    roomName,
    identity: meeting?.ownUser,
    roomHistory: meeting?.history,
    url: location.href,
  })),
  leave: () => leave(text('left.title')),
}, talk);

devices.on('change', showDevices);
devices.on('replaced', (kind) => notice(text(kind === 'camera' ? 'camera.replaced' : 'microphone.replaced'), kind));
lobby.on('join', (state) => {
  meeting = new Meeting({ settings, devices, signalling, chat, state });
  meeting.on('connection', showDisconnected);
  // Beside the room's name they move nothing else.
  byId('reconnecting').before(byId('messages'));
  document.body.dataset.view = 'room';
  rememberRoom(roomName);
  byId('stage').focus();
});
signalling.on('away', ({ reason }) => {
  showDisconnected();
  if (reason) notice(text('notice.server', { message: reason }), 'away');
});
signalling.on('open', () => {
  isAccepted = false;
  showDisconnected();
  for (const subject of ['refused', 'away']) withdrawNotice(subject);
  byId('enter').hidden = true;
});
signalling.on('refused', askWhy);
signalling.on('superseded', () => leave(text('left.newerWindow')));
signalling.on('removed', ({ by = '', reason = '' }) => {
  const withReason = by ? 'left.removedByFor' : 'left.removedFor';
  const withoutReason = by ? 'left.removedBy' : 'left.removed';
  leave(text(reason ? withReason : withoutReason, { by, reason }));
});
signalling.on('ended', ({ by }) => leave(by ? text('left.endedBy', { by }) : text('left.ended')));
byId('enter').addEventListener('submit', enter);
byId('return').addEventListener('click', () => {
  lobby.joinAfterReload();
  location.reload();
});

addEventListener('pagehide', () => signalling.leave());
// A page restored from the back/forward cache has already left its room.
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) location.reload();
});

showDevices();
document.body.dataset.view = 'lobby';
await devices.start();

/** Shows that the socket or the media are disconnected. */
function showDisconnected() {
  const isAway = !signalling.isOpen || Boolean(meeting?.isCutOff);
  byId('reconnecting').hidden = !isAway;
  document.body.classList.toggle('disconnected', isAway);
}

function showDevices() {
  const { microphone, camera, screen } = devices;
  showAction('microphone', {
    name: text('shortcuts.microphone'),
    label: text(microphone.isWanted ? 'controls.microphoneOff' : 'controls.microphoneOn'),
    icon: microphone.isWanted ? 'microphone' : 'microphone-off',
    isPressed: microphone.isWanted,
    isWarning: Boolean(microphone.problem) && microphone.isAllowed,
    refusal: microphone.isAllowed ? '' : microphone.problem,
  });
  showAction('camera', {
    name: text('shortcuts.camera'),
    label: text(camera.isWanted ? 'controls.cameraOff' : 'controls.cameraOn'),
    icon: camera.isWanted ? 'camera' : 'camera-off',
    isPressed: camera.isWanted,
    isWarning: Boolean(camera.problem) && camera.isAllowed,
    refusal: camera.isAllowed ? '' : camera.problem,
  });
  showAction('flip', { label: text('controls.flip'), isPossible: devices.canTurnCamera });
  document.body.classList.toggle('looks-ahead', devices.looksAhead);
  showAction('screen', {
    name: text('controls.screenOn'),
    label: text(screen.track ? 'controls.screenOff' : 'controls.screenOn'),
    isPressed: Boolean(screen.track),
    isPossible: ScreenShare.isPossible,
    refusal: devices.mayShareScreen ? '' : text('rights.screen'),
  });
}

/**
 * Unmutes a muted microphone while a key is held.
 * @param {boolean} isHeld
 */
function talk(isHeld) {
  const { isWanted, isAllowed } = devices.microphone;
  if (isHeld && isAllowed && !isWanted) {
    isTalking = true;
    devices.toggleMicrophone();
  } else if (!isHeld && isTalking) {
    isTalking = false;
    if (isWanted) devices.muteMicrophone();
  }
}

/**
 * Shows the problem of a device that the user has just switched on.
 * @param {DeviceKind} kind
 */
function explain(kind) {
  const { problem } = devices[kind];
  if (problem) notice(problem, kind);
  else withdrawNotice(kind);
}

/** Shows the server's reason for refusing the socket. A browser hides it from the page, so it is requested. */
async function askWhy() {
  if (isAskingWhy) return;
  isAskingWhy = true;
  const signal = AbortSignal.timeout(WHY_TIMEOUT);
  let why = '';
  let needsPassword = false;
  try {
    // Leaves the page if a login is required; that one returns to this room.
    await ask(settingsPath(roomName), { signal });
    const refused = await askWhyRefused(signalling.address, { signal });
    needsPassword = refused?.code === PASSWORD_NEEDED;
    // A server that has just started refuses nothing: only another attempt shows that sockets do not reach it.
    if (refused || isAccepted) why = text('server.again', { problem: refused?.reason || text('server.noSockets') });
    isAccepted = !refused;
  } catch (error) {
    // An unreachable server gives no reason.
    if (error instanceof Refusal) why = error.message;
  }
  isAskingWhy = false;
  // Kept while somebody types.
  if (needsPassword) byId('enter').hidden = false;
  if (why && !needsPassword && !signalling.isOpen && document.body.dataset.view !== 'left') lastingNotice(why, 'refused');
}

/**
 * Enters the room by the password in the form.
 * @param {Event} event
 */
async function enter(event) {
  event.preventDefault();
  const problem = byId('enter-problem');
  problem.hidden = true;
  try {
    await enterRoom(roomName, byId('room-password', HTMLInputElement).value);
    signalling.reconnectNow();
  } catch (error) {
    problem.textContent = error instanceof Refusal ? error.message : text('server.unreachable');
    problem.hidden = false;
  }
}

/** @param {string} title */
function leave(title) {
  signalling.leave();
  devices.end();
  meeting?.end();
  byId('left-title').textContent = title;
  byId('quality').hidden = !meeting;
  byId('meeting-id', HTMLInputElement).value = meeting?.id ?? '';
  withdrawAllNotices();
  document.body.dataset.view = 'left';
  byId('return').focus();
}
