// Long polling, as the client falls back to it, and as it is on the wire.

import { randomUUID } from 'node:crypto'
import { setTimeout as after } from 'node:timers/promises'
import { assert, equal, ids, ours, result, slow, until, user, watch } from './kit.mjs'

const polling = (t, options = {}) => ({ transport: t.client.LongPoll, ...options })

/** A session without a client. */
class Session {
  constructor(t, person, vsn = '2.0.0') {
    this.url = `${t.server}/socket/longpoll`
    this.query = { ...(person && { token: person.token }), vsn }
  }

  async request(method, { body, headers = {}, query = {}, signal } = {}) {
    const parameters = new URLSearchParams({ ...this.query, ...query })
    // The client appends its session's token behind the application's own parameter of that name.
    if (this.token) parameters.append('token', this.token)
    const response = await fetch(`${this.url}?${parameters}`, { method, body, headers, signal })
    return { http: response.status, headers: response.headers, text: await response.text() }
  }

  async poll(options) {
    const answer = await this.request('GET', options)
    equal(answer.http, 200, 'the HTTP status')
    return JSON.parse(answer.text)
  }

  async open() {
    const { status, token, messages } = await this.poll()
    equal([status, messages], [410, []], 'the first poll')
    assert(typeof token === 'string' && token.length > 0, 'there is no token')
    this.token = token
    return this
  }

  async send(...frames) {
    const body = frames.map((frame) => JSON.stringify(frame)).join('\n')
    const { http, text } = await this.request('POST', { body, headers: { 'content-type': 'application/x-ndjson' } })
    equal([http, JSON.parse(text).status], [200, 200], 'the POST')
  }

  /** Polls until a frame meets a condition; all frames until then. */
  async until(condition) {
    const all = []
    for (const end = Date.now() + 20_000; Date.now() < end; ) {
      const { status, messages } = await this.poll()
      assert([200, 204].includes(status), `a poll is answered ${status}`)
      all.push(...messages.map((text) => JSON.parse(text)))
      if (all.some(condition)) return all
    }
    throw new Error(`no such frame among ${JSON.stringify(all)}`)
  }
}

const replyTo = (ref) => (frame) => (Array.isArray(frame) ? frame[1] === ref : frame.ref === ref)

