// @ts-check
// The start page. Its forms work without this module, which shows the user's name, and a refusal in place.

import { BASE } from './base.js';
import { byId, element } from './element.js';
import { submitInPlace } from './form.js';
import { forgetRooms, recentRooms } from './recent.js';
import { ask } from './settings.js';

submitInPlace();
showRecent();
byId('forget').addEventListener('click', () => {
  forgetRooms();
  showRecent();
});
const { username, signOut } = await ask('api/user');
byId('name').textContent = username;
byId('who').hidden = false;
byId('sign-out').hidden = !signOut;

function showRecent() {
  const rooms = recentRooms();
  byId('recent').hidden = rooms.length === 0;
  byId('recent-rooms').replaceChildren(
    ...rooms.map((room) => element('li', {}, element('a', { href: BASE + encodeURIComponent(room), dir: 'auto' }, room))),
  );
}
