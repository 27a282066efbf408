// The start page. Its forms work by themselves; this only says who we are.

import { ask } from './settings.js';

const { username } = await ask('/', 'routes/_index');
document.getElementById('name').textContent = username;
document.getElementById('who').hidden = false;
