// @ts-check
// The buttons, and the keys that trigger the same actions.

import { allHtml, byId, within } from './element.js';
import { setIcon } from './icons.js';

/** @import { IconName } from './icons.js' */

/** @type {Record<string, string>} */
const KEYS = { m: 'microphone', v: 'camera', s: 'screen', h: 'hand', l: 'view', p: 'people', c: 'chat', '?': 'shortcuts' };
const SHORTCUTS = 'satsuma.shortcuts';

/**
 * Triggers an action.
 * @type {(action: string) => unknown}
 */
let press = () => {};

/**
 * Copies of buttons, in another window.
 * @type {HTMLElement[]}
 */
let copies = [];

/**
 * Calls `actions[name]` for each button with that `data-action`, and for its key.
 * @param {Record<string, () => unknown>} actions
 */
export function listen(actions) {
  for (const button of allHtml('[data-action]')) {
    button.addEventListener('click', () => {
      const popover = button.closest('[popover]');
      if (popover instanceof HTMLElement) popover.hidePopover();
      press(button.dataset.action ?? '');
    });
  }
  press = (action) => actions[action]();
  const switchBox = byId('shortcuts-on', HTMLInputElement);
  switchBox.checked = localStorage.getItem(SHORTCUTS) !== 'off';
  switchBox.addEventListener('change', () => localStorage.setItem(SHORTCUTS, switchBox.checked ? 'on' : 'off'));
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const { target } = event;
    const isTyping = target instanceof Element && target.closest('input:not([type=checkbox]), textarea, select, dialog');
    if (isTyping || !switchBox.checked || document.body.dataset.view !== 'room') return;
    const action = actions[KEYS[event.key.toLowerCase()]];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/**
 * Shows the current meaning and state of an action's buttons.
 * @param {string} action
 * @param {{ label: string, icon?: IconName, isPressed?: boolean, isWarning?: boolean, isPossible?: boolean }} state
 */
export function showAction(action, { label, icon, isPressed, isWarning = false, isPossible = true }) {
  for (const button of buttons(action)) {
    const text = button.querySelector('span');
    if (text) text.textContent = label;
    else button.setAttribute('aria-label', label);
    button.title = label;
    // A label that names what a press does needs no state.
    if (isPressed !== undefined) button.setAttribute('aria-pressed', String(isPressed));
    button.classList.toggle('warned', isWarning);
    button.hidden = !isPossible;
    if (icon) setIcon(button, icon);
  }
}

/**
 * Returns all buttons of an action.
 * @param {string} action
 */
export function buttons(action) {
  return [...allHtml(`[data-action="${action}"]`), ...copies.filter((copy) => copy.dataset.action === action)];
}

/**
 * Returns copies of buttons of this page, to be used in another window.
 * @param {string[]} actions
 */
export function copyButtons(actions) {
  copies = actions.map((action) => {
    const copy = /** @type {HTMLElement} */ (within(document, `.controls [data-action="${action}"]`, HTMLElement).cloneNode(true));
    copy.addEventListener('click', () => press(action));
    return copy;
  });
  return copies;
}

/** To be called when that window is gone. */
export function forgetCopies() {
  copies = [];
}
