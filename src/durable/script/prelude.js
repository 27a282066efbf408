// The environment of a script: storage, console, crypto, and the call of a method.
//
// It is evaluated before the script and captures what it uses, so that a script that changes built-in objects gets
// wrong answers only for itself. Every limit and every check of what leaves a call is on the other side of `native`.

const { parse, stringify } = JSON;
const { defineProperty, values, entries } = Object;
const { apply, construct } = Reflect;
const { isArray } = Array;
const { isView } = ArrayBuffer;
const sourceOf = Function.prototype.toString;

// Objects that JSON would turn into `{}` without a word.
const LOSSY = [
  Map, Set, WeakMap, WeakSet, WeakRef, RegExp, Promise, ArrayBuffer, SharedArrayBuffer, Error,
];

const check = (_key, value) => {
  switch (typeof value) {
    case "function":
    case "symbol":
      throw new TypeError(`a ${typeof value} cannot be stored; values are JSON`);
    case "object":
      if (value === null || isArray(value)) return value;
      for (const kind of LOSSY) {
        if (value instanceof kind) throw new TypeError(`a ${kind.name} cannot be stored; values are JSON`);
      }
      if (isView(value)) throw new TypeError("a typed array cannot be stored; values are JSON");
  }
  return value;
};

const encode = (value) => {
  const text = stringify(value, check);
  if (text === undefined) throw new TypeError("undefined cannot be stored; values are JSON");
  return text;
};

const decode = (text) => (text === undefined ? undefined : parse(text));

// A map from keys and texts that alternate.
const decoded = (flat) => {
  const map = new Map();
  for (let at = 0; at < flat.length; at += 2) map.set(flat[at], parse(flat[at + 1]));
  return map;
};

const time = (value) => {
  const number = value instanceof Date ? value.getTime() : Number(value);
  if (!(number >= 0 && number <= 8.64e15)) throw new TypeError("an alarm's time is a Date, or milliseconds since 1970");
  return number;
};

const bound = (options, name) => (options[name] === undefined ? undefined : `${options[name]}`);

const count = (value) => {
  if (value === undefined) return undefined;
  if (!(value >= 1)) throw new TypeError("a limit is a number from 1");
  return Math.min(Math.floor(value), 0xffffffff);
};

class Storage {
  #native;

  constructor(native) {
    this.#native = native;
  }

