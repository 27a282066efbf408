// @ts-check
// Lists to choose a camera and a microphone from.

import { element } from './element.js';
import { text } from './texts.js';

/** @import { Devices } from './devices.js' */

const LISTS = /** @type {const} */ ([
  { kind: 'camera', label: 'devices.camera' },
  { kind: 'microphone', label: 'devices.microphone' },
]);

/**
 * Adds the lists to `place`, and keeps them current.
 * @param {HTMLElement} place
 * @param {Devices} devices
 */
export function offerDevices(place, devices) {
  const selects = LISTS.map(({ kind, label: key }) => {
    const label = text(key);
    const id = `${place.id}-${kind}`;
    const select = element('select', { id, onchange: () => devices.choose(kind, select.value) });
    const problem = element('span', { class: 'problem', id: `${id}-problem` });
    select.setAttribute('aria-describedby', problem.id);
    place.append(element('div', {}, element('label', { for: id }, label), select, problem));
    return { kind, label, select, problem };
  });
  const refresh = async () => {
    for (const { kind, label, select, problem } of selects) {
      const found = await devices.list(kind);
      const options = found.map(({ id, label: name, isChosen }, index) =>
        Object.assign(element('option', { value: id }, name || text('devices.numbered', { kind: label, number: index + 1 })), { selected: isChosen }),
      );
      if (options.length === 0) options.push(element('option', { value: '' }, text('devices.none')));
      select.replaceChildren(...options);
      select.disabled = found.length === 0;
      problem.textContent = devices[kind].problem;
    }
  };
  devices.on('change', refresh);
  refresh();
}
