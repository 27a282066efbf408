// @ts-check
// Access tokens: a form that makes one, with the link that opens its room.

import { element } from '../element.js';
import { notice } from '../notices.js';
import { get, post, Refusal } from './api.js';
import { check, choice, labelled, question } from './dialog.js';
import { act, button, head, List, run, section, sentence, time } from './view.js';

/** @import { Setting } from './settings.js' */
/** @import { View } from './view.js' */

/** Rights beside those of a participant. @type {[string, string][]} */
const GRANTS = [
  ['create', 'Start a meeting'],
  ['moderate', 'Moderate'],
  ['hidden', 'Not shown to members'],
  ['agent', 'Act for a program'],
];

/** @type {View} */
export const tokens = {
  title: 'Tokens',
  show(place, _, signal) {
    const made = element('div');
    const problem = element('p', { class: 'warning', role: 'alert', hidden: true });
    const form = element(
      'form',
      { class: 'stack' },
      element(
        'div',
        { class: 'line-form' },
        labelled('Room, or its beginning and *', element('input', { name: 'room', required: true, maxlength: '128', autocomplete: 'off' })),
        labelled('Name that others see', element('input', { name: 'name', required: true, maxlength: '64', autocomplete: 'off' })),
      ),
      element(
        'div',
        { class: 'line-form' },
        labelled('Identity; a random one if empty', element('input', { name: 'identity', maxlength: '128', autocomplete: 'off' })),
        labelled('Valid for', choice('valid', [['1h', 'an hour'], ['10m', '10 minutes'], ['4h', '4 hours'], ['24h', 'a day']])),
      ),
      element('fieldset', { class: 'actions' }, element('legend', {}, 'Rights beside those of a participant'), ...GRANTS.map(([name, text]) => check(name, text))),
      problem,
      element('div', {}, element('button', { class: 'primary', type: 'submit' }, 'Make a token')),
    );
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      problem.hidden = true;
      const data = new FormData(form);
      const text = (/** @type {string} */ name) => String(data.get(name) ?? '').trim();
      const grants = Object.fromEntries(GRANTS.filter(([name]) => data.has(name)).map(([name]) => [name, true]));
      const identity = text('identity');
      const request = { room: text('room'), name: text('name'), valid: text('valid'), grants, ...(identity ? { identity } : {}) };
      try {
        const minted = await post('/admin/tokens', request);
        if (!signal.aborted) made.replaceChildren(shown(minted));
      } catch (error) {
        problem.textContent = sentence(error);
        problem.hidden = false;
      }
    });
    const viewers = element('p', { class: 'empty viewers' }, 'Viewers make no tokens.');
    const making = element('div', { hidden: true }, element('div', { class: 'change' }, form, made), viewers);
    const keyless = element('p', { class: 'empty', hidden: true }, 'No token can be made here: there is no key in auth.keys.');
    place.append(head('Tokens'), making, keyless, revocations(signal));
    void run(signal, async () => {
      /** @type {Setting[]} */
      const all = (await get('/admin/settings', signal)).settings;
      const keys = all.find(({ key }) => key === 'auth.keys')?.value;
      making.hidden = !Array.isArray(keys) || keys.length === 0;
      keyless.hidden = !making.hidden;
    });
  },
};

/**
 * The revocations in force, with a form for a further one.
 * @param {AbortSignal} signal
 */
function revocations(signal) {
  /** @type {List<Revocation, ReturnType<typeof revocationRow>>} */
  const list = new List('No token is revoked.', (revocation) => JSON.stringify(revocation), revocationRow);
  const load = () =>
    run(signal, async () => {
      try {
        list.show((await get('/admin/tokens/revocations', signal)).revocations);
        form.hidden = false;
      } catch (error) {
        // Without keys there is nothing to revoke.
        if (!(error instanceof Refusal && error.status === 404)) throw error;
        list.show([]);
      }
    });
  const identity = element('input', { name: 'revoked', maxlength: '128', autocomplete: 'off' });
  const key = element('input', { name: 'key', maxlength: '64', autocomplete: 'off' });
  const form = element(
    'form',
    { class: 'line-form change', hidden: true },
    labelled('Identity; of anybody if empty', identity),
    labelled('Id of the key; of any if empty', key),
    element('button', { class: 'danger', type: 'submit' }, 'Revoke'),
  );
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const [whose, which] = [identity.value.trim() || null, key.value.trim() || null];
    const title = `Revoke all tokens ${whose ? `of ${whose}` : 'of anybody'}${which ? ` by the key ${which}` : ''}?`;
    const hint = element('p', {}, 'Those that were issued until now open nothing any more, and their holders are disconnected.');
    if (!(await question(title, 'Revoke', hint))) return;
    if (await act(() => post('/admin/tokens/revoke', { identity: whose, key: which }), 'The tokens are revoked.')) form.reset();
    await load();
  });
  void load();
  return section('Revoked', form, list.element);
}

/** @typedef {{ at: string, until: string, identity: string | null, key: string | null }} Revocation */

/** @param {Revocation} revocation */
function revocationRow({ at, until, identity, key }) {
  const facts = element('span', { class: 'quiet' }, `${key ? `key ${key}` : 'any key'} · issued until `, time(at), ' · in force until ', time(until));
  return { element: element('li', {}, element('div', { class: 'lead' }, element('strong', {}, identity ?? 'anybody'), facts)), update() {} };
}

/** @param {{ token: string, link: string | null, expires: string }} minted */
function shown({ token, link, expires }) {
  const rows = [...(link ? [copied('Link', link)] : []), copied('Token', token)];
  const expiry = element('p', { class: 'quiet' }, 'It expires ', time(expires), '. It is shown this once.');
  return section('The token', element('div', { class: 'stack' }, ...rows, expiry));
}

/**
 * A text with a button that copies it.
 * @param {string} name
 * @param {string} text
 */
function copied(name, text) {
  const field = element('input', { name, readonly: true, value: text, class: 'mono' });
  const copy = button('Copy', async () => {
    try {
      await navigator.clipboard.writeText(text);
      notice(`${name} copied.`);
    } catch {
      // Without https the browser has no clipboard.
      field.select();
      notice('Press Ctrl-C to copy.');
    }
  });
  return element('div', { class: 'line-form' }, labelled(name, field), copy);
}