  async get(key) {
    if (!isArray(key)) return decode(this.#native.get(`${key}`));
    return decoded(this.#native.getAll(key.map((name) => `${name}`)));
  }

  async put(key, value) {
    if (typeof key !== "object" || key === null) {
      this.#native.put(`${key}`, encode(value));
      return;
    }
    for (const [name, value] of entries(key)) this.#native.put(name, encode(value));
  }

  async delete(key) {
    if (!isArray(key)) return this.#native.delete(`${key}`);
    let removed = 0;
    for (const name of key) removed += this.#native.delete(`${name}`) ? 1 : 0;
    return removed;
  }

  async deleteAll() {
    this.#native.deleteAll();
  }

  async list(options = {}) {
    const [prefix, start, startAfter, end] = ["prefix", "start", "startAfter", "end"].map((name) => bound(options, name));
    if (start !== undefined && startAfter !== undefined) throw new TypeError("list takes start or startAfter, not both");
    const flat = this.#native.list({ prefix, start, startAfter, end, reverse: !!options.reverse, limit: count(options.limit) });
    return decoded(flat);
  }

  async setAlarm(at) {
    this.#native.setAlarm(time(at));
  }

  async getAlarm() {
    return this.#native.getAlarm() ?? null;
  }

  async deleteAlarm() {
    this.#native.deleteAlarm();
  }

  async sync() {}
}

const isClass = (value) => typeof value === "function" && apply(sourceOf, value, []).startsWith("class");

export const find = (exported) => {
  if (typeof exported.DurableObject === "function") return exported.DurableObject;
  if (isClass(exported.default)) return exported.default;
  const classes = values(exported).filter(isClass);
  return classes.length === 1 ? classes[0] : undefined;
};

const show = (value) => {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value.stack ?? ""}`.startsWith(`${value}`) ? value.stack : `${value}\n${value.stack ?? ""}`;
  if (typeof value === "object" && value !== null) {
    try {
      return stringify(value) ?? `${value}`;
    } catch {
      return "[object]";
    }
  }
  return String(value);
};

// The message and the stack of whatever was thrown.
export const describe = (error) => {
  if (typeof error === "string") return [error, ""];
  const message = error?.message;
  return [typeof message === "string" ? message : "the method threw a value that is no error", show(error)];
};

// A search for a text takes the engine as long as the product of both lengths, and cannot be stopped. Beyond this product
// it is made here, in time of the sum and within the time of the call.
const MAX_SEARCH = 1 << 22;

const isLong = (text, word) => typeof text === "string" && typeof word === "string" && text.length * word.length > MAX_SEARCH;

// The first index of `word` from `from` on, by Knuth, Morris and Pratt; or the last one up to `last`.
const search = (text, word, from, last) => {
  const borders = new Int32Array(word.length);
  for (let at = 1, border = 0; at < word.length; at++) {
    while (border > 0 && word[at] !== word[border]) border = borders[border - 1];
    if (word[at] === word[border]) border++;
    borders[at] = border;
  }
  let found = -1;
  for (let at = from, matched = 0; at < text.length; at++) {
    while (matched > 0 && text[at] !== word[matched]) matched = borders[matched - 1];
    if (text[at] === word[matched]) matched++;
    if (matched < word.length) continue;
    const start = at - matched + 1;
    if (start > last) break;
    found = start;
    if (last === undefined) break;
    matched = borders[matched - 1];
  }
  return found;
};

const position = (value, none, length) => {
  const number = Number(value);
  return Math.trunc(Math.min(Math.max(Number.isNaN(number) ? none : number, 0), length));
};

const searches = {
  indexOf: (text, word, from) => search(text, word, position(from, 0, text.length)),
  includes: (text, word, from) => search(text, word, position(from, 0, text.length)) >= 0,
  lastIndexOf: (text, word, last) => search(text, word, 0, position(last, Infinity, text.length)),
};

for (const name of ["indexOf", "includes", "lastIndexOf", "split", "replace", "replaceAll"]) {
  const builtIn = String.prototype[name];
  // A method, since built-in functions are no constructors either.
  const { [name]: value } = {
    [name](word, other) {
      if (!isLong(this, word)) return apply(builtIn, this, arguments);
      const search = searches[name];
      if (search === undefined) throw new RangeError(`the text to look for is too long for ${name}`);
      return search(this, word, other);
    },
  };
  defineProperty(String.prototype, name, { value, writable: true, configurable: true, enumerable: false });
}

export const install = (native) => {
  const console = {};
  for (const level of ["debug", "log", "info", "warn", "error"]) {
    console[level] = (...args) => {
      if (native.logs(level)) native.log(level, args.map(show).join(" "));
    };
  }
  console.trace = console.debug;
  const global = { console, crypto: { randomUUID: () => native.randomUUID() } };
  for (const [name, value] of entries(global)) {
    defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }

  return async (Class, object, names, params) => {
    const started = [];
    const state = {
      id: { name: object, toString: () => object, equals: (other) => `${other}` === object },
      storage: new Storage(native),
      blockConcurrencyWhile: async (work) => {
        const done = work();
        started.push(done);
        return done;
      },
      waitUntil: () => {},
      getWebSockets: () => [],
    };
    const instance = construct(Class, [state, {}]);
    for (const done of started) await done;
    for (const name of names) {
      const method = instance[name];
      if (typeof method !== "function") continue;
      const broadcastUpdate = (key, value) => native.update(`${key}`, stringify(value) ?? "null");
      defineProperty(instance, "broadcastUpdate", { value: broadcastUpdate, writable: true, configurable: true });
      if (!("sessions" in instance)) instance.sessions = new Map();
      const result = await apply(method, instance, params === undefined ? [] : [parse(params)]);
      return stringify(result) ?? "null";
    }
    return undefined;
  };
};

// The base class of scripts in Cloudflare's newer form, `import { DurableObject } from "cloudflare:workers"`.
export class DurableObject {
  constructor(ctx, env) {
    this.ctx = ctx;
    this.env = env;
  }
}
