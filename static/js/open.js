// Loads the room's page, and shows in it what keeps it from starting.

import('./main.js').catch((error) => {
  if (document.body.dataset.view !== 'loading') throw error;
  const why = 'The room cannot be opened: the server does not answer, or this browser is too old.';
  document.getElementById('loading').textContent = error.name === 'Refusal' ? error.message : why;
  document.body.classList.add('failed');
});
