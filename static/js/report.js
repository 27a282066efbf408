// @ts-check
// The dialog for a bug report.

import { BASE } from './base.js';
import { byId, within } from './element.js';
import { sentence } from './settings.js';
import { text } from './texts.js';

/** @import { User } from './signalling.js' */

/**
 * Prepares the dialog and returns a function that opens it; `collect` returns the context that a report includes.
 * @param {() => { roomName: string, identity?: User, roomHistory?: object, url: string }} collect
 */
export function prepareReport(collect) {
  const dialog = byId('report', HTMLDialogElement);
  const form = byId('report-form', HTMLFormElement);
  const thanks = byId('report-thanks');
  const problem = byId('report-problem');
  within(form, '[data-dismiss]', HTMLElement).addEventListener('click', () => dialog.close());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    problem.hidden = true;
    const body = new FormData();
    body.set('description', byId('description', HTMLTextAreaElement).value);
    body.set('info', JSON.stringify(collect()));
    try {
      const answer = await fetch(`${BASE}api/bugReport`, { method: 'POST', body });
      if (!answer.ok) throw new Error(await sentence(answer));
      form.reset();
      form.hidden = true;
      thanks.hidden = false;
      within(thanks, 'button', HTMLButtonElement).focus();
    } catch (error) {
      problem.textContent = text('report.failed', { problem: error instanceof Error ? error.message : String(error) });
      problem.hidden = false;
    }
  });
  return () => {
    form.hidden = false;
    thanks.hidden = true;
    problem.hidden = true;
    dialog.showModal();
  };
}
