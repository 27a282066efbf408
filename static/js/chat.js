// @ts-check
// The chat: lines for everyone, and lines for one member.

import { byId, element, within } from './element.js';
import { Emitter } from './events.js';
import { showFile } from './files.js';
import { icon } from './icons.js';
import { linked } from './links.js';
import { language, listOf, text } from './texts.js';

/** @import { ServerMessages, Signalling, User } from './signalling.js' */
/** @import { TextKey } from './texts.js' */

/**
 * A line as shown.
 * @typedef {object} Line
 * @property {string} name
 * @property {string} message
 * @property {number} at
 * @property {string} [from] the author's id, where it is known
 * @property {boolean} [isMine]
 * @property {boolean} [isDirect]
 * @property {boolean} [isWaiting]
 */

const EVERYONE = '';

/**
 * Authors that no member can be (docs/protocol.md), and their marks: anybody may take their names.
 * @type {Map<string | undefined, TextKey>}
 */
const MARKS = new Map([['*assistant', 'chat.assistant'], ['*outside', 'chat.outside']]);

/** Maximum number of lines shown; the oldest are removed. */
const MAX_LINES = 500;

/** Maximum number of received ids remembered to detect repetitions, which follow shortly after the original. */
const MAX_RECEIVED = 10_000;

/**
 * Event: `received`, with a new message of another member as text. Those of the time before this page joined are none.
 * @extends {Emitter<{ received: string }>}
 */
export class Chat extends Emitter {
  #signalling;
  #myId;
  /**
   * The ids of received lines: a line may be repeated after a reconnect.
   * @type {Set<number>}
   */
  #received = new Set();
  /**
   * Answers of the assistant that grow, by their ids.
   * @type {Map<number, HTMLElement>}
   */
  #growing = new Map();
  /**
   * The ids of those who moderate.
   * @type {string[]}
   */
  #moderators = [];
  #list = byId('lines');
  #recipient = byId('recipient', HTMLSelectElement);
  #text = byId('line', HTMLTextAreaElement);
  /** True unless the reader scrolled up. */
  #isAtEnd = true;
  /** Names of the members whose client, such as the stock one, shows no chat; and those in the last hint about it. */
  #unreached = '';
  #hintedUnreached = '';

