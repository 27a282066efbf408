// @ts-check
// Lists to choose a camera, a microphone and a speaker from, with the level of the microphone and a sound to try the speaker
// with; in a dialog also a preview, and what the browser does to both.

import { EdgeBlur } from './edge-blur.js';
import { element } from './element.js';
import { watchLevel } from './loudness.js';
import { Processing } from './processing.js';
import { playTestSound } from './test-sound.js';
import { text } from './texts.js';

/** @import { Devices, ListedKind } from './devices.js' */

const LISTS = /** @type {const} */ ([
  { kind: 'camera', label: 'devices.camera' },
  { kind: 'microphone', label: 'devices.microphone' },
  { kind: 'speaker', label: 'devices.speaker' },
]);

const CAN_CHOOSE_SPEAKER = 'setSinkId' in HTMLMediaElement.prototype;

/**
 * Adds the lists to `place`, and keeps them current.
 * @param {HTMLElement} place
 * @param {Devices} devices
 * @param {{ isFull: boolean }} options `isFull` adds the preview and the switches
 */
export function offerDevices(place, devices, { isFull }) {
  if (isFull) place.append(preview(devices));
  const lists = LISTS.filter(({ kind }) => kind !== 'speaker' || CAN_CHOOSE_SPEAKER);
  const selects = lists.map(({ kind, label: key }) => {
    const label = text(key);
    const id = `${place.id}-${kind}`;
    const select = element('select', { id, onchange: () => devices.choose(kind, select.value) });
    const problem = element('span', { class: 'problem', id: `${id}-problem` });
    select.setAttribute('aria-describedby', problem.id);
    const extra = { camera: undefined, microphone: () => level(devices), speaker: () => testButton(devices) }[kind]?.();
    place.append(element('div', { class: kind }, element('label', { for: id }, label), select, extra, problem));
    return { kind, label, select, problem };
  });
  if (isFull) place.append(...switches(devices));
  const refresh = async () => {
    for (const { kind, label, select, problem } of selects) {
      const found = await devices.list(kind);
      const options = found.map(({ id, label: name, isChosen }, index) =>
        Object.assign(element('option', { value: id }, name || text('devices.numbered', { kind: label, number: index + 1 })), { selected: isChosen }),
      );
      if (options.length === 0) options.push(element('option', { value: '' }, text('devices.none')));
      select.replaceChildren(...options);
      const [isAllowed, trouble] = kind === 'speaker' ? [true, ''] : [devices[kind].isAllowed, devices[kind].problem];
      select.disabled = found.length === 0 || !isAllowed;
      problem.textContent = trouble;
    }
  };
  devices.on('change', refresh);
  refresh();
}

/**
 * A meter of the microphone's level. It listens only while somebody can see it.
 * @param {Devices} devices
 */
function level(devices) {
  const meter = element('meter', { class: 'level', min: '0', max: '1', 'aria-label': text('devices.level') });
  let isSeen = false;
  /** @type {MediaStreamTrack | undefined} */
  let watched;
  let stop = () => {};
  const update = () => {
    const { microphone } = devices;
    const track = isSeen && microphone.isOn ? microphone.track : undefined;
    if (track === watched) return;
    stop();
    watched = track;
    meter.value = 0;
    stop = track ? watchLevel(track, (level) => (meter.value = level)) : () => {};
  };
  new IntersectionObserver(([{ isIntersecting }]) => {
    isSeen = isIntersecting;
    update();
  }).observe(meter);
  devices.on('change', update);
  return meter;
}

/** @param {Devices} devices */
function testButton(devices) {
  return element('button', { class: 'small', type: 'button', onclick: () => playTestSound(devices.speaker) }, text('devices.test'));
}

/** @param {Devices} devices */
function preview(devices) {
  const video = element('video', { class: 'mirrored', autoplay: true, playsinline: true, 'aria-hidden': 'true' });
  video.muted = true;
  const show = () => {
    const { sent: track } = devices.camera;
    video.hidden = !track;
    if (video.srcObject instanceof MediaStream && video.srcObject.getTracks()[0] === track) return;
    video.srcObject = track ? new MediaStream([track]) : null;
  };
  devices.on('change', show);
  show();
  return video;
}

/** @param {Devices} devices */
function switches(devices) {
  const { processing } = devices;
  const noise = element('input', { type: 'checkbox', onchange: () => devices.suppressNoise(noise.checked) });
  const blur = element('input', { type: 'checkbox', onchange: () => devices.blurBackground(blur.checked) });
  noise.checked = processing.suppressesNoise;
  const blurText = element('span', {});
  const blurLabel = element('label', { class: 'check' }, blur, blurText);
  const show = () => {
    const canBlur = Processing.canBlur(devices.camera.track);
    blurLabel.hidden = !canBlur && !EdgeBlur.isPossible;
    blurText.textContent = text(canBlur ? 'devices.blur' : 'devices.blurEdges');
    blur.checked = processing.blursBackground;
  };
  devices.on('change', show);
  show();
  return [element('label', { class: 'check' }, noise, element('span', {}, text('devices.noise'))), blurLabel];
}