export const longPolling = {
  async polling_client_joins_and_is_answered(t) {
    const topic = `room:${t.room()}`
    const bob = await t.member(await t.person('Bob'), topic)
    const ada = await t.member(await t.person('Ada'), topic, {}, polling(t))
    equal(ada.response.name, 'Ada', 'the name')
    await until('roomState comes', () => ada.channel.all('roomState').length)
    const events = ada.channel.seen.map(({ event }) => event).filter((event) => event !== 'presence_diff')
    equal(events.slice(0, 3), ['phx_reply', 'presence_state', 'roomState'], 'the first messages')
    equal(await result(ada.channel.push('chat', { message: 'polled' })), ['ok', {}], 'a push')
    await until('Bob has the line', () => bob.channel.all('chat').some(({ from }) => from === ada.id))
    equal((await result(ada.channel.push('chat', {})))[0], 'error', 'a bad push')
    equal((await result(bob.channel.push('directMessage', { to: ada.id, message: 'hi' })))[0], 'ok', 'a message')
    await until('Ada has the message', () => ada.channel.all('directMessage').length === 1)
    equal((await result(ada.channel.leave()))[0], 'ok', 'the leave')
    await until('Bob is alone', () => bob.channel.all('roomState').at(-1).state.users.length === 1)
  },

  async polling_client_has_presence(t) {
    const topic = `room:${t.room()}`
    const socket = t.socket(await t.person('Ada'), polling(t))
    const channel = t.channel(socket, topic)
    const presence = watch(t.client.Presence, channel)
    const [, { id }] = await result(channel.join())
    const bob = await t.member(await t.person('Bob'), topic)
    await until('Ada sees both', () => ids(presence).join() === [id, bob.id].sort().join())
    equal((await result(bob.channel.push('userUpdate', { user: user({ raisedHand: true }) })))[0], 'ok', 'an update')
    await until('the hand is seen', () => presence.state[bob.id]?.metas[0].raisedHand)
    equal((await result(bob.channel.leave()))[0], 'ok', 'the leave')
    await until('Ada is alone', () => ids(presence).join() === id)
  },

  async pushes_over_polling_keep_their_order(t) {
    const topic = `room:${t.room()}`
    const bob = await t.member(await t.person('Bob'), topic)
    const ada = await t.member(await t.person('Ada'), topic, {}, polling(t))
    // More than one batch of the client.
    const wanted = Array.from({ length: 150 }, (_, line) => String(line))
    const pushes = wanted.map((message) => result(ada.channel.push('chat', { message }), 30_000))
    for (const answer of await Promise.all(pushes)) equal(answer, ['ok', {}], 'a push')
    for (const { channel } of [ada, bob]) {
      await until('all lines come', () => channel.all('chat').length === wanted.length)
      equal(channel.all('chat').map(({ message }) => message), wanted, 'the order')
    }
  },

  async refused_polling_closes_with_1008(t) {
    const socket = t.socket({ token: 'nonsense' }, polling(t))
    await until('it is closed', () => socket.closes.length > 0)
    equal([socket.closes[0], socket.opens], [1008, 0], 'the code, and opens')
    const answer = await new Session(t, null).poll()
    equal([answer.status, answer.token], [403, undefined], 'the answer without an identity')
    const version = await new Session(t, await t.person('Ada'), '3.0.0').poll()
    equal([version.status, version.token], [403, undefined], 'the answer to another version')
  },

  async client_falls_back_to_polling(t) {
    class Blocked {
      constructor() {
        setTimeout(() => this.onerror(new Error('blocked')))
      }
      close() {}
    }
    const store = new Map()
    const sessionStorage = { getItem: (key) => store.get(key) ?? null, setItem: (key, value) => store.set(key, value) }
    const options = { transport: Blocked, longPollFallbackMs: 500, sessionStorage }
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`, {}, options)
    equal(ada.socket.transport, t.client.LongPoll, 'the transport')
    equal(await result(ada.channel.push('chat', { message: 'x' })), ['ok', {}], 'a push')
  },

  async polls_have_their_statuses_and_headers(t) {
    const session = await new Session(t, await t.person('Ada')).open()
    const topic = `room:${t.room()}`
    await session.send(['1', '1', topic, 'phx_join', {}])
    const { http, headers, text } = await session.request('GET')
    equal(http, 200, 'the HTTP status')
    equal(headers.get('cache-control'), 'no-store', 'cache-control')
    equal(headers.get('content-type').split(';')[0], 'application/json', 'content-type')
    const { status, token, messages } = JSON.parse(text)
    equal([status, token], [200, session.token], 'the poll')
    equal(JSON.parse(messages[0]).slice(0, 4), ['1', '1', topic, 'phx_reply'], 'the first message')
    const options = await session.request('OPTIONS', { headers: { 'access-control-request-headers': 'x-phoenix-authtoken' } })
    equal(options.http, 200, 'the status of OPTIONS')
    equal((await session.request('PUT')).http, 400, 'the status of PUT')
    const bad = new Session(t, await t.person('Ada'))
    bad.token = 'nonsense'
    const fresh = await bad.poll()
    assert(fresh.status === 410 && fresh.token && fresh.token !== 'nonsense', JSON.stringify(fresh))
    const post = await bad.request('POST', { body: '[]', headers: { 'content-type': 'application/x-ndjson' } })
    equal([post.http, JSON.parse(post.text).status], [200, 410], 'a POST to no session')
  },

  async bodies_of_other_types_are_one_message(t) {
    const session = await new Session(t, await t.person('Ada'), '1.0.0').open()
    const topic = `room:${t.room()}`
    const body = JSON.stringify({ topic, event: 'phx_join', payload: {}, ref: '1' }, null, 1)
    const post = await session.request('POST', { body, headers: { 'content-type': 'application/json' } })
    equal(JSON.parse(post.text).status, 200, 'the POST')
    const frames = await session.until(replyTo('1'))
    equal([frames[0].topic, frames[0].event, frames[0].payload.status], [topic, 'phx_reply', 'ok'], 'the reply')
  },

  async binary_lines_are_base64(t) {
    const session = await new Session(t, await t.person('Ada')).open()
    const topic = `room:${t.room()}`
    await session.send(['1', '1', topic, 'phx_join', {}])
    const head = [0, 1, 1, topic.length, 4].map((byte) => String.fromCharCode(byte)).join('')
    const body = Buffer.from(`${head}12${topic}chatbytes`, 'latin1').toString('base64')
    await session.request('POST', { body, headers: { 'content-type': 'application/x-ndjson' } })
    const frames = await session.until(replyTo('2'))
    const reply = frames.find(replyTo('2'))
    equal(reply[4], { status: 'error', response: { reason: 'no binary events' } }, 'the answer')
  },

  async token_in_a_header_is_taken(t) {
    const { token } = await t.person('Ada')
    const session = new Session(t, null)
    const headers = { 'x-phoenix-authtoken': token }
    const opened = await session.poll({ headers })
    equal(opened.status, 410, 'the first poll')
    const bad = await new Session(t, null).poll({ headers: { 'x-phoenix-authtoken': 'nonsense' } })
    equal(bad.status, 403, 'a bad token')
  },

  foreign_origins_of_polls_are_refused: async (t) => {
    const ada = await t.person('Ada')
    const from = async (origin) => (await new Session(t, ada).poll({ headers: { origin } })).status
    equal(await from('https://evil.example'), 403, 'another host')
    equal(await from(t.server), 410, 'our own')
  },

  idle_poll_waits_and_a_silent_session_ends: slow(async (t) => {
    const topic = `room:${t.room('slow')}`
    const bob = await t.member(await t.person('Bob'), topic)
    const session = await new Session(t, await t.person('Ada')).open()
    // Another topic, so that nothing happens meanwhile.
    await session.send([null, '1', 'phoenix', 'heartbeat', {}])
    equal((await session.until(replyTo('1'))).length, 1, 'the number of frames')
    const began = Date.now()
    const { status, messages } = await session.poll()
    equal([status, messages], [204, []], 'an idle poll')
    const waited = Date.now() - began
    assert(waited > 8_000 && waited < 13_000, `it took ${waited} ms`)
    await session.send(['1', '2', topic, 'phx_join', {}])
    await session.until(replyTo('2'))
    await until('Bob sees Ada', () => bob.channel.all('roomState').at(-1).state.users.length === 2)
    await until('Ada is gone', () => bob.channel.all('roomState').at(-1).state.users.length === 1, 25_000)
    equal((await session.poll()).status, 410, 'the next poll')
  }),

  unread_answers_come_again_with_pk: ours(async (t) => {
    const topic = `room:${t.room()}`
    const bob = await t.member(await t.person('Bob'), topic)
    const _pk = randomUUID()
    const person = await t.person('Ada')
    const first = await new Session(t, person).open()
    await first.send(['1', '1', topic, 'phx_join', { _pk }])
    await first.until((frame) => frame[3] === 'roomState')
    // The answer to this poll is written and never read; those before it bring what the join still told.
    for (let answer; answer !== 'cut'; ) {
      const abort = new AbortController()
      const poll = first.poll({ signal: abort.signal }).catch(() => 'cut')
      await Promise.race([poll, after(50)])
      abort.abort()
      answer = await poll
    }
    for (const message of ['one', 'two']) equal((await result(bob.channel.push('chat', { message })))[0], 'ok', 'a line')
    const second = await new Session(t, person).open()
    await second.send(['1', '1', topic, 'phx_join', { _pk }])
    const frames = await second.until((frame) => frame[3] === 'chat' && frame[4].message === 'two')
    const lines = frames.filter((frame) => frame[3] === 'chat').map((frame) => frame[4].message)
    equal(lines, ['one', 'two'], 'the lines')
  }),
}

/** Checks of what version 1.8 of the client brought. */
export const longPollingSince18 = {
  async auth_token_is_the_identity_of_polls(t) {
    const { token } = await t.person('Ada')
    const ada = await t.member(null, `room:${t.room()}`, {}, polling(t, { authToken: token }))
    equal(ada.response.name, 'Ada', 'the name')
  },

  async client_comes_back_after_its_session_is_gone(t) {
    const _pk = randomUUID()
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`, { _pk }, polling(t))
    Object.defineProperty(ada.socket.conn, 'token', { get: () => 'nonsense', set() {} })
    ada.channel.push('chat', { message: 'lost' })
    await until('it is closed', () => ada.socket.closes.length)
    // By the poll, or by the message that was on its way.
    assert([3410, 1011].includes(ada.socket.closes[0]), `the code is ${ada.socket.closes[0]}`)
    await until('it is joined again', () => ada.channel.state === 'joined' && ada.channel.all('phx_reply').length >= 2)
    equal(ada.channel.all('phx_reply').at(-1).response.id, _pk, 'the id')
    equal((await result(ada.channel.push('chat', { message: 'x' })))[0], 'ok', 'a push')
  },
}
