// The start page. Its forms work by themselves; this says who we are, and what a form was refused for.

import { BASE } from './base.js';
import { sendByItself } from './form.js';
import { ask } from './settings.js';

sendByItself('routes/_index');
const { username } = await ask(BASE, 'routes/_index');
document.getElementById('name').textContent = username;
document.getElementById('who').hidden = false;
