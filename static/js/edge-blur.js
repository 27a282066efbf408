// @ts-check
// Blurs a camera's picture but for an ellipse in its middle, where its user sits. It does not know people from
// background: that takes a model of more bytes than this page, many times over (docs/performance.md).

/** @typedef {{ MediaStreamTrackProcessor: new (options: { track: MediaStreamTrack }) => { readable: ReadableStream<VideoFrame> } }} Processors */
/** @typedef {{ MediaStreamTrackGenerator: new (options: { kind: 'video' }) => MediaStreamTrack & { writable: WritableStream<VideoFrame> } }} Generators */

const { MediaStreamTrackProcessor, MediaStreamTrackGenerator } = /** @type {Processors & Generators} */ (/** @type {unknown} */ (globalThis));

export class EdgeBlur {
  #worker = new Worker(new URL('./edge-blur-worker.js', import.meta.url));
  #end = new AbortController();

  /**
   * The blurred picture. It has none until the first one is blurred.
   * @type {MediaStreamTrack}
   */
  track;

  /** True if this browser gives pages the pictures of a track (W3C mediacapture-transform), hidden ones too. */
  static get isPossible() {
    return Boolean(MediaStreamTrackProcessor && MediaStreamTrackGenerator);
  }

  /**
   * @param {MediaStreamTrack} camera
   * @param {() => void} failed
   */
  constructor(camera, failed) {
    const { readable } = new MediaStreamTrackProcessor({ track: camera });
    const blurred = new MediaStreamTrackGenerator({ kind: 'video' });
    this.#worker.addEventListener('error', failed, { signal: this.#end.signal });
    this.#worker.postMessage({ readable, writable: blurred.writable }, [readable, blurred.writable]);
    this.track = blurred;
  }

  end() {
    // An ended track is an error for whoever still writes to it.
    this.#end.abort();
    this.#worker.terminate();
    this.track.stop();
  }
}
