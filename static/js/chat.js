// The chat: lines for everyone, and lines for one member.

import { byId, element } from './element.js';

const EVERYONE = '';

/** More lines than this are not kept. */
const MOST_LINES = 500;

/** Of so many lines it is known that they were heard. What comes twice was said shortly before. */
const MOST_HEARD = 10_000;

export class Chat {
  #signalling;
  #myId;
  /** The ids of the lines that were heard: over a reconnect a line may come twice. */
  #heard = new Set();
  #list = byId('lines');
  #recipient = byId('recipient');
  #text = byId('line');
  /** Members whose client, such as the stock one, is known to show no chat; and those the writer was told of. */
  #unreached = '';
  #toldUnreached = '';

  constructor(signalling) {
    this.#signalling = signalling;
    this.#myId = signalling.id;
    this.#recipient.append(element('option', { value: EVERYONE }, 'Everyone'));
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#text.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
  }

  /** Offers all others as recipients. */
  showUsers(users) {
    const others = users.filter(({ id }) => id !== this.#myId && id !== 'ai');
    this.#unreached = new Intl.ListFormat('en').format(others.filter(({ readsChat }) => !readsChat).map(({ name }) => name));
    const options = new Map([...this.#recipient.options].map((option) => [option.value, option]));
    for (const [id, option] of options) {
      if (id === EVERYONE || others.some((user) => user.id === id)) continue;
      // Were it removed, the line being typed for this one alone would go to everyone.
      if (!option.selected) option.remove();
      else if (!option.disabled) Object.assign(option, { disabled: true, textContent: `${option.textContent} (gone)` });
    }
    for (const { id, name } of others) {
      const option = options.get(id) ?? element('option', { value: id });
      Object.assign(option, { disabled: false, textContent: name });
      if (!option.isConnected) this.#recipient.append(option);
    }
  }

  writeTo(user) {
    this.#recipient.value = user.id;
    this.#text.focus();
  }

  focus() {
    this.#text.focus();
  }

  /** Takes in a `chat`; true if it is news of somebody else. */
  hear({ id, from, name, message, at }) {
    // Their order says nothing: a server that started again may have a clock that was set back.
    if (this.#heard.has(id)) return false;
    this.#heard.add(id);
    if (this.#heard.size > MOST_HEARD) this.#heard.delete(this.#heard.values().next().value);
    const isMine = from === this.#myId;
    if (isMine) this.#unconfirmed(message)?.remove();
    this.#add({ name: isMine ? 'You' : name, message, at, isMine });
    return !isMine;
  }

  /** Takes in a `directMessage`. The protocol says no more than its sender's name. */
  hearDirect({ from, message }) {
    this.#add({ name: `${from} to you alone`, message, at: Date.now(), isDirect: true });
  }

  #send() {
    // Half of an emoji, which `maxlength` can leave behind, is no text.
    const message = this.#text.value.trim().toWellFormed();
    if (message === '') return;
    const [to] = this.#recipient.selectedOptions;
    if (!to || to.disabled) {
      this.#add({ name: 'Not sent', message: 'Choose a recipient.', at: Date.now(), isDirect: true });
      this.#recipient.focus();
      return;
    }
    this.#text.value = '';
    if (to.value === EVERYONE) {
      this.#sendToAll(message);
    } else {
      this.#signalling.say({ type: 'directMessage', to: to.value, message });
      this.#add({ name: `You to ${to.textContent} alone`, message, at: Date.now(), isMine: true, isDirect: true });
    }
  }

  #sendToAll(message) {
    // Until the server says it to all, us too.
    const line = this.#add({ name: 'You', message, at: Date.now(), isMine: true, isWaiting: true });
    line.dataset.socket = this.#signalling.opened + (this.#signalling.isOpen ? 0 : 1);
    this.#signalling.say({ type: 'chat', message });
    if (this.#unreached === this.#toldUnreached) return;
    this.#toldUnreached = this.#unreached;
    if (this.#unreached) this.#add({ name: 'Not seen by all', message: `No chat is shown to: ${this.#unreached}. Write to them alone.`, at: Date.now(), isDirect: true });
  }

  /**
   * Marks the lines that an earlier socket took and that the server never said. To be called with each
   * state: what waited for us over a reconnect came before it. Whether the others have read a line is
   * not known then, so it is its writer who decides whether to say it again.
   */
  giveUpLost() {
    for (const line of this.#list.querySelectorAll('.waiting')) {
      if (Number(line.dataset.socket) >= this.#signalling.opened) continue;
      line.classList.replace('waiting', 'lost');
      const again = () => {
        line.remove();
        this.#sendToAll(textOf(line));
      };
      line.append(
        element('span', { class: 'problem' }, 'Not confirmed by the server. '),
        element('button', { class: 'small', type: 'button', onclick: again }, 'Send again'),
      );
    }
  }

  /** Our oldest line of these words that the server has not said. */
  #unconfirmed(message) {
    return [...this.#list.querySelectorAll('.waiting, .lost')].find((line) => textOf(line) === message);
  }

  #add({ name, message, at, isMine, isDirect, isWaiting }) {
    const time = new Date(at);
    const isAtEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40;
    const line = element(
      'li',
      {},
      element('span', { class: 'from' }, name),
      element('time', { datetime: time.toISOString() }, time.toLocaleTimeString([], { timeStyle: 'short' })),
      element('p', { class: 'text' }, message),
    );
    line.classList.toggle('mine', Boolean(isMine));
    line.classList.toggle('direct', Boolean(isDirect));
    line.classList.toggle('waiting', Boolean(isWaiting));
    const firstWaiting = isWaiting ? null : this.#list.querySelector('.waiting');
    this.#list.insertBefore(line, firstWaiting);
    while (this.#list.childElementCount > MOST_LINES) this.#list.firstElementChild.remove();
    if (isAtEnd || isMine) this.#list.scrollTop = this.#list.scrollHeight;
    return line;
  }
}

function textOf(line) {
  return line.querySelector('.text').textContent;
}
