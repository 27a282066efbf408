// The buttons and the keys that do the same.

import { byId } from './element.js';
import { setIcon } from './icons.js';

const KEYS = { m: 'microphone', v: 'camera', s: 'screen', h: 'hand', p: 'people', c: 'chat', '?': 'shortcuts' };
const SHORTCUTS = 'satsuma.shortcuts';

/** Calls `actions[name]` for each button with that `data-action`, and for its key. */
export function listen(actions) {
  for (const button of buttons('*')) {
    button.addEventListener('click', () => {
      button.closest('[popover]')?.hidePopover();
      actions[button.dataset.action]();
    });
  }
  const switchBox = byId('shortcuts-on');
  switchBox.checked = localStorage.getItem(SHORTCUTS) !== 'off';
  switchBox.addEventListener('change', () => localStorage.setItem(SHORTCUTS, switchBox.checked ? 'on' : 'off'));
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const isWriting = event.target.closest?.('input:not([type=checkbox]), textarea, select, dialog');
    if (isWriting || !switchBox.checked || document.body.dataset.view !== 'room') return;
    const action = actions[KEYS[event.key.toLowerCase()]];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Shows what the buttons of an action do now: `label`, `icon`, and whether they are on. */
export function showAction(action, { label, icon, isPressed, isWarning = false, isPossible = true }) {
  for (const button of buttons(action)) {
    const text = button.querySelector('span');
    if (text) text.textContent = label;
    else button.setAttribute('aria-label', label);
    button.title = label;
    button.setAttribute('aria-pressed', String(isPressed));
    button.classList.toggle('warned', isWarning);
    button.hidden = !isPossible;
    if (icon) setIcon(button, icon);
  }
}

/** All buttons of an action. */
export function buttons(action) {
  return document.querySelectorAll(action === '*' ? '[data-action]' : `[data-action="${action}"]`);
}
