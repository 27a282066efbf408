// @ts-check
// Elements of the page. This module is the only one that makes them: text stays text, and nothing that a user wrote is
// ever parsed as markup.

/**
 * Makes an element. Functions are listeners, under the name `on…`; the other properties are attributes.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | boolean | undefined | ((event: Event) => void)>} [properties]
 * @param {(Node | string | undefined)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') made.addEventListener(name.slice('on'.length), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/**
 * Returns the element of this id; the document must have it, of this type.
 * @template {HTMLElement} T
 * @overload
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
/**
 * @overload
 * @param {string} id
 * @returns {HTMLElement}
 */
/**
 * @param {string} id
 * @param {new () => HTMLElement} type
 */
export function byId(id, type = HTMLElement) {
  return checked(document.getElementById(id), type, `#${id}`);
}

/**
 * Returns the first match within `place`; it must exist and be of this type.
 * @template {Element} T
 * @param {ParentNode} place
 * @param {string} selector
 * @param {new () => T} type
 */
export function within(place, selector, type) {
  return checked(place.querySelector(selector), type, selector);
}

/**
 * Returns all matches in the document that are HTML elements.
 * @param {string} selector
 */
export function allHtml(selector) {
  return [...document.querySelectorAll(selector)].filter((found) => found instanceof HTMLElement);
}

/**
 * @template {Element} T
 * @param {Element | null} found
 * @param {new () => T} type
 * @param {string} selector
 */
function checked(found, type, selector) {
  if (!(found instanceof type)) throw new Error(`the page has no ${type.name} ${selector}`);
  return found;
}

/**
 * Sets a text, if it is another one: each new text is laid out again, and read aloud in live regions.
 * @param {Element} place
 * @param {string} text
 */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
