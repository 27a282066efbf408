// @ts-check
// Questions before something that cannot be undone.

import { element } from '../element.js';

/**
 * Asks, with further fields; the promise is the form's data, or null.
 * @param {string} title
 * @param {string} confirm the text of the button
 * @param {(Node | string)[]} fields
 * @returns {Promise<FormData | null>}
 */
export function question(title, confirm, ...fields) {
  return new Promise((resolve) => {
    const cancel = element('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel');
    const form = element(
      'form',
      {},
      element('h2', { id: 'question' }, title),
      ...fields,
      element('div', { class: 'actions' }, cancel, element('button', { class: 'danger', type: 'submit' }, confirm)),
    );
    const dialog = element('dialog', { 'aria-labelledby': 'question' }, form);
    /** @type {FormData | null} */
    let answer = null;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      answer = new FormData(form);
      dialog.close();
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * A labelled field.
 * @param {string} label
 * @param {HTMLElement} field
 */
export function labelled(label, field) {
  field.id ||= `field-${field.getAttribute('name')}`;
  return element('div', {}, element('label', { for: field.id }, label), field);
}

/**
 * A choice; the first one is the default.
 * @param {string} name
 * @param {[string, string][]} options values and texts
 */
export function choice(name, options) {
  return element('select', { name }, ...options.map(([value, text]) => element('option', { value }, text)));
}

/**
 * @param {string} name
 * @param {string} label
 */
export function check(name, label) {
  return element('label', { class: 'check' }, element('input', { type: 'checkbox', name }), label);
}
