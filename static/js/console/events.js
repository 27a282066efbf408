// @ts-check
// The stream of events of rooms, which resumes after a break.

import { element } from '../element.js';
import { withdrawNotice } from '../notices.js';
import { stream } from './api.js';
import { head, run } from './view.js';

/** @import { View } from './view.js' */

const MAX_LINES = 300;

/** Pause before the stream is opened again; the server ends it every few minutes. */
const PAUSE = 1_000;

/** Maximum characters of an unfinished event. */
const MAX_EVENT = 4_000_000;

/** @type {View} */
export const events = {
  title: 'Events',
  show(place, _, signal) {
    const lines = element('ol', { class: 'log', reversed: true, role: 'log', 'aria-label': 'Events' });
    const hint = element('p', { class: 'quiet' }, 'From the moment this view is open; the newest comes first.');
    place.append(head('Events'), hint, lines);
    let lastId = '';
    const read = async () => {
      const reader = (await stream('/admin/events', lastId, signal)).getReader();
      withdrawNotice('view');
      let text = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        text += value;
        const blocks = text.split('\n\n');
        text = blocks.pop() ?? '';
        if (text.length > MAX_EVENT) throw new Error('an event is too long');
        for (const block of blocks) {
          const field = (/** @type {string} */ name) =>
            block.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
          const data = field('data');
          if (data) lines.prepend(line(JSON.parse(data)));
          while (lines.childElementCount > MAX_LINES) lines.lastElementChild?.remove();
          lastId = field('id') ?? lastId;
        }
      }
    };
    void follow(signal, read);
  },
};

/**
 * Reads one stream after the other.
 * @param {AbortSignal} signal
 * @param {() => Promise<void>} read
 */
async function follow(signal, read) {
  while (!signal.aborted) {
    await run(signal, read);
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

/** @param {{ time: string, type: string, room: string | null, data: Record<string, any> }} event */
function line(event) {
  const at = new Date(event.time);
  const parts = Object.entries(event.data).flatMap(([key, value]) => {
    if (value === null) return [];
    if (key === 'member') return [`${value.name} (${value.id})`];
    return [`${key}: ${typeof value === 'object' ? JSON.stringify(value) : value}`];
  });
  const room = event.room === null ? undefined : element('a', { href: `#/rooms/${encodeURIComponent(event.room)}` }, event.room);
  return element(
    'li',
    {},
    element('time', { datetime: event.time, title: event.time }, at.toLocaleTimeString()),
    element('b', {}, event.type),
    room,
    ` ${parts.join(' · ')}`,
  );
}
