// @ts-check
// Controls of moderators over the chat: its history, and clearing it.

import { byId } from './element.js';
import { notice } from './notices.js';
import { text } from './texts.js';

/** @import { RoomState, Signalling } from './signalling.js' */

/**
 * @param {{ signalling: Signalling, state: RoomState, isOn: boolean }} parts `isOn` is what the server has for rooms that say nothing
 * @param {AbortSignal} signal
 */
export function controlHistory({ signalling, state, isOn }, signal) {
  const box = byId('rule-chatHistory', HTMLInputElement);
  /** @param {RoomState} state */
  const show = (state) => (box.checked = state.room?.chatHistory ?? isOn);
  show(state);
  signalling.on('roomState', ({ state }) => show(state), { signal });
  signalling.on('chatCleared', ({ by }) => notice(text('chat.cleared', { by: by ?? text('stopped.someModerator') })), { signal });
  box.addEventListener('change', () => signalling.send({ type: 'moderate', action: 'chatHistory', on: box.checked }), { signal });
  byId('clear-chat').addEventListener('click', () => byId('clear-dialog', HTMLDialogElement).showModal(), { signal });
  byId('clear-form').addEventListener('submit', () => signalling.send({ type: 'moderate', action: 'clearChat' }), { signal });
}
