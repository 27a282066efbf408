// @ts-check
// Picture in picture: a small window above other programs with the speaker and the most needed buttons. Where a browser
// opens no window for documents, it shows the speaker's video alone.

import { BASE } from './base.js';
import { copyButtons, forgetCopies } from './controls.js';
import { element } from './element.js';
import { Tile } from './tile.js';

/** @import { User } from './signalling.js' */
/** @import { TileState } from './tile.js' */

/**
 * The API for windows of documents, which not every browser has.
 * @typedef {{ documentPictureInPicture?: { requestWindow: (size: { width: number, height: number }) => Promise<Window> } }} Opener
 */

/** Height of the video. */
export const PIP_HEIGHT = 240;

const SIZE = { width: 380, height: 300 };
const STYLES = ['style.css', 'room.css'];
const BUTTONS = ['microphone', 'camera', 'leave'];

export class PictureInPicture {
  #tile = new Tile({ pin: () => {}, reshaped: () => {} });
  /** @type {Window | undefined} */
  #window;
  /**
   * The member to show. The tile shows it only while there is a window: each player of a video costs time.
   * @type {{ user: User, state: TileState } | undefined}
   */
  #latest;
  #isOpen = false;

  /** True if this browser has it in any form. */
  static get isPossible() {
    return 'documentPictureInPicture' in window || document.pictureInPictureEnabled;
  }

  /** Opens or closes it; to be called by a press of a button. Returns false if there is nothing to show. */
  async toggle() {
    if (this.#isOpen) {
      this.close();
      return true;
    }
    this.#isOpen = true;
    this.#show();
    const opener = /** @type {Opener} */ (window).documentPictureInPicture;
    try {
      if (opener) this.#fill(await opener.requestWindow(SIZE));
      else await this.#openVideo();
      return true;
    } catch {
      this.#closed();
      return false;
    }
  }

  close() {
    this.#window?.close();
    if (document.pictureInPictureElement) document.exitPictureInPicture();
  }

  /**
   * Shows this member.
   * @param {User} user
   * @param {TileState} state
   */
  show(user, state) {
    this.#latest = { user, state };
    if (this.#isOpen) this.#show();
  }

  /**
   * True if it shows this member.
   * @param {string} id
   */
  shows(id) {
    return this.#isOpen && this.#latest?.user.id === id;
  }

  #show() {
    if (this.#latest) this.#tile.showPerson(this.#latest.user, this.#latest.state);
  }

  #closed() {
    this.#isOpen = false;
    this.#window = undefined;
    this.#tile.clear();
    forgetCopies();
  }

  async #openVideo() {
    const { video } = this.#tile;
    if (!video.srcObject) throw new Error('the camera is off');
    if (video.readyState === HTMLMediaElement.HAVE_NOTHING) {
      await new Promise((resolve) => video.addEventListener('loadedmetadata', resolve, { once: true }));
    }
    await video.requestPictureInPicture();
    video.addEventListener('leavepictureinpicture', () => this.#closed(), { once: true });
  }

  /** @param {Window} opened */
  #fill(opened) {
    this.#window = opened;
    const { document: page } = opened;
    page.documentElement.lang = document.documentElement.lang;
    page.documentElement.dir = document.documentElement.dir;
    page.title = document.title;
    page.head.append(...STYLES.map((name) => element('link', { rel: 'stylesheet', href: `${BASE}static/${name}` })));
    const controls = element('nav', { class: 'controls' }, ...copyButtons(BUTTONS));
    page.body.className = 'pip';
    page.body.append(this.#tile.element, controls);
    opened.addEventListener('pagehide', () => this.#closed());
  }
}
