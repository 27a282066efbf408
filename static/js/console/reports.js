// @ts-check
// Users' reports, and one of them with its history.

import { element } from '../element.js';
import { get, path } from './api.js';
import { choice, labelled } from './dialog.js';
import { pages } from './pages.js';
import { bytes, counted, head, run, section, time } from './view.js';

/** @import { View } from './view.js' */

/**
 * @typedef {object} ReportSummary
 * @property {string} id
 * @property {string} created
 * @property {string} kind
 * @property {string} name
 * @property {string} identity
 * @property {string | null} room
 * @property {string | null} meetingId
 * @property {string} description
 * @property {number} bytes
 * @property {number} cutEntries
 * @property {{ state: string, attempts: number, lastError: string | null } | null} delivery
 */

/** Entries of a list in the history that are shown at first. */
const FIRST_ENTRIES = 200;

/** @type {View} */
export const reports = {
  title: 'Reports',
  show(place, _, signal) {
    const kind = choice('kind', [['', 'all'], ['bug', 'bug reports'], ['dead_track', 'dead tracks']]);
    const room = element('input', { name: 'room', type: 'search', autocomplete: 'off' });
    const list = pages(signal, 'There is no report.', reportRow, async (next) => {
      const query = new URLSearchParams({ limit: '50' });
      if (kind.value) query.set('kind', kind.value);
      if (room.value.trim()) query.set('room', room.value.trim());
      if (next !== null) query.set('before', String(next));
      const page = await get(`/admin/reports?${query}`, signal);
      return { items: /** @type {ReportSummary[]} */ (page.reports), next: page.next };
    });
    const filter = element('form', { class: 'line-form' }, labelled('Kind', kind), labelled('Room', room), element('button', { type: 'submit' }, 'Show'));
    filter.addEventListener('submit', (event) => {
      event.preventDefault();
      void list.restart();
    });
    kind.addEventListener('change', () => void list.restart());
    const counts = element('div');
    place.append(head('Reports'), filter, section('Newest first', list.element), section('Calls by day', counts));
    void list.restart();
    void run(signal, async () => counts.append(countsTable((await get('/admin/feedback', signal)).days)));
  },
};

/** @param {ReportSummary} report */
function reportRow(report) {
  const summary = report.description || (report.kind === 'dead_track' ? 'A track brought nothing.' : 'No description.');
  const short = summary.length > 160 ? `${summary.slice(0, 160)}…` : summary;
  const link = element('a', { href: `#/reports/${report.id}` }, short);
  const facts = element('span', { class: 'quiet' }, report.name, ' · ', report.room ?? 'no room', ' · ', time(report.created));
  return element('li', {}, element('div', { class: 'lead' }, link, facts), element('span', { class: 'pill' }, report.kind.replace('_', ' ')));
}

/** @param {{ day: string, version: string, refreshes: number, callsWithIssues: number, callsWithoutIssues: number }[]} days */
function countsTable(days) {
  if (!days.length) return element('p', { class: 'empty' }, 'No call was rated yet.');
  const rows = days.map((day) => {
    const good = `${day.callsWithoutIssues} good, ${day.callsWithIssues} with issues, ${counted(day.refreshes, 'refresh', 'refreshes')}`;
    return element('li', {}, element('div', { class: 'lead' }, element('strong', {}, day.day), element('span', { class: 'quiet' }, `version ${day.version}`)), good);
  });
  return element('ul', { class: 'rows' }, ...rows);
}

/** @type {View} */
export const report = {
  title: 'Reports',
  show(place, id, signal) {
    place.append(element('a', { href: '#/reports' }, '← All reports'));
    void run(signal, async () => {
      const { report, history } = await get(path('reports', id), signal);
      const { delivery } = report;
      const facts = /** @type {[string, Node | string][]} */ ([
        ['When', time(report.created)],
        ['Who', `${report.name} (${report.identity})`],
        ['Room', report.room ?? 'not known'],
        ['Meeting', report.meetingId ?? 'not known'],
        ['Browser', report.userAgent || 'not told'],
        ['Page', report.url || 'not told'],
        ['Size', bytes(report.bytes) + (report.cutEntries ? `; ${counted(report.cutEntries, 'entry', 'entries')} left out` : '')],
        ['Webhook', delivery ? `${delivery.state}, ${counted(delivery.attempts, 'attempt')}${delivery.lastError ? `: ${delivery.lastError}` : ''}` : 'none'],
      ]);
      place.append(
        head(report.kind === 'dead_track' ? 'Dead track' : 'Bug report'),
        element('p', { class: 'description' }, report.description || 'No description.'),
        element('dl', { class: 'facts' }, ...facts.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)])),
        ...historySections(history),
      );
    });
  },
};

/** @param {unknown} history */
function historySections(history) {
  if (typeof history !== 'object' || history === null || Array.isArray(history)) {
    return [section('History', entries(Array.isArray(history) ? history : [history]))];
  }
  const parts = Object.entries(history);
  const lists = parts.filter(([, part]) => Array.isArray(part));
  const others = Object.fromEntries(parts.filter(([, part]) => !Array.isArray(part)));
  const sections = lists.map(([name, list]) => section(`${name} (${list.length})`, entries(list)));
  if (Object.keys(others).length) sections.push(section(lists.length ? 'More' : 'Report', element('pre', { tabindex: '0' }, readable(others))));
  return sections;
}

/** @param {unknown[]} list */
function entries(list) {
  if (!list.length) return element('p', { class: 'empty' }, 'Empty.');
  const rows = element('ol', { class: 'entries' });
  let shown = 0;
  const more = element('button', { type: 'button', class: 'small', onclick: () => show(list.length) });
  /** @param {number} count */
  const show = (count) => {
    rows.append(...list.slice(shown, count).map(entry));
    shown = Math.min(count, list.length);
    more.hidden = shown >= list.length;
    more.textContent = `Show ${list.length - shown} more`;
  };
  show(FIRST_ENTRIES);
  return element('div', {}, rows, more);
}

/** @param {unknown} value */
function entry(value) {
  const body = element('details', {}, element('summary', {}, summary(value)));
  // Text of megabytes is laid out only when somebody looks at it.
  body.addEventListener('toggle', () => body.append(element('pre', { tabindex: '0' }, readable(value))), { once: true });
  return element('li', {}, body);
}

/**
 * An entry on a line: its simple values, the telling ones first.
 * @param {unknown} value
 */
function summary(value) {
  if (typeof value !== 'object' || value === null) return shortened(String(value));
  const first = ['timestamp', 'time', 'type', 'method', 'endpoint', 'status', 'errorCode'];
  const fields = Object.entries(value).filter(([, field]) => field !== null && typeof field !== 'object');
  const rank = (/** @type {string} */ name) => (first.includes(name) ? first.indexOf(name) : first.length);
  fields.sort(([a], [b]) => rank(a) - rank(b));
  const texts = fields.map(([name, field]) => {
    const isTime = (name === 'timestamp' || name === 'time') && typeof field === 'number' && field > 1e12;
    if (isTime) return new Date(field).toLocaleTimeString();
    return first.includes(name) ? shortened(String(field)) : `${name}: ${shortened(String(field))}`;
  });
  return texts.slice(0, 6).join(' · ') || shortened(JSON.stringify(value));
}

/** @param {string} text */
function shortened(text) {
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

/**
 * JSON with the line breaks of session descriptions.
 * @param {unknown} value
 */
export function readable(value) {
  return JSON.stringify(value, null, 2).replaceAll('\\r\\n', '\n      ').replaceAll('\\n', '\n      ');
}
