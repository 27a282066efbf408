// @ts-check
// The cluster: its nodes and the engine, as the node sees them that this page is of.

import { element } from '../element.js';
import { get } from './api.js';
import { counted, duration, figures, head, List, repeat, section, setText, time } from './view.js';

/** @import { View } from './view.js' */

/**
 * @typedef {object} ClusterNode
 * @property {boolean} alive
 * @property {boolean} draining
 * @property {string} id
 * @property {number | null} lastPulseSecondsAgo
 * @property {string} name
 * @property {number} owned
 * @property {number} relayed
 * @property {boolean} sameSecret
 * @property {number} sockets
 * @property {boolean} this
 * @property {string} version
 */

const PAUSE = 1_000;

/** @type {View} */
export const cluster = {
  title: 'Cluster',
  show(place, _, signal) {
    const note = element('span', { class: 'quiet' });
    const engine = element('p');
    const changes = figures(['Taken from dead nodes', 'Handed over', 'Fenced', 'Reconnects to the engine']);
    /** @type {List<ClusterNode, ReturnType<typeof row>>} */
    const nodes = new List('', (node) => node.id, row);
    const all = element('div', { hidden: true }, section('Engine', engine, changes.element), section('Nodes', nodes.element));
    place.append(head('Cluster', note), all);
    void repeat(signal, PAUSE, async () => {
      const found = await get('/admin/cluster', signal);
      all.hidden = !found.clustered;
      if (!found.clustered) {
        setText(note, 'This server is a single node.');
        return;
      }
      /** @type {ClusterNode[]} */
      const rows = found.nodes;
      const alive = rows.filter((node) => node.alive && node.sameSecret).length;
      setText(note, `${alive} of ${counted(rows.length, 'node')} alive`);
      const { status, since, server, version, reconnects } = found.engine;
      const text = `${server} ${version}, ${status} since `;
      if (engine.dataset.shown !== text + since) {
        engine.dataset.shown = text + since;
        engine.replaceChildren(text, time(since));
        engine.classList.toggle('warning', status === 'away');
      }
      changes.show([found.takeovers.died, found.takeovers.handedOver, found.fenced, reconnects].map(String));
      nodes.show(rows);
    });
  },
};

/** @param {ClusterNode} node */
function row(node) {
  const facts = element('span', { class: 'quiet' });
  const state = element('span', { class: 'pill' });
  const name = element('strong', {}, node.name || node.id);
  return {
    element: element('li', {}, element('div', { class: 'lead' }, name, facts), state),
    /** @param {ClusterNode} node */
    update({ alive, draining, id, lastPulseSecondsAgo, owned, relayed, sameSecret, sockets, this: isThis, version }) {
      const pulse = isThis ? 'this node' : `pulse ${duration(lastPulseSecondsAgo ?? 0)} ago`;
      const rooms = `${counted(owned, 'room')} owned, ${relayed} relayed, ${counted(sockets, 'socket')}`;
      setText(facts, `${id} · ${pulse} · ${rooms} · ${version}`);
      setText(state, sameSecret ? (alive ? (draining ? 'leaving' : 'alive') : 'gone') : 'other secret');
      state.classList.toggle('good', sameSecret && alive && !draining);
      state.classList.toggle('bad', !sameSecret || !alive);
    },
  };
}
