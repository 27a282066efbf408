// @ts-check
// The console: signing in and out, and the views by the address's fragment.

import { allHtml, byId, element } from '../element.js';
import { withdrawAllNotices } from '../notices.js';
import { get, onSignedOut, post, Refusal, remove } from './api.js';
import { cluster } from './cluster.js';
import { events } from './events.js';
import { health, readiness } from './health.js';
import { media, mediaSession } from './media.js';
import { object, objects } from './objects.js';
import { report, reports } from './reports.js';
import { room } from './room.js';
import { rooms } from './rooms.js';
import { settings } from './settings.js';
import { tokens } from './tokens.js';
import { repeat, sentence } from './view.js';
import { webhooks } from './webhooks.js';

/** @import { View } from './view.js' */

/** The views by their name in the fragment, in the order of their links. @type {Record<string, View>} */
const VIEWS = { rooms, media, events, reports, webhooks, tokens, objects, settings, cluster, health };

/** The views of one thing, whose name follows. @type {Record<string, View>} */
const DETAILS = { rooms: room, media: mediaSession, reports: report, objects: object };

const STATUS_PAUSE = 5_000;

/** Ends the view that is shown. */
let ending = new AbortController();
/** Ends the session's own tasks. */
let session = new AbortController();

function route() {
  const [, name = '', argument = ''] = location.hash.split('/');
  const view = (argument && DETAILS[name]) || VIEWS[name] || rooms;
  ending.abort();
  ending = new AbortController();
  withdrawAllNotices();
  const place = byId('view');
  place.replaceChildren();
  for (const link of allHtml('nav a')) {
    const isCurrent = link.getAttribute('href') === `#/${name || 'rooms'}`;
    if (isCurrent) {
      link.setAttribute('aria-current', 'page');
      link.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    } else link.removeAttribute('aria-current');
  }
  view.show(place, decoded(argument), ending.signal);
}

/** @param {string} argument */
function decoded(argument) {
  try {
    return decodeURIComponent(argument);
  } catch {
    return argument;
  }
}

/** @param {{ role: string, version: string }} shown */
function open({ role, version }) {
  document.body.dataset.view = 'console';
  document.body.dataset.role = role;
  byId('role').textContent = `${role}, ${version}`;
  session = new AbortController();
  void repeat(session.signal, STATUS_PAUSE, async () => {
    const { status } = await readiness(session.signal);
    const shown = byId('status');
    if (shown.textContent !== status) shown.textContent = status;
    shown.className = `pill ${status === 'ready' ? 'good' : 'bad'}`;
  });
  route();
}

function close() {
  session.abort();
  ending.abort();
  byId('view').replaceChildren();
  document.body.dataset.view = 'login';
  document.title = 'Satsuma console';
  byId('token', HTMLInputElement).focus();
}

/** @param {SubmitEvent} event */
async function login(event) {
  event.preventDefault();
  const [token, problem] = [byId('token', HTMLInputElement), byId('login-problem')];
  problem.hidden = true;
  try {
    const shown = await post('/admin/session', { token: token.value });
    token.value = '';
    open(shown);
  } catch (error) {
    problem.textContent = error instanceof Refusal ? `${sentence(error)}.` : 'The server does not answer. Try again.';
    problem.hidden = false;
    token.select();
  }
}

async function logout() {
  try {
    await remove('/admin/session');
  } catch (error) {
    // A session that is over needs no end.
    if (!(error instanceof Refusal && error.status === 401)) throw error;
  }
  close();
}

for (const [name, view] of Object.entries(VIEWS)) byId('nav').append(element('a', { href: `#/${name}` }, view.title));
byId('login', HTMLFormElement).addEventListener('submit', login);
byId('logout').addEventListener('click', () => void logout());
addEventListener('hashchange', () => {
  if (document.body.dataset.view !== 'console') return;
  route();
  byId('view').focus();
});
onSignedOut(() => {
  if (document.body.dataset.view === 'console') close();
});

const shown = await get('/admin/session').catch(() => ({ role: null }));
if (shown.role) open(shown);
else close();
