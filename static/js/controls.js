// @ts-check
// The buttons, and the keys that trigger the same actions.

import { allHtml, byId, within } from './element.js';
import { setIcon } from './icons.js';

/** @import { IconName } from './icons.js' */

/** @type {Record<string, string>} */
const KEYS = { m: 'microphone', v: 'camera', s: 'screen', h: 'hand', l: 'view', p: 'people', c: 'chat', '?': 'shortcuts' };
const SHORTCUTS = 'satsuma.shortcuts';

/** What has a meaning of its own for the space bar. */
const PRESSED_BY_SPACE = 'button, a, input, label, video, [tabindex="0"]';

/** The buttons after which a key is likely to mean the meeting. */
const TOGGLES = '[data-action=microphone], [data-action=camera]';

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
 * Calls `actions[name]` for each button with that `data-action`, and for its key; `talk` with true while the space bar is held.
 * @param {Record<string, () => unknown>} actions
 * @param {(isHeld: boolean) => void} talk
 */
export function listen(actions, talk) {
  for (const button of allHtml('[data-action]')) {
    button.addEventListener('click', (event) => {
      const popover = button.closest('[popover]');
      if (popover instanceof HTMLElement) popover.hidePopover();
      press(button.dataset.action ?? '');
      // Otherwise the space bar would press it again, for whoever used the mouse.
      if (event.detail > 0 && button.matches(TOGGLES)) button.blur();
    });
  }
  press = (action) => actions[action]();
  const switchBox = byId('shortcuts-on', HTMLInputElement);
  switchBox.checked = localStorage.getItem(SHORTCUTS) !== 'off';
  switchBox.addEventListener('change', () => localStorage.setItem(SHORTCUTS, switchBox.checked ? 'on' : 'off'));
  let isTalking = false;
  const hush = () => {
    if (isTalking) talk(false);
    isTalking = false;
  };
  addEventListener('keyup', ({ key }) => key === ' ' && hush());
  addEventListener('blur', hush);
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const { target } = event;
    const isTyping = target instanceof Element && target.closest('input:not([type=checkbox]), textarea, select, dialog');
    if (isTyping || !switchBox.checked || document.body.dataset.view !== 'room') return;
    if (event.key === ' ' && target instanceof Element && !target.closest(PRESSED_BY_SPACE)) {
      event.preventDefault();
      isTalking = true;
      talk(true);
      return;
    }
    const action = actions[KEYS[event.key.toLowerCase()]];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/**
 * Shows the current meaning and state of an action's buttons. The `name` of one with a state stays the same, and its state says the rest. A refusal is the reason that they are disabled.
 * @param {string} action
 * @param {{ label: string, name?: string, icon?: IconName, isPressed?: boolean, isWarning?: boolean, isPossible?: boolean, refusal?: string }} state
 */
export function showAction(action, { label, name = label, icon, isPressed, isWarning = false, isPossible = true, refusal = '' }) {
  for (const button of buttons(action)) {
    const shown = refusal || label;
    if (button instanceof HTMLButtonElement) button.disabled = Boolean(refusal);
    const text = button.querySelector('span');
    if (text) text.textContent = shown;
    else button.setAttribute('aria-label', refusal || name);
    button.title = refusal || withKey(label, button);
    // A label that names what a press does needs no state.
    if (isPressed !== undefined) button.setAttribute('aria-pressed', String(isPressed));
    button.classList.toggle('warned', isWarning);
    button.hidden = !isPossible;
    if (icon) setIcon(button, icon);
  }
}

/**
 * Returns a label with the key of its button, where there is a keyboard: a phone has none.
 * @param {string} label
 * @param {HTMLElement} button
 */
export function withKey(label, button) {
  const key = button.getAttribute('aria-keyshortcuts');
  return key && !matchMedia('(pointer: coarse)').matches ? `${label} (${key.toUpperCase()})` : label;
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
