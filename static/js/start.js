// @ts-check
// The start page. Its forms work without this module, which shows the user's name, and a refusal in place.

import { byId } from './element.js';
import { submitInPlace } from './form.js';
import { ask } from './settings.js';

submitInPlace();
const { username } = await ask('api/user');
byId('name').textContent = username;
byId('who').hidden = false;
