// @ts-check
// The settings of rooms: what is different in one, and switches for those of a meeting.

import { element } from '../element.js';

/**
 * The settings of a meeting, or those with which one begins. `password` is true if there is one.
 * @typedef {Record<'locked' | 'waitingRoom' | 'chat' | 'screens' | 'videos' | 'files' | 'chatHistory' | 'password', boolean>} RoomSettings
 */

/**
 * The settings that are switched, their names, and the actions that do it.
 * @type {{ key: keyof RoomSettings, action: string, label: string }[]}
 */
const SWITCHES = [
  { key: 'locked', action: 'lock', label: 'Locked' },
  { key: 'waitingRoom', action: 'waitingRoom', label: 'Waiting room' },
  { key: 'chat', action: 'chat', label: 'Everyone chats' },
  { key: 'screens', action: 'screens', label: 'Everyone shares screens' },
  { key: 'videos', action: 'videos', label: 'Everyone shares videos' },
  { key: 'files', action: 'files', label: 'Everyone shares files' },
  { key: 'chatHistory', action: 'chatHistory', label: 'Chat is remembered' },
];

/**
 * Returns the settings of a room in words.
 * @param {RoomSettings} settings
 */
export function different({ locked, waitingRoom, chat, screens, videos, files, chatHistory, password }) {
  const words = [
    locked && 'locked',
    waitingRoom && 'waiting room',
    password && 'password',
    !chat && 'moderators alone chat',
    !screens && 'moderators alone share screens',
    !videos && 'moderators alone share videos',
    files && 'everyone shares files',
    !chatHistory && 'chat is not remembered',
  ];
  return words.filter((word) => typeof word === 'string');
}

/** Switches for the settings of a meeting, which show how they are now. */
export class Switches {
  #switches;
  #password = element('span', { class: 'pill', hidden: true }, 'password');

  /**
   * @param {(action: object, done: string) => Promise<boolean>} moderate
   */
  constructor(moderate) {
    this.#switches = SWITCHES.map(({ key, action, label }) => {
      const box = element('input', { type: 'checkbox', name: key, disabled: true });
      box.addEventListener('change', async () => {
        const on = box.checked;
        // The next answer of the server may be older than this change.
        box.indeterminate = true;
        const isDone = await moderate({ action, on }, `${label}: ${on ? 'on' : 'off'}.`);
        box.indeterminate = false;
        if (!isDone) box.checked = !on;
      });
      return { key, box, element: element('label', { class: 'check' }, box, label) };
    });
    const switches = this.#switches.map(({ element }) => element);
    this.element = element('div', { class: 'actions', role: 'group', 'aria-label': 'Settings' }, ...switches, this.#password);
  }

  /**
   * @param {RoomSettings} settings
   * @param {boolean} isRunning false without a meeting whose settings could change
   */
  show(settings, isRunning) {
    for (const { key, box } of this.#switches) {
      if (!box.indeterminate) box.checked = settings[key];
      box.disabled = !isRunning || document.body.dataset.role === 'viewer';
    }
    this.#password.hidden = !settings.password;
  }
}
