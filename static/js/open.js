// What is loaded first. Whatever keeps the room's page from starting is told in the page.

import('./main.js').catch((error) => {
  if (document.body.dataset.view !== 'loading') throw error;
  document.getElementById('loading').textContent =
    error.name === 'Refusal' ? error.message : `The room cannot be opened: ${error.message}`;
  document.body.classList.add('failed');
});
