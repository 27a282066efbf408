// @ts-check
// Event targets whose events have typed details.

/**
 * An event target; `Details` has the detail's type of each event.
 * @template {object} Details
 */
export class Emitter extends EventTarget {
  /**
   * Calls `listener` with the detail of each event of this type.
   * @template {keyof Details & string} Type
   * @param {Type} type
   * @param {(detail: Details[Type]) => void} listener
   * @param {AddEventListenerOptions} [options]
   */
  on(type, listener, options) {
    this.addEventListener(type, (event) => listener(/** @type {CustomEvent<Details[Type]>} */ (event).detail), options);
  }

  /**
   * Dispatches an event; without a detail only where its type allows undefined.
   * @protected
   * @template {keyof Details & string} Type
   * @param {Type} type
   * @param {undefined extends Details[Type] ? [detail?: Details[Type]] : [detail: Details[Type]]} detail
   */
  emit(type, ...detail) {
    this.dispatchEvent(new CustomEvent(type, { detail: detail[0] }));
  }
}
