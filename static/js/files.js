// @ts-check
// Files in the chat: sending one, and links to those that are there.

import { BASE } from './base.js';
import { byId, element, within } from './element.js';
import { notice } from './notices.js';
import { sentence } from './settings.js';
import { text } from './texts.js';

/** @import { Settings } from './settings.js' */
/** @import { RoomState, SharedFile, Signalling } from './signalling.js' */

/**
 * Lets the user send files where the room lets it, and moderators decide on that.
 * @param {{ signalling: Signalling, settings: Settings, state: RoomState }} parts
 * @param {AbortSignal} signal
 */
export function offerFiles({ signalling, settings, state }, signal) {
  const { files } = settings;
  const attach = byId('attach', HTMLButtonElement);
  const input = byId('attach-file', HTMLInputElement);
  const box = byId('rule-files', HTMLInputElement);
  byId('rule-files-label').hidden = !files;
  /** @param {RoomState} state */
  const show = ({ room }) => {
    const isModerator = Boolean(room?.moderators?.includes(signalling.id));
    box.checked = room?.files ?? Boolean(files?.everyone);
    attach.hidden = !files || !(box.checked || isModerator) || (room?.chat === false && !isModerator);
  };
  show(state);
  signalling.on('roomState', ({ state }) => show(state), { signal });
  box.addEventListener('change', () => signalling.send({ type: 'moderate', action: 'files', on: box.checked }), { signal });
  attach.addEventListener('click', () => input.click(), { signal });
  input.addEventListener('change', async () => {
    const [file] = input.files ?? [];
    input.value = '';
    if (!file || !files) return;
    if (file.size > files.bytes) {
      notice(text('files.tooLarge', { size: megabytes(files.bytes) }), 'files');
      return;
    }
    attach.disabled = true;
    notice(text('files.sending', { name: file.name }), 'files');
    try {
      const answer = await send(signalling, file, signal);
      if (!answer.ok) notice(await sentence(answer), 'files');
    } catch {
      if (!signal.aborted) notice(text('files.failed'), 'files');
    }
    attach.disabled = false;
  }, { signal });
}

/**
 * @param {Signalling} signalling
 * @param {File} file
 * @param {AbortSignal} signal
 */
function send(signalling, file, signal) {
  // Names of computers may have more characters than a line shows.
  const name = file.name.replaceAll(/[\\/]/g, '_').slice(-128);
  const query = new URLSearchParams({ name, from: signalling.id });
  return fetch(`${pathOf(signalling.roomName)}?${query}`, { method: 'POST', body: file, signal });
}

/**
 * Shows a link to a file in place of a line's text.
 * @param {HTMLElement} line
 * @param {SharedFile} file
 * @param {string} roomName
 */
export function showFile(line, file, roomName) {
  const place = within(line, '.text', HTMLElement);
  const href = `${pathOf(roomName)}/${encodeURIComponent(file.id)}`;
  const link = element('a', { href, download: file.name, class: 'file' }, place.textContent ?? file.name);
  let isThere = false;
  link.addEventListener('click', async (event) => {
    if (isThere) {
      isThere = false;
      return;
    }
    // A browser says of a download that fails no more than that.
    event.preventDefault();
    try {
      const answer = await fetch(href, { method: 'HEAD' });
      if (!answer.ok) {
        notice((await sentence(answer)) || text('files.notThere'), 'files');
        return;
      }
    } catch {
      notice(text('files.notThere'), 'files');
      return;
    }
    isThere = true;
    link.click();
  });
  place.replaceChildren(link);
}

/** @param {string} roomName */
function pathOf(roomName) {
  return `${BASE}api/rooms/${encodeURIComponent(roomName)}/files`;
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${Math.round(bytes / 1e5) / 10} MB`;
}
