// What is loaded first. Whatever keeps the room's page from starting is told in the page.

import('./main.js').catch((error) => {
  if (document.body.dataset.view !== 'loading') throw error;
  const why = 'The room cannot be opened: the server does not answer, or this browser is too old.';
  document.getElementById('loading').textContent = error.name === 'Refusal' ? error.message : why;
  document.body.classList.add('failed');
});
