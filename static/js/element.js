// The one way in which this page makes elements. Text stays text: nothing that somebody wrote is
// ever read as markup.

/** Makes an element; `on…` properties are listeners, the others attributes, unless undefined. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/** The element of this id, which the document has. */
export function byId(id) {
  return document.getElementById(id);
}
