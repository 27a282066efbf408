// @ts-check
// Loads the room's page, and shows an error that keeps it from starting.

// Its request is under way while the other modules load.
const texts = import('./texts.js');
const failed = texts.then(
  ({ text }) => text('loading.failed'),
  () => 'The room cannot be opened: the server does not answer, or this browser is too old.',
);
import('./main.js').catch(async (error) => {
  if (document.body.dataset.view !== 'loading') throw error;
  const problem = await failed;
  // No static imports: a module that cannot be loaded is one of the errors.
  const shown = /** @type {HTMLElement} */ (document.getElementById('loading'));
  shown.textContent = error.name === 'Refusal' ? error.message : problem;
  document.body.classList.add('failed');
});

export {};
