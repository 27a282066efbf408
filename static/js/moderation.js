// @ts-check
// Controls of moderators: the room's settings, the dialog of a member, and the end for all; and notices of their actions on us.

import { BASE } from './base.js';
import { byId, element, within } from './element.js';
import { notice } from './notices.js';
import { sentence } from './settings.js';
import { text } from './texts.js';

/** @import { Devices } from './devices.js' */
/** @import { Moderate, RoomRules, Signalling, User } from './signalling.js' */
/** @import { TextKey } from './texts.js' */

/** The settings that are a switch, with the value while nothing is set. */
const SWITCHES = /** @type {const} */ ({ locked: false, waitingRoom: false, chat: true, screens: true });

/** The action that sets each of them. */
const SWITCH_ACTIONS = /** @type {const} */ ({ locked: 'lock', waitingRoom: 'waitingRoom', chat: 'chat', screens: 'screens' });

/** The notices of what a moderator stopped. */
const STOPPED = /** @type {const} */ ({ audio: 'stopped.audio', video: 'stopped.video', screen: 'stopped.screen' });

export class Moderation {
  #signalling;
  #devices;
  #mayWrite;
  /** @type {RoomRules} */
  #rules = {};
  /** @type {User | undefined} */
  #member;

  /**
   * @param {{ signalling: Signalling, devices: Devices, mayWrite: boolean }} parts
   * @param {AbortSignal} signal
   */
  constructor({ signalling, devices, mayWrite }, signal) {
    this.#mayWrite = mayWrite;
    this.#signalling = signalling;
    this.#devices = devices;
    signalling.on('muted', ({ kind, by }) => this.#stopped(kind, by), { signal });
    for (const name of /** @type {(keyof typeof SWITCHES)[]} */ (Object.keys(SWITCHES))) {
      const box = byId(`rule-${name}`, HTMLInputElement);
      box.addEventListener('change', () => this.#send({ action: SWITCH_ACTIONS[name], on: box.checked }), { signal });
    }
    this.#on('lower-hands', 'click', () => this.#send({ action: 'lowerHands' }), signal);
    this.#on('set-password', 'click', () => this.#askPassword(), signal);
    this.#on('end-meeting', 'click', () => byId('end-dialog', HTMLDialogElement).showModal(), signal);
    this.#on('end-form', 'submit', () => this.#send({ action: 'end' }), signal);
    this.#on('password-form', 'submit', (event) => this.#setPassword(event), signal);
    this.#on('remove-password', 'click', () => this.#putPassword(null), signal);
    this.#on('member-rename', 'submit', (event) => this.#rename(event), signal);
    this.#on('member-remove', 'submit', (event) => this.#remove(event), signal);
  }

  /** True if we moderate by a right of our own. */
  get isModerator() {
    return this.#rules.moderators?.includes(this.#signalling.id) ?? false;
  }

  /** The member in the foreground, if there is one. */
  get spotlight() {
    return this.#rules.spotlight;
  }

  /** @param {string} id */
  moderates(id) {
    return this.#rules.moderators?.includes(id) ?? false;
  }

  /**
   * Shows the room's settings, and controls to those who may change them.
   * @param {RoomRules | undefined} rules
   */
  show(rules) {
    this.#rules = rules ?? {};
    byId('host').hidden = !this.isModerator;
    for (const [name, normal] of Object.entries(SWITCHES)) {
      byId(`rule-${name}`, HTMLInputElement).checked = this.#rules[/** @type {keyof typeof SWITCHES} */ (name)] ?? normal;
    }
    const isSilent = this.#rules.chat === false && !this.isModerator;
    const line = byId('line', HTMLTextAreaElement);
    line.disabled = isSilent || !this.#mayWrite;
    const placeholder = isSilent ? 'chat.moderatorsOnly' : 'chat.message';
    line.placeholder = text(this.#mayWrite ? placeholder : 'rights.chat');
    within(byId('composer'), 'button', HTMLButtonElement).disabled = line.disabled;
    document.body.classList.toggle('no-screens', this.#rules.screens === false && !this.isModerator);
    if (!this.isModerator) byId('member', HTMLDialogElement).close();
  }

  /**
   * Opens the dialog of a member.
   * @param {User} user
   */
  manage(user) {
    this.#member = user;
    const { id, tracks } = user;
    byId('member-title').textContent = user.name;
    byId('member-name', HTMLInputElement).value = user.name;
    byId('member-reason', HTMLInputElement).value = '';
    byId('member-network', HTMLInputElement).checked = false;
    /** @type {[TextKey, Moderate, boolean][]} */
    const actions = [
      ['member.mute', { action: 'mute', id, kind: 'audio' }, Boolean(tracks.audioEnabled)],
      ['member.stopCamera', { action: 'mute', id, kind: 'video' }, Boolean(tracks.videoEnabled)],
      ['member.stopScreen', { action: 'mute', id, kind: 'screen' }, Boolean(tracks.screenShareEnabled)],
      ['member.lowerHand', { action: 'lowerHands', id }, user.raisedHand],
      ['member.spotlight', { action: 'spotlight', id }, this.spotlight !== id],
      ['member.endSpotlight', { action: 'spotlight' }, this.spotlight === id],
      ['member.grant', { action: 'grantModeration', id }, !this.moderates(id)],
      ['member.revoke', { action: 'revokeModeration', id }, this.moderates(id)],
    ];
    const possible = actions.filter(([, , isPossible]) => isPossible);
    byId('member-actions').replaceChildren(
      ...possible.map(([key, action]) => element('button', { type: 'button', onclick: () => this.#act(action) }, text(key))),
    );
    byId('member', HTMLDialogElement).showModal();
  }

  /**
   * @param {string} id
   * @param {string} type
   * @param {(event: Event) => void} listener
   * @param {AbortSignal} signal
   */
  #on(id, type, listener, signal) {
    byId(id).addEventListener(type, listener, { signal });
  }

  /** @param {Moderate} action */
  #send(action) {
    this.#signalling.send({ type: 'moderate', ...action });
  }

  /** @param {Moderate} action */
  #act(action) {
    this.#send(action);
    byId('member', HTMLDialogElement).close();
  }

  /** @param {Event} event */
  #rename(event) {
    event.preventDefault();
    const name = byId('member-name', HTMLInputElement).value.trim();
    if (this.#member && name) this.#act({ action: 'rename', id: this.#member.id, name });
  }

  /** @param {Event} event */
  #remove(event) {
    event.preventDefault();
    if (!this.#member) return;
    const reason = byId('member-reason', HTMLInputElement).value.trim() || undefined;
    const network = byId('member-network', HTMLInputElement).checked;
    this.#act({ action: 'remove', id: this.#member.id, reason, network });
  }

  #askPassword() {
    byId('new-password', HTMLInputElement).value = '';
    byId('password-problem').hidden = true;
    byId('remove-password').hidden = !this.#rules.password;
    byId('password-dialog', HTMLDialogElement).showModal();
  }

  /** @param {Event} event */
  #setPassword(event) {
    event.preventDefault();
    return this.#putPassword(byId('new-password', HTMLInputElement).value);
  }

  /**
   * A password goes over HTTP, where the server hashes it before the room sees it.
   * @param {string | null} password
   */
  async #putPassword(password) {
    const path = `${BASE}api/rooms/${encodeURIComponent(this.#signalling.roomName)}/settings`;
    const problem = byId('password-problem');
    try {
      const answer = await fetch(path, { method: 'PUT', body: JSON.stringify({ password }) });
      if (answer.ok) {
        byId('password-dialog', HTMLDialogElement).close();
        notice(text(password === null ? 'password.isRemoved' : 'password.isSet'));
        return;
      }
      problem.textContent = await sentence(answer);
    } catch {
      problem.textContent = text('server.unreachable');
    }
    problem.hidden = false;
  }

  /**
   * Switches off what a moderator stopped.
   * @param {keyof typeof STOPPED} kind
   * @param {string | undefined} by
   */
  #stopped(kind, by) {
    const { camera, screen } = this.#devices;
    if (kind === 'audio') this.#devices.muteMicrophone();
    if (kind === 'video' && camera.isWanted) this.#devices.toggleCamera();
    if (kind === 'screen' && screen.track) screen.toggle();
    notice(text(STOPPED[kind], { by: by ?? text('stopped.someModerator') }), kind);
  }
}
