// Tools for checks of a Phoenix client: identities, stock sockets, a raw socket, and waiting for facts.

import { createInterface } from 'node:readline'
import { setTimeout as after } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import WebSocket from 'ws'

/** Time after which waiting for a fact fails. */
const PATIENCE = 10_000

export class Failure extends Error {}

export function assert(truth, text) {
  if (!truth) throw new Failure(text)
}

export function equal(found, wanted, what = 'value') {
  if (isDeepStrictEqual(found, wanted)) return
  throw new Failure(`${what} is ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`)
}

/** Waits until a function returns something true, and returns that. */
export async function until(what, fact, patience = PATIENCE) {
  for (const end = Date.now() + patience; Date.now() < end; await after(5)) {
    const truth = fact()
    if (truth) return truth
  }
  throw new Failure(`waited in vain until ${what}`)
}

/** The request API of browsers that the client's older versions need for long polling, over `fetch`. */
class XMLHttpRequest {
  readyState = 0
  responseText = ''
  #abort = new AbortController()
  #headers = {}

  open(method, url) {
    Object.assign(this, { method, url })
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value
  }

  send(body) {
    const timer = this.timeout && setTimeout(() => this.#end(() => this.ontimeout?.()), this.timeout)
    fetch(this.url, { method: this.method, headers: this.#headers, body, signal: this.#abort.signal })
      .then((response) => response.text())
      .then(
        (text) => {
          Object.assign(this, { readyState: 4, responseText: text })
          this.onreadystatechange?.()
        },
        (error) => error.name === 'AbortError' || this.onerror?.(error)
      )
      .finally(() => clearTimeout(timer))
  }

  abort() {
    this.#end(() => {})
  }

  #end(then) {
    this.#abort.abort()
    then()
  }
}

/** Gives Node what version 1.7 of the client takes from a browser. */
export function resembleBrowser() {
  Object.assign(globalThis, { self: globalThis, XMLHttpRequest })
}

/** Prints a line for the parent process, which nothing else may do: the client logs to the console. */
function report(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

console.log = console.error

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** Has the parent process do something, such as a restart of the server, and waits until it is done. */
export async function control(order) {
  report({ control: order })
  const { value } = await lines.next()
  equal(value, 'done', `the answer to ${order}`)
}

/** A socket without a client: frames go out as they are written, and come back parsed. */
export class Raw {
  frames = []
  binary = 0
  pings = 0
  closed = null
  refused = null

  constructor(url, protocols = [], options = {}) {
    this.ws = new WebSocket(url, protocols, options)
    this.ws.on('message', (data, binary) => {
      if (binary) this.binary += 1
      else this.frames.push(JSON.parse(data))
    })
    this.ws.on('ping', () => (this.pings += 1))
    this.ws.on('close', (code, reason) => (this.closed = { code, reason: String(reason) }))
    this.ws.on('unexpected-response', (_, response) => {
      this.refused = response.statusCode
      response.resume()
      this.ws.terminate()
    })
    this.ws.on('error', () => {})
  }

  async opened() {
    await until('the socket is open', () => this.refused || this.ws.readyState === WebSocket.OPEN)
    equal(this.refused, null, 'the status of the refusal')
    return this
  }

  send(frame) {
    this.ws.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
  }

  /** Takes the first frame that meets a condition out of those that came; others stay. */
  async take(what, condition) {
    const index = () => this.frames.findIndex(condition)
    await until(`${what} comes (there are ${JSON.stringify(this.frames).slice(0, 600)})`, () => index() >= 0)
    return this.frames.splice(index(), 1)[0]
  }

  /** The answer to a ref, of V2 or V1. */
  reply(ref) {
    return this.take(`the reply to ${ref}`, (frame) =>
      Array.isArray(frame)
        ? frame[3] === 'phx_reply' && frame[1] === ref
        : frame.event === 'phx_reply' && frame.ref === ref
    )
  }

  /** An event of V2. */
  event(name) {
    return this.take(`the event ${name}`, (frame) => frame[3] === name)
  }

  /** Joins, and discards what a join brings. */
  async join(topic, ref, params = {}) {
    this.send([ref, ref, topic, 'phx_join', params])
    const reply = await this.reply(ref)
    equal(reply[4].status, 'ok', 'the join')
    await this.take('presence_state', (frame) => frame[2] === topic && frame[3] === 'presence_state')
    await this.take('roomState', (frame) => frame[2] === topic && frame[3] === 'roomState')
    return reply[4].response
  }

  /** Waits until everything that the server wrote before has come. */
  async settled(ref = `settled-${Math.random()}`) {
    this.send([null, ref, 'phoenix', 'heartbeat', {}])
    return this.reply(ref)
  }
}

/** One check's identities and sockets, all of which end with it. */
export class Bench {
  static #count = 0
  #open = []

  constructor(client, server) {
    this.client = client
    this.server = server
    this.endpoint = `${server.replace(/^http/, 'ws')}/socket`
  }

  /** A name of a room that no other check uses. */
  room(prefix = 'room') {
    return `${prefix}-${process.pid}-${(Bench.#count += 1)}`
  }

  /** A new identity. */
  async person(name) {
    const form = { method: 'POST', redirect: 'manual', body: new URLSearchParams({ username: name }) }
    const answer = await fetch(`${this.server}/set-username`, form)
    equal(answer.status, 302, 'the status of the log-in')
    const cookie = answer.headers.get('set-cookie').split(';')[0]
    const request = { method: 'POST', headers: { cookie } }
    const token = await fetch(`${this.server}/api/socket-token`, request)
    equal(token.status, 200, 'the status of the token')
    return { name, cookie, token: (await token.json()).token }
  }

  /** A socket of the stock client, with its defaults. */
  socket(person, options = {}) {
    const { Socket } = this.client
    const params = person ? { token: person.token } : {}
    const socket = new Socket(this.endpoint, { params, transport: WebSocket, ...options })
    socket.closes = []
    socket.errors = 0
    socket.opens = 0
    socket.onOpen(() => (socket.opens += 1))
    socket.onClose((event) => socket.closes.push(event?.code))
    socket.onError(() => (socket.errors += 1))
    socket.connect()
    this.#open.push(() => socket.disconnect())
    return socket
  }

  /** A channel whose messages are recorded; not joined yet. */
  channel(socket, topic, params = {}) {
    const channel = socket.channel(topic, params)
    channel.seen = []
    channel.closes = 0
    channel.errors = 0
    channel.onMessage = (event, payload, ref) => {
      // The client hands replies on under names of their own; that of a push that timed out is null.
      if (event && !event.startsWith('chan_reply_')) channel.seen.push({ event, payload, ref })
      return payload
    }
    channel.onClose(() => (channel.closes += 1))
    channel.onError(() => (channel.errors += 1))
    channel.all = (event) => channel.seen.filter((seen) => seen.event === event).map(({ payload }) => payload)
    return channel
  }

  /** A person's channel over a socket of its own, joined. */
  async member(person, topic, params = {}, options = {}) {
    const socket = this.socket(person, options)
    const channel = this.channel(socket, topic, params)
    const [status, response] = await result(channel.join())
    equal(status, 'ok', `the join (${JSON.stringify(response)})`)
    return { socket, channel, response, id: response.id }
  }

  raw(person, { vsn = '2.0.0', params = {}, protocols = [], options = {} } = {}) {
    const query = new URLSearchParams({ ...(person && { token: person.token }), ...params, ...(vsn && { vsn }) })
    const raw = new Raw(`${this.endpoint}/websocket?${query}`, protocols, options)
    this.#open.push(() => raw.ws.terminate())
    return raw
  }

  /** A socket of the rooms' own protocol. */
  orange(person, room) {
    const url = `${this.server.replace(/^http/, 'ws')}/parties/rooms/${encodeURIComponent(room)}`
    const raw = new Raw(url, [], { headers: { cookie: person.cookie }, origin: this.server })
    this.#open.push(() => raw.ws.terminate())
    return raw
  }

  /** Closes all sockets. */
  close() {
    for (const close of this.#open.reverse()) close()
  }
}

/** The answer to a push: status and response. */
export function result(push, patience = PATIENCE) {
  return new Promise((resolve) => {
    setTimeout(() => resolve(['no answer', null]), patience).unref()
    for (const status of ['ok', 'error', 'timeout']) push.receive(status, (response) => resolve([status, response]))
  })
}

/** The ids that a presence lists, sorted. */
export const ids = (presence) => presence.list((id) => id).sort()

/** A presence whose callbacks are recorded. */
export function watch(Presence, channel) {
  const presence = new Presence(channel)
  presence.joins = []
  presence.leaves = []
  presence.syncs = 0
  presence.onJoin((id, current, joined) => presence.joins.push({ id, before: current, metas: joined.metas }))
  presence.onLeave((id, current, left) => presence.leaves.push({ id, after: current.metas, metas: left.metas }))
  presence.onSync(() => (presence.syncs += 1))
  return presence
}

/** A user object as pages send it. */
export const user = (change = {}) => ({
  id: '',
  name: '',
  joined: true,
  raisedHand: false,
  speaking: false,
  tracks: { audioEnabled: true, audioUnavailable: false },
  ...change,
})

/** Runs checks one after the other, and beside them those that mostly wait. */
export async function run(checks, client, server, { phoenix, only }) {
  let failed = 0
  const runOne = async ([name, check]) => {
    const began = Date.now()
    const bench = new Bench(client, server)
    let error = null
    try {
      const limit = after(60_000, null, { ref: false }).then(() => {
        throw new Failure('the check takes too long')
      })
      await Promise.race([check(bench), limit])
    } catch (thrown) {
      error = thrown instanceof Failure ? thrown.message : String(thrown.stack)
      failed += 1
    } finally {
      bench.close()
    }
    report({ check: name, ok: error === null, ms: Date.now() - began, ...(error && { error }) })
  }
  const all = Object.entries(checks).filter(([name, check]) => !(phoenix && check.ours) && name.includes(only))
  const [slow, quick] = [true, false].map((is) => all.filter(([, check]) => Boolean(check.slow) === is))
  const waiting = Promise.all(slow.map(runOne))
  for (const check of quick.filter(([, check]) => !check.last)) await runOne(check)
  await waiting
  for (const check of quick.filter(([, check]) => check.last)) await runOne(check)
  report({ checks: all.length, failed })
}

/** Marks a check of something that Phoenix itself does not do. */
export const ours = (check) => Object.assign(check, { ours: true })

/** Marks a check that mostly waits. */
export const slow = (check) => Object.assign(check, { slow: true })

/** Marks a check that disturbs all others, such as a restart. */
export const last = (check) => Object.assign(check, { last: true })
