// The two lists from which a camera and a microphone are chosen.

import { element } from './element.js';

const LABELS = { camera: 'Camera', microphone: 'Microphone' };

/** Puts the lists into a place, and keeps them true. */
export function offerDevices(place, devices) {
  const selects = Object.entries(LABELS).map(([kind, label]) => {
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
      const options = found.map(({ id, label: name, isChosen }, place) =>
        Object.assign(element('option', { value: id }, name || `${label} ${place + 1}`), { selected: isChosen }),
      );
      if (options.length === 0) options.push(element('option', { value: '' }, 'None'));
      select.replaceChildren(...options);
      select.disabled = found.length === 0;
      problem.textContent = devices[kind].problem;
    }
  };
  devices.addEventListener('change', refresh);
  refresh();
}
