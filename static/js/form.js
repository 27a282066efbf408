// A form whose refusal is told beside it without leaving the page. Without this it works as every form
// does: the server answers with the page once more, with the same sentence at the same place.

import { element } from './element.js';
import { Refusal, send } from './settings.js';

/** Sends the page's form to the action of a route. */
export function sendByItself(route) {
  const form = document.querySelector('form');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    document.getElementById('problem')?.remove();
    try {
      await send(form, route);
    } catch (error) {
      tell(form, error instanceof Refusal ? error.message : 'The server does not answer. Try again.');
    }
  });
}

function tell(form, why) {
  document.getElementById('problem')?.remove();
  form.querySelector('button').before(element('p', { class: 'warning', id: 'problem', role: 'alert' }, why));
}
