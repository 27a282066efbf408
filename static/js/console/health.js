// @ts-check
// Health: readiness of the parts, load, and what was refused.

import { element } from '../element.js';
import { bytes, duration, figures, head, List, repeat, section, setText } from './view.js';

/** @import { View } from './view.js' */

const PAUSE = 3_000;

/**
 * The readiness, and its text.
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ status: string, [part: string]: unknown }>}
 */
export async function readiness(signal) {
  // 503 has the same form.
  const answer = await fetch('/readyz', { cache: 'no-store', signal });
  return answer.json();
}

/**
 * The samples of OpenMetrics text: name with labels, and value.
 * @param {string} text
 */
export function samples(text) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const line of text.split('\n')) {
    const space = line.lastIndexOf(' ');
    if (space > 0 && !line.startsWith('#')) found.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return found;
}

/** @type {[string, (read: (name: string) => number) => string][]} */
const FIGURES = [
  ['Running for', (read) => duration(Date.now() / 1000 - read('process_start_time_seconds'))],
  ['Sockets', (read) => String(read('satsuma_connections'))],
  ['Rooms', (read) => String(read('satsuma_rooms'))],
  ['Members', (read) => String(read('satsuma_members'))],
  ['Memory', (read) => bytes(read('process_resident_memory_bytes'))],
  ['Held for slow members', (read) => bytes(read('satsuma_outbox_bytes'))],
  ['Changes to store', (read) => String(read('satsuma_store_pending'))],
  ['Failures of the disk', (read) => String(read('satsuma_store_failures_total'))],
  ['Deliveries waiting', (read) => String(read('satsuma_deliveries_waiting'))],
  ['Deliveries given up', (read) => String(read('satsuma_deliveries_dead'))],
  ['Event streams', (read) => String(read('satsuma_event_streams'))],
  ['Log lines lost', (read) => String(read('satsuma_log_lines_dropped_total'))],
];

/** @type {View} */
export const health = {
  title: 'Health',
  show(place, _, signal) {
    const load = figures([...FIGURES.map(([name]) => name), 'Processor']);
    /** @typedef {[name: string, state: string, detail: string]} Part */
    /** @type {List<Part, ReturnType<typeof row>>} */
    const parts = new List('', ([name]) => name, row);
    /** @type {List<Part, ReturnType<typeof row>>} */
    const refusals = new List('Nothing was refused since the start.', ([name]) => name, row);
    place.append(
      head('Health'),
      section('Parts', parts.element),
      section('Load', load.element),
      section('Refused since the start', refusals.element),
    );
    /** @type {{ at: number, seconds: number } | undefined} */
    let before;
    void repeat(signal, PAUSE, async () => {
      const [ready, answer] = await Promise.all([readiness(signal), fetch('/metrics', { cache: 'no-store', signal })]);
      const found = samples(await answer.text());
      /** @param {string} name */
      const read = (name) => found.get(name) ?? 0;
      /** @type {Part[]} */
      const states = Object.entries(ready).map(([name, part]) => {
        if (typeof part === 'string') return [name === 'status' ? 'server' : name, part, ''];
        const { status = '?', error = '', since = '' } = /** @type {Record<string, string>} */ (part);
        return [name, status, error && `${error}, since ${since}`];
      });
      parts.show(states.sort(([a], [b]) => Number(b === 'server') - Number(a === 'server')));
      const now = { at: performance.now(), seconds: read('process_cpu_seconds_total') };
      const share = before && (100_000 * (now.seconds - before.seconds)) / (now.at - before.at);
      before = now;
      load.show([...FIGURES.map(([, text]) => text(read)), share === undefined ? '–' : `${Math.max(0, share).toFixed(0)} %`]);
      const refused = /** @type {Part[]} */ ([]);
      for (const [name, count] of found) {
        const reason = /^satsuma_refusals_total\{reason="(.*)"\}$/.exec(name)?.[1];
        if (reason && count > 0) refused.push([reason, String(count), '']);
      }
      refusals.show(refused.sort((a, b) => Number(b[1]) - Number(a[1])));
    });
  },
};

/** @param {[string, string, string]} part */
function row([name]) {
  const detail = element('span', { class: 'quiet' });
  const state = element('span', { class: 'pill' });
  return {
    element: element('li', {}, element('div', { class: 'lead' }, element('strong', {}, name), detail), state),
    /** @param {[string, string, string]} part */
    update([, text, more]) {
      setText(state, text);
      setText(detail, more);
      state.classList.toggle('good', ['ok', 'ready', 'connected'].includes(text));
      state.classList.toggle('bad', text === 'failing' || text === 'stopping' || text.startsWith('away'));
    },
  };
}
