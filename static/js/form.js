// A form whose refusal is told beside it, where the one who wrote can mend it. Without this, it works
// as every form does, and leads to a page that says no more than the refusal.

import { byId } from './element.js';
import { Refusal, send } from './settings.js';

/** Sends the page's form to the action of a route. */
export function sendByItself(route) {
  const form = document.querySelector('form');
  const problem = byId('problem');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    problem.hidden = true;
    try {
      await send(form, route);
    } catch (error) {
      problem.textContent = error instanceof Refusal ? error.message : 'The server does not answer. Try again.';
      problem.hidden = false;
    }
  });
}
