// @ts-check
// A camera or a microphone.

/** @import { EdgeBlur } from './edge-blur.js' */

export class Device {
  isWanted = false;
  /** False if our identity may not publish it. */
  isAllowed = true;
  /** @type {MediaStreamTrack | undefined} */
  track;
  problem = '';
  /**
   * The newest request for it that the browser has not answered.
   * @type {object | undefined}
   */
  request;
  /**
   * What we blur of a camera ourselves.
   * @type {EdgeBlur | undefined}
   */
  blur;

  get isOn() {
    return this.isWanted && Boolean(this.track);
  }

  /** The track that others get. */
  get sent() {
    return this.blur?.track ?? this.track;
  }

  stop() {
    this.track?.stop();
    this.track = undefined;
    this.blur?.end();
    this.blur = undefined;
  }
}
