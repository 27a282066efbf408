// Joining and leaving topics, and the messages of a room.

import { randomUUID } from 'node:crypto'
import { assert, equal, ours, result, until, user } from './kit.mjs'

const REASON = (response) => typeof response.reason === 'string' && response.reason.length > 0

export const topics = {
  async join_is_answered_with_id_and_name(t) {
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`)
    assert(typeof ada.id === 'string' && ada.id.length > 0, `id is ${ada.id}`)
    equal(ada.response.name, 'Ada', 'name')
    equal(ada.channel.state, 'joined', 'state')
  },

  async join_brings_reply_presence_and_room_in_order(t) {
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`)
    const { seen } = ada.channel
    await until('roomState comes', () => ada.channel.all('roomState').length)
    // Phoenix may send a diff before the state, which the client holds back.
    const events = seen.map(({ event }) => event).filter((event) => event !== 'presence_diff')
    equal(events.slice(0, 3), ['phx_reply', 'presence_state', 'roomState'], 'the first messages')
    const [first] = ada.channel.all('roomState')
    equal(first.type, 'roomState', 'type')
    equal(first.state.users.map(({ id, name }) => [id, name]), [[ada.id, 'Ada']], 'users')
    assert(typeof first.state.meetingId === 'string', 'meetingId is missing')
    equal(first.state.ai.enabled, false, 'ai.enabled')
  },

  async join_of_a_foreign_topic_is_unmatched(t) {
    const socket = t.socket(await t.person('Ada'))
    for (const topic of ['lobby:a', 'room', 'rooms:a', 'phoenix:a']) {
      const channel = t.channel(socket, topic)
      equal(await result(channel.join()), ['error', { reason: 'unmatched topic' }], topic)
      channel.leave()
    }
  },

  async join_of_an_invalid_name_is_refused(t) {
    const socket = t.socket(await t.person('Ada'))
    for (const name of ['', 'x'.repeat(129), 'a\u0007b']) {
      const channel = t.channel(socket, `room:${name}`)
      const [status, response] = await result(channel.join())
      equal(status, 'error', JSON.stringify(name))
      assert(REASON(response) && response.reason !== 'unmatched topic', JSON.stringify(response))
      channel.leave()
    }
    equal(socket.closes, [], 'closes')
  },

  async names_are_texts_and_not_paths(t) {
    const socket = t.socket(await t.person('Ada'))
    const base = t.room()
    const names = [`${base} "quoted" \\ ümlaut 🍊`, `${base}/a/b`, `${base}%2Fa`, `${base}?x=1#y`, `${base}:colon`]
    const meetings = new Set()
    for (const name of names) {
      const channel = t.channel(socket, `room:${name}`)
      const [status] = await result(channel.join())
      equal(status, 'ok', name)
      await until('roomState comes', () => channel.all('roomState').length)
      meetings.add(channel.all('roomState')[0].state.meetingId)
    }
    equal(meetings.size, names.length, 'the number of meetings')
  },

  async refused_join_is_tried_again(t) {
    // The client's own timer, sped up; the channel is free once its owner has left.
    const [ada, bob] = [await t.person('Ada'), await t.person('Bob')]
    const topic = `room:${t.room()}`
    const _pk = randomUUID()
    const owner = await t.member(ada, topic, { _pk })
    const socket = t.socket(bob, { rejoinAfterMs: () => 20 })
    let wanted = _pk
    const channel = t.channel(socket, topic, () => ({ _pk: wanted }))
    const [status, response] = await result(channel.join())
    equal([status, response], ['error', { reason: 'id in use' }], 'the join')
    wanted = randomUUID()
    await until('the channel is joined', () => channel.state === 'joined')
    equal(owner.channel.state, 'joined', 'the state of the owner')
    equal(socket.closes, [], 'closes')
  },

  async second_channel_of_a_topic_replaces_the_first(t) {
    const socket = t.socket(await t.person('Ada'))
    const topic = `room:${t.room()}`
    const first = t.channel(socket, topic)
    equal((await result(first.join()))[0], 'ok', 'the first join')
    const second = t.channel(socket, topic)
    equal((await result(second.join()))[0], 'ok', 'the second join')
    await until('the first is closed', () => first.state === 'closed')
    equal(second.state, 'joined', 'the state of the second')
    equal((await result(second.push('chat', { message: 'x' })))[0], 'ok', 'a push')
  },

  async rejoin_answers_first_and_then_closes_the_old_join(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    await raw.join(topic, '1')
    raw.send(['2', '2', topic, 'phx_join', {}])
    const reply = await raw.reply('2')
    equal([reply[0], reply[4].status], ['2', 'ok'], 'the reply')
    // It stands behind the reply, so it is still among the frames.
    equal(await raw.event('phx_close'), ['1', '1', topic, 'phx_close', {}], 'phx_close')
  },

  async reply_comes_before_everything_else_of_its_join(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    raw.send(['7', '8', topic, 'phx_join', {}])
    await raw.take('roomState', (frame) => frame[3] === 'roomState')
    const [reply] = raw.frames
    const state = await raw.event('presence_state')
    equal(reply.slice(0, 4), ['7', '8', topic, 'phx_reply'], 'the head of the reply')
    equal(Object.keys(reply[4]).sort(), ['response', 'status'], 'the fields of the reply')
    equal(state.slice(0, 4), ['7', null, topic, 'presence_state'], 'the head of presence_state')
  },

  async messages_of_an_older_join_are_ignored(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    await raw.join(topic, '1')
    await raw.join(topic, '2')
    raw.send(['1', '3', topic, 'chat', { message: 'old' }])
    raw.send(['1', '4', topic, 'phx_leave', {}])
    raw.send(['2', '5', topic, 'chat', { message: 'new' }])
    equal((await raw.reply('5'))[4].status, 'ok', 'the newer push')
    await raw.settled()
    const strays = raw.frames.filter((frame) => ['3', '4'].includes(frame[1]))
    equal(strays, [], 'answers to the older join')
    const chats = raw.frames.filter((frame) => frame[3] === 'chat').map((frame) => frame[4].message)
    equal(chats, ['new'], 'chats')
  },

  async null_join_ref_is_the_current_join(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    await raw.join(topic, '1')
    raw.send([null, '2', topic, 'chat', { message: 'x' }])
    equal(await raw.reply('2'), ['1', '2', topic, 'phx_reply', { status: 'ok', response: {} }], 'the reply')
    raw.send([null, '3', topic, 'phx_leave', {}])
    equal(await raw.reply('3'), ['1', '3', topic, 'phx_reply', { status: 'ok', response: {} }], 'the leave')
    equal(await raw.event('phx_close'), ['1', '1', topic, 'phx_close', {}], 'phx_close')
  },

  async leave_is_answered_and_closes_the_channel(t) {
    const topic = `room:${t.room()}`
    const [ada, bob] = [await t.member(await t.person('Ada'), topic), await t.member(await t.person('Bob'), topic)]
    equal((await result(ada.channel.leave()))[0], 'ok', 'the leave')
    await until('the channel is closed', () => ada.channel.state === 'closed' && ada.channel.closes)
    await until('Bob is alone', () => bob.channel.all('roomState').at(-1)?.state.users.length === 1)
    equal(ada.socket.closes, [], 'closes of the socket')
    // The topic can be joined anew over the same socket.
    equal((await result(t.channel(ada.socket, topic).join()))[0], 'ok', 'another join')
  },

  async leave_of_a_topic_that_is_not_joined_is_ok(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    raw.send(['1', '2', topic, 'phx_leave', {}])
    equal((await raw.reply('2'))[4], { status: 'ok', response: {} }, 'the reply')
    await raw.settled()
    equal(raw.frames, [], 'further frames')
  },

  async messages_after_a_leave_are_unmatched(t) {
    const raw = await t.raw(await t.person('Ada')).opened()
    const topic = `room:${t.room()}`
    await raw.join(topic, '1')
    raw.send(['1', '2', topic, 'phx_leave', {}])
    equal(await raw.reply('2'), ['1', '2', topic, 'phx_reply', { status: 'ok', response: {} }], 'the reply')
    equal(await raw.event('phx_close'), ['1', '1', topic, 'phx_close', {}], 'phx_close')
    raw.frames.length = 0
    raw.send(['1', '3', topic, 'chat', { message: 'x' }])
    const unmatched = { status: 'error', response: { reason: 'unmatched topic' } }
    equal((await raw.reply('3'))[4], unmatched, 'the answer')
    await raw.settled()
    equal(raw.frames, [], 'further frames')
  },

  async pushes_before_the_join_are_sent_after_it(t) {
    const socket = t.socket(await t.person('Ada'))
    const channel = t.channel(socket, `room:${t.room()}`)
    const joined = channel.join()
    const push = result(channel.push('chat', { message: 'early' }))
    equal((await result(joined))[0], 'ok', 'the join')
    equal(await push, ['ok', {}], 'the push')
    await until('the chat comes', () => channel.all('chat').length)
  },

  async pushes_are_answered_ok_and_events_arrive(t) {
    const topic = `room:${t.room()}`
    const [ada, bob] = [await t.member(await t.person('Ada'), topic), await t.member(await t.person('Bob'), topic)]
    equal(await result(ada.channel.push('chat', { message: 'Hello "Bob" 🍊' })), ['ok', {}], 'the answer')
    for (const { channel } of [ada, bob]) {
      const [line] = await until('the chat comes', () => channel.all('chat').length && channel.all('chat'))
      equal([line.type, line.from, line.name, line.message], ['chat', ada.id, 'Ada', 'Hello "Bob" 🍊'], 'the line')
    }
  },

  chat_has_one_order_for_all: ours(async (t) => {
    const topic = `room:${t.room()}`
    const people = [await t.member(await t.person('Ada'), topic), await t.member(await t.person('Bob'), topic)]
    const pushes = []
    for (let line = 0; line < 50; line += 1) {
      for (const { channel } of people) pushes.push(result(channel.push('chat', { message: String(line) })))
    }
    for (const answer of await Promise.all(pushes)) equal(answer[0], 'ok', 'a push')
    const lines = ({ channel }) => channel.all('chat').map(({ from, message }) => `${from} ${message}`)
    await until('all lines have come', () => people.every((member) => lines(member).length === 100))
    assert(lines(people[0]).join() === lines(people[1]).join(), 'the order differs')
    for (const { id } of people) {
      const own = lines(people[0]).filter((line) => line.startsWith(id)).map((line) => Number(line.split(' ')[1]))
      equal(own, [...own.keys()], "a member's own lines")
    }
  }),

  async bad_payloads_are_answered_and_the_channel_lives(t) {
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`)
    const bad = [
      ['chat', {}],
      ['chat', { message: '' }],
      ['chat', { message: 5 }],
      ['userUpdate', { user: 'no object' }],
      ['directMessage', 'text'],
      ['chat', { type: 'userUpdate', message: 'x' }],
    ]
    for (const [event, payload] of bad) {
      const [status, response] = await result(ada.channel.push(event, payload))
      equal(status, 'error', `${event} ${JSON.stringify(payload)}`)
      assert(REASON(response), JSON.stringify(response))
      const error = await until('the event error comes', () => ada.channel.all('error').at(-1))
      equal([error.type, error.error], ['error', response.reason], 'the event')
    }
    equal(await result(ada.channel.push('chat', { message: 'x' })), ['ok', {}], 'a good push')
    equal([ada.channel.state, ada.channel.errors], ['joined', 0], 'the channel')
  },

  async unknown_events_are_answered_and_the_channel_lives(t) {
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`)
    for (const event of ['nothing', 'roomState', 'presence_state', '__proto__', 'phx_nothing']) {
      const [status, response] = await result(ada.channel.push(event, {}))
      equal(status, 'error', event)
      assert(REASON(response), JSON.stringify(response))
    }
    equal(await result(ada.channel.push('chat', { message: 'x' })), ['ok', {}], 'a good push')
    equal([ada.channel.state, ada.channel.errors], ['joined', 0], 'the channel')
  },

  async binary_pushes_are_answered_with_an_error(t) {
    const ada = await t.member(await t.person('Ada'), `room:${t.room()}`)
    const [status, response] = await result(ada.channel.push('chat', new Uint8Array([1, 2, 3]).buffer))
    equal([status, response], ['error', { reason: 'no binary events' }], 'the answer')
    equal(await result(ada.channel.push('chat', { message: 'x' })), ['ok', {}], 'a good push')
    equal(ada.channel.errors, 0, 'errors')
  },

  async direct_messages_reach_their_member_alone(t) {
    const topic = `room:${t.room()}`
    const people = []
    for (const name of ['Ada', 'Bob', 'Cy']) people.push(await t.member(await t.person(name), topic))
    const [ada, bob, cy] = people
    equal(await result(ada.channel.push('directMessage', { to: bob.id, message: 'psst' })), ['ok', {}], 'the answer')
    await until('it comes', () => bob.channel.all('directMessage').length)
    equal(bob.channel.all('directMessage'), [{ type: 'directMessage', from: 'Ada', message: 'psst' }], 'the message')
    equal(await result(ada.channel.push('chat', { message: 'end' })), ['ok', {}], 'a chat')
    await until('the chat comes', () => cy.channel.all('chat').length)
    equal(cy.channel.all('directMessage'), [], 'messages to Cy')
  },

  async mute_user_reaches_the_member(t) {
    const topic = `room:${t.room()}`
    const [ada, bob] = [await t.member(await t.person('Ada'), topic), await t.member(await t.person('Bob'), topic)]
    equal((await result(bob.channel.push('userUpdate', { user: user() })))[0], 'ok', 'the update')
    equal(await result(ada.channel.push('muteUser', { id: bob.id })), ['ok', {}], 'the answer')
    await until('muteMic comes', () => bob.channel.all('muteMic').length)
    equal(bob.channel.all('muteMic'), [{ type: 'muteMic' }], 'muteMic')
  },

  async mls_messages_reach_the_others_alone(t) {
    const topic = `room:${t.room()}`
    const [ada, bob] = [await t.member(await t.person('Ada'), topic), await t.member(await t.person('Bob'), topic)]
    const payload = 'AAH/ some base64 =='
    equal((await result(ada.channel.push('e2eeMlsMessage', { type: 'e2eeMlsMessage', payload })))[0], 'ok', 'the answer')
    await until('it comes', () => bob.channel.all('e2eeMlsMessage').length)
    equal(bob.channel.all('e2eeMlsMessage'), [{ type: 'e2eeMlsMessage', payload }], 'the message')
    equal((await result(ada.channel.push('heartbeat', {})))[0], 'ok', "the room's own heartbeat")
    equal(ada.channel.all('e2eeMlsMessage'), [], 'messages to the sender')
  },

  async user_left_ends_the_channel_like_a_leave(t) {
    const topic = `room:${t.room()}`
    const [ada, bob] = [await t.member(await t.person('Ada'), topic), await t.member(await t.person('Bob'), topic)]
    equal((await result(ada.channel.push('userLeft', {})))[0], 'ok', 'the answer')
    await until('the channel is closed', () => ada.channel.state === 'closed')
    await until('Bob is alone', () => bob.channel.all('roomState').at(-1)?.state.users.length === 1)
    equal(ada.socket.closes, [], 'closes of the socket')
  },

  async hundred_topics_fit_and_one_more_is_refused(t) {
    // A room is charged to the identity that starts it.
    const names = Array.from({ length: 101 }, () => t.room('hundred'))
    for (let first = 0; first < 101; first += 21) {
      const socket = t.socket(await t.person(`Starter${first}`))
      const joins = names.slice(first, first + 21).map((name) => result(t.channel(socket, `room:${name}`).join()))
      for (const [status, response] of await Promise.all(joins)) equal([status, response.reason], ['ok', undefined], 'a join')
    }
    const socket = t.socket(await t.person('Ada'), { rejoinAfterMs: () => 60_000 })
    const channels = names.map((name) => t.channel(socket, `room:${name}`))
    const joins = channels.slice(0, 100).map((channel) => result(channel.join(), 30_000))
    for (const [status, response] of await Promise.all(joins)) equal([status, response.reason], ['ok', undefined], 'a join')
    const refusal = await result(channels[100].join())
    equal(refusal, ['error', { reason: 'too many channels joined' }], 'the 101st join')
    equal((await result(channels[99].push('chat', { message: 'x' })))[0], 'ok', 'a push')
    equal((await result(channels[0].leave()))[0], 'ok', 'a leave')
    const another = t.channel(socket, `room:${names[0]}`)
    equal((await result(another.join()))[0], 'ok', 'a join in its place')
  },

  members_of_both_protocols_share_a_room: ours(async (t) => {
    const room = t.room('mixed room ü')
    const ada = await t.member(await t.person('Ada'), `room:${room}`)
    const bob = await t.orange(await t.person('Bob'), room).opened()
    const state = await bob.take('a roomState of two', ({ type, state }) => type === 'roomState' && state.users.length === 2)
    equal(state.state.users.map(({ name }) => name).sort(), ['Ada', 'Bob'], 'users')
    const seen = await until('Ada sees Bob', () =>
      ada.channel.all('roomState').find(({ state }) => state.users.length === 2)
    )
    equal(seen.state.meetingId, state.state.meetingId, 'the meeting')
    const bobsId = seen.state.users.find(({ name }) => name === 'Bob').id
    for (let line = 0; line < 20; line += 1) {
      bob.send({ type: 'chat', message: `bob ${line}` })
      ada.channel.push('chat', { message: `ada ${line}` })
    }
    const lines = () => bob.frames.filter(({ type }) => type === 'chat')
    await until('all lines have come', () => lines().length === 40 && ada.channel.all('chat').length === 40)
    equal(lines(), ada.channel.all('chat'), 'the lines of both')
    equal((await result(ada.channel.push('muteUser', { id: bobsId })))[0], 'ok', 'the mute')
    await bob.take('muteMic', ({ type }) => type === 'muteMic')
    bob.send({ type: 'directMessage', to: ada.id, message: 'hi' })
    await until('it comes', () => ada.channel.all('directMessage').length)
    bob.send({ type: 'userLeft' })
    await until('Ada is told', () => ada.channel.all('userLeftNotification').some(({ id }) => id === bobsId))
  }),
}
