// @ts-check
// The sessions of the embedded media server, with what flows over time.

import { element } from '../element.js';
import { get, Refusal } from './api.js';
import { chart } from './chart.js';
import { MediaLog, SAMPLES } from './media-log.js';
import { counted, duration, figures, head, List, repeat, section, setText } from './view.js';

/** @import { MediaReport, SessionReport, TrackReport } from './media-log.js' */
/** @import { View } from './view.js' */

/** A subscription, with its track. @typedef {TrackReport['subscribers'][number] & { track: TrackReport }} Subscription */

const PAUSE = 2_000;

/** Rates since the first of these views was opened, while one of them is. */
const log = new MediaLog();

/** @type {View} */
export const media = {
  title: 'Media',
  show(place, _, signal) {
    const all = figures(['Sessions', 'Tracks', 'Received', 'Sent', 'Lost packets']);
    /** @type {List<SessionReport, ReturnType<typeof sessionRow>>} */
    const list = new List('No media session is open.', (session) => session.id, sessionRow);
    place.append(head('Media'), all.element, section('Sessions', list.element));
    watch(place, signal, (report) => {
      const last = report.sessions.map((session) => log.session(session.id).at(-1));
      const sum = (/** @type {'received' | 'sent' | 'lost'} */ rate) => last.reduce((sum, sample) => sum + (sample?.[rate] ?? 0), 0);
      all.show([
        String(report.sessions.length),
        String(report.tracks.length),
        bits(sum('received')),
        bits(sum('sent')),
        perSecond(sum('lost')),
      ]);
      list.show(report.sessions);
    });
  },
};

/** @type {View} */
export const mediaSession = {
  title: 'Media',
  show(place, id, signal) {
    const facts = element('span', { class: 'quiet' });
    const flow = chart('Media', SAMPLES, bits);
    const loss = chart('Lost packets', SAMPLES, perSecond);
    /** @type {List<TrackReport, ReturnType<typeof trackRow>>} */
    const published = new List('It publishes nothing.', (track) => track.name, trackRow);
    /** @type {List<Subscription, ReturnType<typeof subscriptionRow>>} */
    const received = new List('It subscribes to nothing.', ({ mid, track }) => `${mid} ${track.session} ${track.name}`, subscriptionRow);
    place.append(
      element('a', { href: '#/media' }, '← All sessions'),
      head(`Session ${id}`, facts),
      element('div', { class: 'charts' }, flow.element, loss.element),
      section('Published tracks', published.element),
      section('Subscriptions', received.element),
    );
    watch(place, signal, (report) => {
      const session = report.sessions.find((session) => session.id === id);
      setText(facts, session ? about(session) : 'This session is over.');
      const samples = log.session(id);
      flow.show([
        { name: 'received from it', values: samples.map(({ received }) => received) },
        { name: 'sent to it', values: samples.map(({ sent }) => sent) },
        { name: 'estimated bandwidth', values: samples.map(({ estimate }) => estimate) },
      ]);
      loss.show([{ name: 'of those sent to it', values: samples.map(({ lost }) => lost) }]);
      published.show(report.tracks.filter((track) => track.session === id));
      const own = report.tracks.flatMap((track) =>
        track.subscribers.filter(({ session }) => session === id).map((subscriber) => ({ ...subscriber, track })),
      );
      received.show(own);
    });
  },
};

/**
 * Asks for reports while the view is shown.
 * @param {HTMLElement} place
 * @param {AbortSignal} signal
 * @param {(report: MediaReport) => void} show
 */
function watch(place, signal, show) {
  void repeat(signal, PAUSE, async () => {
    try {
      const report = await get('/admin/sfu', signal);
      log.add(report, performance.now());
      show(report);
    } catch (error) {
      if (!(error instanceof Refusal && error.status === 404)) throw error;
      place.replaceChildren(
        head('Media'),
        element('p', { class: 'empty' }, 'The embedded media server is not in use: another one carries the media (calls.upstream).'),
      );
    }
  });
}

/** @param {SessionReport} session */
function sessionRow(session) {
  const name = element('a', { href: `#/media/${encodeURIComponent(session.id)}`, class: 'mono' }, session.id);
  const facts = element('span', { class: 'quiet' });
  const state = element('span', { class: 'pill' });
  const flow = chart('Media', SAMPLES, bits);
  const loss = chart('Lost packets', SAMPLES, perSecond);
  return {
    element: element('li', {}, element('div', { class: 'lead' }, name, facts), state, element('div', { class: 'charts' }, flow.element, loss.element)),
    /** @param {SessionReport} session */
    update(session) {
      setText(facts, about(session));
      setText(state, session.state);
      state.className = `pill ${session.state === 'connected' ? 'good' : session.state === 'lost' ? 'bad' : ''}`;
      const samples = log.session(session.id);
      flow.show([
        { name: 'received', values: samples.map(({ received }) => received) },
        { name: 'sent', values: samples.map(({ sent }) => sent) },
      ]);
      loss.show([{ name: 'lost', values: samples.map(({ lost }) => lost) }]);
    },
  };
}

/** @param {SessionReport} session */
function about(session) {
  const estimate = session.estimate_bits === null ? '' : ` · ${bits(session.estimate_bits)} estimated`;
  const tracks = `publishes ${session.publishes}, subscribes to ${session.subscribes}`;
  return `${session.owner} · ${session.state} · ${duration(session.age_seconds)} · ${tracks}${estimate}`;
}

/** @param {TrackReport} track */
function trackRow(track) {
  const facts = element('span', { class: 'quiet' });
  const layers = chart('Layers', SAMPLES, bits);
  return {
    element: element(
      'li',
      {},
      element('div', { class: 'lead' }, element('strong', { class: 'mono' }, track.name), facts),
      element('div', { class: 'charts' }, layers.element),
    ),
    /** @param {TrackReport} track */
    update(track) {
      const paused = track.subscribers.filter(({ paused }) => paused).length;
      const subscribers = counted(track.subscribers.length, 'subscriber') + (paused ? `, ${paused} of them paused` : '');
      setText(facts, [track.kind, track.codec, subscribers].filter(Boolean).join(' · '));
      layers.show(
        track.layers.map(({ rid, live }) => ({
          name: (rid ?? track.kind) + (live ? '' : ' (off)'),
          values: log.layer(track, rid),
        })),
      );
    },
  };
}

/** @param {Subscription} subscription */
function subscriptionRow({ track, mid }) {
  const facts = element('span', { class: 'quiet' });
  const layer = element('span', { class: 'pill' });
  const from = element('a', { href: `#/media/${encodeURIComponent(track.session)}`, class: 'mono' }, `${track.session} / ${track.name}`);
  return {
    element: element('li', {}, element('div', { class: 'lead' }, from, facts), layer),
    /** @param {Subscription} now */
    update({ track, rid, paused, packets }) {
      setText(facts, `${track.kind} · transceiver ${mid} · ${counted(packets, 'packet')}`);
      setText(layer, paused ? 'paused: no bandwidth' : rid === null ? track.kind : `layer ${rid}`);
      layer.classList.toggle('bad', paused);
    },
  };
}

/** @param {number} bits */
function bits(bits) {
  if (bits < 1000) return `${bits.toFixed(0)} bit/s`;
  if (bits < 1_000_000) return `${(bits / 1000).toFixed(0)} kbit/s`;
  return `${(bits / 1_000_000).toFixed(1)} Mbit/s`;
}

/** @param {number} rate */
function perSecond(rate) {
  return `${rate < 10 ? rate.toFixed(1) : rate.toFixed(0)}/s`;
}
