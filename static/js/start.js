// @ts-check
// The start page. Its forms work without this module, which shows the user's name, and a refusal in place.

import { BASE } from './base.js';
import { byId } from './element.js';
import { submitInPlace } from './form.js';
import { ask } from './settings.js';

submitInPlace('routes/_index');
const { username } = await ask(BASE, 'routes/_index');
byId('name').textContent = username;
byId('who').hidden = false;