  /** @param {Signalling} signalling */
  constructor(signalling) {
    super();
    this.#signalling = signalling;
    this.#myId = signalling.id;
    this.#recipient.append(element('option', { value: EVERYONE }, text('chat.everyone')));
    byId('composer', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    this.#list.addEventListener('scroll', () => (this.#isAtEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40));
    // It is opened, or the window changes its size.
    new ResizeObserver(() => this.#isAtEnd && this.#showEnd()).observe(this.#list);
    // The history comes before the first state, and messages in the lobby, too.
    signalling.on('chatHistory', ({ messages }) => {
      for (const message of messages) this.#receive(message);
    });
    signalling.on('chat', (message) => {
      if (this.#receive(message)) this.emit('received', text('chat.line', { name: message.name, message: message.message }));
    });
    signalling.on('open', () => {
      for (const mark of this.#list.querySelectorAll('.unsent')) mark.remove();
    });
    signalling.on('directMessage', (message) => this.#receiveDirect(message));
    signalling.on('chatCleared', ({ before }) => this.#clear(before));
    signalling.on('chatUpdate', (update) => this.#grow(update));
    signalling.on('roomState', ({ state }) => (this.#moderators = state.room?.moderators ?? []));
  }

  /**
   * Offers all others as recipients.
   * @param {User[]} users
   */
  showUsers(users) {
    const others = users.filter(({ id }) => id !== this.#myId && id !== 'ai');
    this.#unreached = listOf(others.filter(({ readsChat }) => !readsChat).map(({ name }) => name));
    const options = new Map([...this.#recipient.options].map((option) => [option.value, option]));
    for (const [id, option] of options) {
      if (id === EVERYONE || others.some((user) => user.id === id)) continue;
      // If it were removed, the line being typed for this member alone would go to everyone.
      if (!option.selected) option.remove();
      else if (!option.disabled) Object.assign(option, { disabled: true, textContent: text('chat.gone', { name: option.textContent ?? '' }) });
    }
    for (const { id, name } of others) {
      const option = options.get(id) ?? element('option', { value: id });
      Object.assign(option, { disabled: false, textContent: name });
      if (!option.isConnected) this.#recipient.append(option);
    }
    this.#showRecipient();
  }

  /**
   * Selects a recipient.
   * @param {User} user
   */
  writeTo(user) {
    this.#recipient.value = user.id;
    this.#showRecipient();
    this.#text.focus();
  }

  /** Shows the recipient where there is a choice: between two members, everyone is the other one. */
  #showRecipient() {
    const isChoice = this.#recipient.options.length > 2 || this.#recipient.value !== EVERYONE;
    for (const part of byId('composer').querySelectorAll('.recipient')) part.classList.toggle('needless', !isChoice);
  }

  focus() {
    this.#text.focus();
  }

  /**
   * Shows a received line; returns true if it is new and of another member.
   * @param {ServerMessages['chat']} chat
   */
  #receive({ id, from, name, message, at, file }) {
    // Ids are not ordered: a restarted server may have a clock that was set back.
    if (this.#received.has(id)) return false;
    this.#received.add(id);
    if (this.#received.size > MAX_RECEIVED) {
      const [oldest] = this.#received;
      this.#received.delete(oldest);
    }
    const isMine = from === this.#myId;
    this.#growing.get(id)?.remove();
    this.#growing.delete(id);
    if (isMine) this.#unconfirmed(message)?.remove();
    const line = this.#add({ name: isMine ? text('chat.you') : name, message, at, from, isMine });
    line.dataset.id = String(id);
    if (file) showFile(line, file, this.#signalling.roomName);
    return !isMine;
  }

  /**
   * Removes the lines for everyone that a moderator cleared.
   * @param {number} before the id that they are below
   */
  #clear(before) {
    for (const line of [...this.#list.children]) {
      if (line instanceof HTMLElement && Number(line.dataset.id) < before) line.remove();
    }
  }

  /**
   * Shows a received direct message. The protocol has no more than its sender's name.
   * @param {ServerMessages['directMessage']} message
   */
  #receiveDirect({ from, message }) {
    const name = text('chat.directFrom', { name: from });
    this.#add({ name, message, at: Date.now(), isDirect: true });
    this.emit('received', text('chat.line', { name, message }));
  }

  /**
   * Shows the text so far of an answer, which ends by a message with the same id.
   * @param {ServerMessages['chatUpdate']} update
   */
  #grow({ id, from, name, message, at, asker }) {
    // The end may have come before, over a reconnect.
    if (this.#received.has(id)) return;
    let line = this.#growing.get(id);
    if (!line) {
      line = this.#add({ name, message: '', at, from });
      line.classList.add('growing');
      // Screen readers read the whole answer, once it is there.
      line.setAttribute('aria-live', 'off');
      this.#growing.set(id, line);
      if (asker === this.#myId || this.#moderators.includes(this.#myId)) {
        const stop = () => this.#signalling.sendIfOpen({ type: 'stopAnswer' });
        line.append(element('button', { class: 'small', type: 'button', onclick: stop }, text('chat.stop')));
      }
    }
    within(line, '.text', HTMLElement).textContent = message || '…';
    if (this.#isAtEnd) this.#showEnd();
  }

  #showEnd() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }

  #send() {
    // Half of an emoji, which `maxlength` can leave behind, is not valid text.
    const message = this.#text.value.trim().toWellFormed();
    if (message === '') return;
    const [to] = this.#recipient.selectedOptions;
    if (!to || to.disabled) {
      this.#add({ name: text('chat.notSent'), message: text('chat.chooseRecipient'), at: Date.now(), isDirect: true });
      this.#recipient.focus();
      return;
    }
    this.#text.value = '';
    if (to.value === EVERYONE) {
      this.#sendToAll(message);
    } else {
      this.#signalling.send({ type: 'directMessage', to: to.value, message });
      this.#markUnsent(this.#add({ name: text('chat.directTo', { name: to.textContent ?? '' }), message, at: Date.now(), isMine: true, isDirect: true }));
    }
  }

  /** @param {string} message */
  #sendToAll(message) {
    // Waiting until the server sends it to all members, us included.
    const line = this.#add({ name: text('chat.you'), message, at: Date.now(), isMine: true, isWaiting: true });
    line.dataset.socket = String(this.#signalling.opened + (this.#signalling.isOpen ? 0 : 1));
    this.#signalling.send({ type: 'chat', message });
    this.#markUnsent(line);
    if (this.#unreached === this.#hintedUnreached) return;
    this.#hintedUnreached = this.#unreached;
    if (this.#unreached) this.#add({ name: text('chat.unreachedTitle'), message: text('chat.unreached', { names: this.#unreached }), at: Date.now(), isDirect: true });
  }

  /**
   * Tells of a line that waits for the connection.
   * @param {HTMLElement} line
   */
  #markUnsent(line) {
    if (!this.#signalling.isOpen) line.append(element('span', { class: 'problem unsent' }, text('chat.unsent')));
  }

  /**
   * Marks the lines that an earlier socket took and that the server never confirmed. To be called with each state:
   * events that waited over a reconnect precede it. The other members may or may not have read a marked line, so its
   * author decides about sending it again.
   */
  giveUpLost() {
    for (const line of this.#waiting('.waiting')) {
      if (Number(line.dataset.socket) >= this.#signalling.opened) continue;
      line.classList.replace('waiting', 'lost');
      const again = () => {
        line.remove();
        this.#sendToAll(textOf(line));
      };
      line.append(
        element('span', { class: 'problem' }, text('chat.notConfirmed')),
        ' ',
        element('button', { class: 'small', type: 'button', onclick: again }, text('chat.sendAgain')),
      );
    }
  }

  /**
   * Returns our oldest line with this text that the server has not confirmed.
   * @param {string} message
   */
  #unconfirmed(message) {
    return this.#waiting('.waiting, .lost').find((line) => textOf(line) === message);
  }

  /**
   * @param {string} selector
   * @returns {HTMLElement[]}
   */
  #waiting(selector) {
    return [...this.#list.querySelectorAll(selector)].filter((line) => line instanceof HTMLElement);
  }

  /** @param {Line} line */
  #add({ name, message, at, from, isMine, isDirect, isWaiting }) {
    const mark = MARKS.get(from);
    const time = new Date(at);
    const line = element(
      'li',
      {},
      element('span', { class: 'from', dir: 'auto' }, name),
      mark && element('span', { class: 'mark' }, icon('ai'), text(mark)),
      element('time', { datetime: time.toISOString() }, timeOf(time)),
      element('p', { class: 'text', dir: 'auto' }, ...linked(message)),
    );
    line.classList.toggle('marked', Boolean(mark));
    line.classList.toggle('mine', Boolean(isMine));
    line.classList.toggle('direct', Boolean(isDirect));
    line.classList.toggle('waiting', Boolean(isWaiting));
    const firstWaiting = isWaiting ? null : this.#list.querySelector('.waiting');
    this.#list.insertBefore(line, firstWaiting);
    while (this.#list.childElementCount > MAX_LINES) this.#list.firstElementChild?.remove();
    if (this.#isAtEnd || isMine) this.#showEnd();
    return line;
  }
}

/**
 * Returns the time of day, with the date unless it is today's.
 * @param {Date} time
 */
function timeOf(time) {
  const isToday = time.toDateString() === new Date().toDateString();
  return time.toLocaleString(language, isToday ? { timeStyle: 'short' } : { dateStyle: 'short', timeStyle: 'short' });
}

/** @param {HTMLElement} line */
function textOf(line) {
  return within(line, '.text', HTMLElement).textContent ?? '';
}
