// @ts-check
// Loads the room's page, and shows an error that keeps it from starting.

import('./main.js').catch((error) => {
  if (document.body.dataset.view !== 'loading') throw error;
  const problem = 'The room cannot be opened: the server does not answer, or this browser is too old.';
  // No imports: a module that cannot be loaded is one of the errors.
  const shown = /** @type {HTMLElement} */ (document.getElementById('loading'));
  shown.textContent = error.name === 'Refusal' ? error.message : problem;
  document.body.classList.add('failed');
});

export {};
