// Opening a socket, the frames of both versions, and coming back.

import { randomUUID } from 'node:crypto'
import WebSocket from 'ws'
import { assert, control, equal, ids, last, ours, result, until, watch } from './kit.mjs'

/** The serializer of version 1, which the client left behind; its options `encode` and `decode` take it. */
const V1 = {
  vsn: '1.0.0',
  encode: ({ topic, event, payload, ref }, send) => send(JSON.stringify({ topic, event, payload, ref })),
  decode: (text, take) => take({ join_ref: null, ...JSON.parse(text) }),
}

const bearer = (token) => `base64url.bearer.phx.${Buffer.from(token).toString('base64').replace(/=/g, '')}`

/** The status with which an upgrade is refused, or `open`. */
async function outcome(raw) {
  await until('the upgrade is answered', () => raw.refused || raw.ws.readyState === WebSocket.OPEN)
  return raw.refused ?? 'open'
}

export const sockets = {
  async heartbeats_are_answered(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    raw.send([null, '5', 'phoenix', 'heartbeat', {}])
    equal(await raw.reply('5'), [null, '5', 'phoenix', 'phx_reply', { status: 'ok', response: {} }], 'the answer')
    raw.send([null, '6', 'phoenix', 'chat', {}])
    const unmatched = { status: 'error', response: { reason: 'unmatched topic' } }
    equal((await raw.reply('6'))[4], unmatched, 'the answer to something else')
    // The client's own timer: without an answer it would close.
    const socket = t.socket(await t.person('Bob'), { heartbeatIntervalMs: 50 })
    const sent = []
    const push = socket.push
    socket.push = (message) => (message.event === 'heartbeat' && sent.push(message.ref), push.call(socket, message))
    await until('five heartbeats are sent', () => sent.length >= 5)
    equal(socket.closes, [], 'closes')
  },

  async heartbeats_are_answered_beside_many_joins(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topics = Array.from({ length: 25 }, () => `room:${t.room()}`)
    for (const [index, topic] of topics.entries()) {
      raw.send([`j${index}`, `j${index}`, topic, 'phx_join', {}])
      raw.send([null, `h${index}`, 'phoenix', 'heartbeat', {}])
    }
    for (const index of topics.keys()) {
      equal((await raw.reply(`h${index}`))[4].status, 'ok', 'a heartbeat')
      equal((await raw.reply(`j${index}`))[4].status, 'ok', 'a join')
    }
  },

  async refs_come_back_as_they_were(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    for (const [join, ref] of [[1, 2], ['a "b" \\ ü', '🍊']]) {
      raw.send([join, ref, topic, 'phx_join', {}])
      equal((await raw.reply(ref)).slice(0, 3), [join, ref, topic], 'the head')
    }
    raw.send([null, 0, 'phoenix', 'heartbeat', {}])
    equal((await raw.reply(0))[1], 0, 'the ref of a heartbeat')
  },

  async topics_may_be_written_with_escapes(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const name = t.room()
    raw.send(`["1","1","\\u0072oom:${name}\\u00fc","phx_\\u006aoin",{}]`)
    const reply = await raw.reply('1')
    equal([reply[2], reply[4].status], [`room:${name}ü`, 'ok'], 'the reply')
    raw.send([null, '2', `room:${name}ü`, 'chat', { message: 'x' }])
    equal((await raw.reply('2'))[4].status, 'ok', 'a push')
  },

  async version_1_has_objects(t) {
    const raw = await t.raw(await t.person('Ada'), { vsn: '1.0.0' }).opened()
    const topic = `room:${t.room()}`
    raw.send({ topic, event: 'phx_join', payload: {}, ref: '1' })
    const reply = await raw.reply('1')
    equal(Object.keys(reply).sort(), ['event', 'payload', 'ref', 'topic'], 'the keys')
    equal([reply.topic, reply.payload.status], [topic, 'ok'], 'the join')
    const state = await raw.take('presence_state', ({ event }) => event === 'presence_state')
    equal([state.topic, state.ref], [topic, null], 'the head of presence_state')
    const room = await raw.take('roomState', ({ event }) => event === 'roomState')
    equal([room.topic, room.ref, room.payload.type], [topic, null, 'roomState'], 'roomState')
    raw.send({ topic: 'phoenix', event: 'heartbeat', payload: {}, ref: '2' })
    const ok = { status: 'ok', response: {} }
    equal(await raw.reply('2'), { topic: 'phoenix', event: 'phx_reply', payload: ok, ref: '2' }, 'the heartbeat')
    raw.send({ topic, event: 'chat', payload: { message: 'x' }, ref: '3' })
    equal(await raw.reply('3'), { topic, event: 'phx_reply', payload: ok, ref: '3' }, 'the push')
    await raw.take('the chat', ({ event, payload }) => event === 'chat' && payload.message === 'x')
    raw.send({ topic, event: 'phx_leave', payload: {}, ref: '5' })
    equal(await raw.reply('5'), { topic, event: 'phx_reply', payload: ok, ref: '5' }, 'the leave')
    const close = await raw.take('phx_close', ({ event }) => event === 'phx_close')
    equal(close, { topic, event: 'phx_close', payload: {}, ref: null }, 'phx_close')
  },

  async version_1_serves_the_client(t) {
    const topic = `room:${t.room()}`
    const ada = await t.member(await t.person('Ada'), topic, {}, V1)
    const bob = await t.member(await t.person('Bob'), topic)
    equal(await result(ada.channel.push('chat', { message: 'from 1' })), ['ok', {}], 'the push')
    equal(await result(bob.channel.push('chat', { message: 'from 2' })), ['ok', {}], 'the push')
    for (const { channel } of [ada, bob]) {
      const lines = () => channel.all('chat').map(({ message }) => message).join()
      await until('both lines come', () => lines() === 'from 1,from 2')
    }
    await until('Ada sees two', () => ada.channel.all('roomState').at(-1).state.users.length === 2)
    equal((await result(ada.channel.leave()))[0], 'ok', 'the leave')
  },

  async versions_are_chosen_by_vsn(t) {
    const ada = await t.person('Ada')
    for (const [vsn, isArray] of [[null, false], ['1.0.0', false], ['1.0.7', false], ['2.0.0', true], ['2.0.9', true]]) {
      const raw = await t.raw(ada, { vsn }).opened()
      raw.send(isArray ? [null, '1', 'phoenix', 'heartbeat', {}] : { topic: 'phoenix', event: 'heartbeat', payload: {}, ref: '1' })
      equal(Array.isArray(await raw.reply('1')), isArray, `the form of version ${vsn}`)
    }
    for (const vsn of ['2.5.0', '3.0.0', 'abc', '2']) {
      const status = await outcome(t.raw(ada, { vsn }))
      assert([400, 403].includes(status), `${vsn} is answered ${status}`)
    }
    const socket = t.socket(ada, { vsn: '3.0.0' })
    await until('the client has tried several times', () => socket.errors >= 3)
    equal(socket.opens, 0, 'opens')
  },

  async missing_and_bad_tokens_are_refused(t) {
    for (const token of ['', 'nonsense', 'a.b.c', 'x'.repeat(2000)]) {
      const status = await outcome(t.raw({ token }))
      assert([401, 403].includes(status), `${token.slice(0, 10)} is answered ${status}`)
    }
    const status = await outcome(t.raw(null))
    assert([401, 403].includes(status), `no token is answered ${status}`)
    const socket = t.socket({ token: 'nonsense' })
    const channel = t.channel(socket, `room:${t.room()}`)
    channel.join()
    await until('the client has tried several times', () => socket.errors >= 3)
    equal([socket.opens, channel.state === 'joined'], [0, false], 'opens, and whether it is joined')
  },

  async foreign_origins_are_refused(t) {
    const ada = await t.person('Ada')
    const from = (origin) => outcome(t.raw(ada, { options: { origin } }))
    equal(await from('https://evil.example'), 403, 'another host')
    equal(await from(t.server), 'open', 'our own')
    equal(await from(undefined), 'open', 'none')
  },

  cookies_count_from_our_own_pages: ours(async (t) => {
    const { cookie } = await t.person('Ada')
    const with_ = (origin) => outcome(t.raw(null, { options: { origin, headers: { cookie } } }))
    equal(await with_(t.server), 'open', 'our own')
    equal(await with_('https://evil.example'), 403, 'another host')
  }),

  async token_in_a_subprotocol_is_taken(t) {
    const { token } = await t.person('Ada')
    const raw = await t.raw(null, { protocols: ['phoenix', bearer(token)] }).opened()
    equal(raw.ws.protocol, 'phoenix', 'the chosen subprotocol')
    const { name } = await raw.join(`room:${t.room()}`, '1')
    equal(name, 'Ada', 'the name')
    const status = await outcome(t.raw(null, { protocols: ['phoenix', bearer('nonsense')] }))
    assert([401, 403].includes(status), `a bad one is answered ${status}`)
  },

  async unknown_subprotocols_are_refused(t) {
    equal(await outcome(t.raw(await t.person('Ada'), { protocols: ['graphql-ws'] })), 403, 'the answer')
  },

  async unreadable_frames_close_with_1011(t) {
    const ada = await t.person('Ada')
    const topic = `room:${t.room()}`
    const bad = ['garbage', '{}', '[]', '5', '["1","1","room:a","phx_join"]', '{"topic":"a"}', Buffer.from([0, 9, 9])]
    for (const frame of bad) {
      const raw = await t.raw(ada).opened()
      await raw.join(topic, '1')
      raw.send(frame)
      const { code } = await until('the socket is closed', () => raw.closed)
      equal(code, 1011, `the code for ${frame}`)
    }
    const one = await t.raw(ada, { vsn: '1.0.0' }).opened()
    one.send({ topic: 'phoenix', event: 'heartbeat', payload: {} })
    equal((await until('the socket is closed', () => one.closed)).code, 1011, 'the code of version 1')
  },

  async client_comes_back_after_an_unreadable_frame(t) {
    const _pk = randomUUID()
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`, { _pk })
    ada.socket.conn.send('garbage')
    await until('it is closed and open again', () => ada.socket.closes.length === 1 && ada.socket.opens === 2)
    equal(ada.socket.closes, [1011], 'codes')
    await until('it is joined again', () => ada.channel.state === 'joined' && ada.channel.all('phx_reply').length === 2)
    equal(ada.channel.all('phx_reply')[1].response.id, _pk, 'the id')
    equal((await result(ada.channel.push('chat', { message: 'x' })))[0], 'ok', 'a push')
  },

  async reconnect_with_pk_keeps_the_id(t) {
    const topic = `room:${t.room()}`
    const bob = await t.member(await t.person('Bob'), topic)
    const _pk = randomUUID()
    const ada = await t.member(await t.person('Ada'), topic, { _pk })
    equal(ada.id, _pk, 'the id')
    ada.socket.conn.terminate()
    await until('Ada is joined again', () => ada.channel.state === 'joined' && ada.channel.all('phx_reply').length === 2)
    equal(ada.channel.all('phx_reply')[1].response.id, _pk, 'the id')
    const ids = ({ channel }) => channel.all('roomState').at(-1).state.users.map(({ id }) => id).sort().join()
    const both = [_pk, bob.id].sort().join()
    await until('both see both', () => [ada, bob].every((member) => ids(member) === both))
  },

  reconnect_with_pk_is_no_leave_and_loses_nothing: ours(async (t) => {
    const topic = `room:${t.room()}`
    const bob = await t.member(await t.person('Bob'), topic)
    const presence = watch(t.client.Presence, bob.channel)
    const _pk = randomUUID()
    const ada = await t.member(await t.person('Ada'), topic, { _pk }, { reconnectAfterMs: () => 300 })
    await until('Bob sees Ada', () => bob.channel.all('roomState').at(-1)?.state.users.length === 2)
    ada.socket.conn.terminate()
    for (const message of ['one', 'two']) equal((await result(bob.channel.push('chat', { message })))[0], 'ok', 'a line')
    equal((await result(bob.channel.push('directMessage', { to: _pk, message: 'three' })))[0], 'ok', 'a message')
    equal(ada.socket.opens, 1, 'opens')
    await until('the message comes', () => ada.channel.all('directMessage').length === 1)
    const waited = ada.channel.seen.filter(({ event }) => ['chat', 'directMessage'].includes(event))
    equal(waited.map(({ payload }) => payload.message), ['one', 'two', 'three'], 'what waited')
    await until('presence was told of Ada', () => ids(presence).length === 2 || presence.joins.length === 0)
    equal(presence.leaves, [], 'leaves')
    equal(bob.channel.all('userLeftNotification'), [], 'notifications')
  }),

  async clients_without_pk_or_that_decline_hear_no_pings(t) {
    // Slipstream, the client of Elixir, fails at a ping.
    const person = await t.person('Ada')
    for (const [params, join] of [[{}, {}], [{ pings: 'false' }, { _pk: randomUUID() }]]) {
      const raw = await t.raw(person, { params }).opened()
      const topic = `room:${t.room()}`
      await raw.join(topic, '1', join)
      for (let line = 0; line < 20; line += 1) {
        raw.send(['1', `l${line}`, topic, 'chat', { message: 'x' }])
        await raw.reply(`l${line}`)
      }
      await until('all lines come', () => raw.frames.filter((frame) => frame[3] === 'chat').length === 20)
      await raw.settled()
      equal(raw.pings, 0, 'the number of pings')
    }
  },

  pings_confirm_the_events_of_members_with_pk: ours(async (t) => {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    await raw.join(topic, '1', { _pk: randomUUID() })
    raw.send(['1', '2', topic, 'chat', { message: 'x' }])
    await until('a ping comes', () => raw.pings > 0)
  }),

  async reconnect_without_pk_leaves_no_ghost(t) {
    const topic = `room:${t.room()}`
    const bob = await t.member(await t.person('Bob'), topic)
    const ada = await t.member(await t.person('Ada'), topic)
    await until('Bob sees Ada', () => bob.channel.all('roomState').at(-1).state.users.length === 2)
    ada.socket.conn.terminate()
    await until('Ada is joined again', () => ada.channel.state === 'joined' && ada.channel.all('phx_reply').length === 2)
    const { id } = ada.channel.all('phx_reply')[1].response
    assert(id !== ada.id, 'the id is as before')
    const users = () => bob.channel.all('roomState').at(-1).state.users.map((user) => user.id).sort().join()
    await until('Bob sees one Ada', () => users() === [id, bob.id].sort().join(), 3_000)
  },

  async newer_join_of_a_pk_closes_the_older_channel(t) {
    const person = await t.person('Ada')
    const [topic, other] = [`room:${t.room()}`, `room:${t.room()}`]
    const _pk = randomUUID()
    const old = await t.member(person, topic, { _pk }, { rejoinAfterMs: () => 20 })
    const elsewhere = t.channel(old.socket, other)
    equal((await result(elsewhere.join()))[0], 'ok', 'the other topic')
    const young = await t.member(person, topic, { _pk })
    equal(young.id, _pk, 'the id')
    await until('the older is closed', () => old.channel.state === 'closed' && old.channel.closes === 1)
    equal((await result(elsewhere.push('chat', { message: 'x' })))[0], 'ok', 'a push elsewhere')
    equal((await result(young.channel.push('chat', { message: 'x' })))[0], 'ok', 'a push of the newer')
    equal([old.socket.closes, old.channel.closes, young.channel.closes], [[], 1, 0], 'closes')
    equal(old.channel.all('chat'), [], 'chats of the older')
  },

  async pk_of_another_identity_is_refused(t) {
    const topic = `room:${t.room()}`
    const _pk = randomUUID()
    const ada = await t.member(await t.person('Ada'), topic, { _pk })
    const socket = t.socket(await t.person('Eve'))
    const join = await result(t.channel(socket, topic, { _pk }).join())
    equal(join, ['error', { reason: 'id in use' }], 'the join')
    equal(ada.channel.state, 'joined', "the owner's state")
  },

  async compressed_and_plain_sockets_hear_the_same(t) {
    const topic = `room:${t.room()}`
    const [ada, bob] = [await t.person('Ada'), await t.person('Bob')]
    const plain = await t.raw(ada, { options: { perMessageDeflate: false } }).opened()
    const packed = await t.raw(bob, { options: { perMessageDeflate: true } }).opened()
    const one = await t.raw(bob, { vsn: '1.0.0', options: { perMessageDeflate: true } }).opened()
    await plain.join(topic, '1')
    await packed.join(topic, '1')
    one.send({ topic, event: 'phx_join', payload: {}, ref: '1' })
    await one.reply('1')
    const long = `${'long '.repeat(300)}ü"\\`
    for (const message of ['short', long, 'end']) packed.send(['1', message.slice(0, 5), topic, 'chat', { message }])
    const lines = []
    for (const socket of [plain, packed, one]) {
      const chat = (frame) => (Array.isArray(frame) ? frame[3] === 'chat' && frame[4] : frame.event === 'chat' && frame.payload)
      await until('all lines come', () => socket.frames.filter(chat).length === 3)
      lines.push(socket.frames.map(chat).filter(Boolean))
    }
    equal(lines[1], lines[0], 'the compressed lines')
    equal(lines[2], lines[0], 'the compressed lines of version 1')
    equal(lines[0][1].message, long, 'the long line')
  },

  client_comes_back_after_a_restart: last(async (t) => {
    const topic = `room:${t.room()}`
    const people = []
    for (const name of ['Ada', 'Bob']) people.push(await t.member(await t.person(name), topic, { _pk: randomUUID() }))
    await control('restart')
    for (const { socket, channel, id } of people) {
      await until(`it is joined again`, () => channel.state === 'joined' && channel.all('phx_reply').length >= 2, 20_000)
      equal(socket.closes[0], 1012, 'the code')
      equal(channel.all('phx_reply').at(-1).response.id, id, 'the id')
      equal((await result(channel.push('chat', { message: id })))[0], 'ok', 'a line')
    }
    for (const { channel } of people) {
      await until('both are there', () => channel.all('roomState').at(-1).state.users.length === 2)
      await until("the second's line comes", () => channel.all('chat').some(({ message }) => message === people[1].id))
      equal(channel.closes, 0, 'closes of the channel')
    }
  }),
}

/** Checks of what version 1.8 of the client brought. */
export const socketsSince18 = {
  async auth_token_is_the_identity(t) {
    const { token } = await t.person('Ada')
    const ada = await t.member(null, `room:${t.room()}`, {}, { authToken: token })
    equal(ada.response.name, 'Ada', 'the name')
    equal(ada.socket.conn.protocol, 'phoenix', 'the chosen subprotocol')
    const socket = t.socket(null, { authToken: 'nonsense' })
    await until('the client has tried several times', () => socket.errors >= 3)
    equal(socket.opens, 0, 'opens')
  },
}
