// @ts-check
// A form that shows its refusal without leaving the page. Without this module it works as every form does: the server
// answers with the page again, with the same sentence at the same place.

import { element, within } from './element.js';
import { Refusal, send } from './settings.js';
import { text } from './texts.js';

/** Sends the page's form. */
export function submitInPlace() {
  const form = within(document, 'form', HTMLFormElement);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    document.getElementById('problem')?.remove();
    try {
      await send(form);
    } catch (error) {
      showProblem(form, error instanceof Refusal ? error.message : text('form.unreachable'));
    }
  });
}

/**
 * @param {HTMLFormElement} form
 * @param {string} problem
 */
function showProblem(form, problem) {
  document.getElementById('problem')?.remove();
  const shown = element('p', { class: 'warning', id: 'problem', role: 'alert' }, problem);
  within(form, 'button', HTMLButtonElement).before(shown);
}
