// @ts-check
// Changing our own name during a meeting: the server knows it by the cookie, and the room by a new socket.

import { BASE } from './base.js';
import { byId } from './element.js';
import { sentence } from './settings.js';
import { text } from './texts.js';

/** @import { Signalling } from './signalling.js' */

/**
 * Returns a function that opens the dialog with the present name.
 * @param {Signalling} signalling
 * @param {AbortSignal} signal
 */
export function offerRename(signalling, signal) {
  const dialog = byId('own-name-dialog', HTMLDialogElement);
  const field = byId('own-name', HTMLInputElement);
  const problem = byId('own-name-problem');
  const rename = async () => {
    problem.hidden = true;
    try {
      const body = new URLSearchParams({ username: field.value });
      // Its redirect leads to another page, which is not needed here.
      const answer = await fetch(`${BASE}set-username`, { method: 'POST', body, redirect: 'manual' });
      if (answer.type === 'opaqueredirect') {
        dialog.close();
        signalling.renew();
        return;
      }
      problem.textContent = await sentence(answer);
    } catch {
      problem.textContent = text('server.unreachable');
    }
    problem.hidden = false;
  };
  byId('own-name-form').addEventListener(
    'submit',
    (event) => {
      event.preventDefault();
      rename();
    },
    { signal },
  );
  return (/** @type {string} */ name) => {
    problem.hidden = true;
    field.value = name;
    dialog.showModal();
    field.select();
  };
}
