// The dialog in which somebody reports a bug.

import { BASE } from './base.js';
import { byId } from './element.js';

/** `collect` gives what goes along: `{ roomName, identity, roomHistory, url }`. */
export function prepareReport(collect) {
  const dialog = byId('report');
  const form = byId('report-form');
  const problem = byId('report-problem');
  form.querySelector('[data-dismiss]').addEventListener('click', () => dialog.close());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    problem.hidden = true;
    const body = new FormData();
    body.set('description', byId('description').value);
    body.set('info', JSON.stringify(collect()));
    try {
      const answer = await fetch(`${BASE}api/bugReport`, { method: 'POST', body });
      if (!answer.ok) throw new Error(await answer.text());
      form.reset();
      form.hidden = true;
      byId('report-thanks').hidden = false;
      byId('report-thanks').querySelector('button').focus();
    } catch (error) {
      problem.textContent = `The report could not be sent: ${error.message}`;
      problem.hidden = false;
    }
  });
  return () => {
    form.hidden = false;
    byId('report-thanks').hidden = true;
    problem.hidden = true;
    dialog.showModal();
  };
}
