// Presence, as the client's own `Presence` sees it.

import { randomUUID } from 'node:crypto'
import { assert, equal, ids, ours, result, until, user, watch } from './kit.mjs'

/** A member with a presence that is attached before the join. */
async function present(t, person, topic, params = {}, options = {}) {
  const socket = t.socket(person, options)
  const channel = t.channel(socket, topic, params)
  const presence = watch(t.client.Presence, channel)
  const [status, response] = await result(channel.join())
  equal(status, 'ok', `the join (${JSON.stringify(response)})`)
  return { socket, channel, presence, id: response.id }
}

export const presenceUsers = (presence) =>
  presence
    .list((_, { metas }) => {
      equal(metas.length, 1, 'the number of metas')
      const { online_at, phx_ref, phx_ref_prev, ...fields } = metas[0]
      return fields
    })
    .sort((a, b) => (a.id < b.id ? -1 : 1))

export const presence = {
  async presence_lists_those_who_are_there(t) {
    const topic = `room:${t.room()}`
    const ada = await present(t, await t.person('Ada'), topic)
    await until('Ada is in her own list', () => ids(ada.presence).includes(ada.id))
    const bob = await present(t, await t.person('Bob'), topic)
    const both = [ada.id, bob.id].sort().join()
    await until('both see both', () => [ada, bob].every(({ presence }) => ids(presence).join() === both))
    const [meta] = bob.presence.state[ada.id].metas
    assert(typeof meta.phx_ref === 'string' && meta.phx_ref.length > 0, `phx_ref is ${meta.phx_ref}`)
    assert(Math.abs(meta.online_at - Date.now() / 1000) < 60, `online_at is ${meta.online_at}`)
    equal([meta.id, meta.name], [ada.id, 'Ada'], 'the meta')
    assert(bob.presence.syncs > 0, 'onSync was not called')
  },

  async presence_equals_the_users_of_the_room(t) {
    const topic = `room:${t.room()}`
    const people = []
    for (const name of ['Ada', 'Bob', 'Cy']) people.push(await present(t, await t.person(name), topic))
    for (const [index, { channel }] of people.entries()) {
      const own = user({ raisedHand: index === 1, extra: { nested: [index, 'ü', null] } })
      equal((await result(channel.push('userUpdate', { user: own })))[0], 'ok', 'the update')
    }
    for (const { channel, presence } of people) {
      const users = () => channel.all('roomState').at(-1).state.users
      await until('the room has all updates', () => users().length === 3 && users().every(({ extra }) => extra))
      await until(
        `the lists are equal (${JSON.stringify(presenceUsers(presence))} and ${JSON.stringify(users())})`,
        () => JSON.stringify(presenceUsers(presence).map(sorted)) === JSON.stringify([...users()].sort(byId).map(sorted))
      )
    }
  },

  async presence_tells_joins_and_leaves(t) {
    const topic = `room:${t.room()}`
    const ada = await present(t, await t.person('Ada'), topic)
    const bob = await present(t, await t.person('Bob'), topic)
    const join = await until('onJoin is called', () => ada.presence.joins.find(({ id }) => id === bob.id))
    equal(join.before, undefined, 'the presence before')
    equal(join.metas[0].name, 'Bob', 'the name')
    equal((await result(bob.channel.leave()))[0], 'ok', 'the leave')
    const leave = await until('onLeave is called', () => ada.presence.leaves.find(({ id }) => id === bob.id))
    equal(leave.after, [], 'the metas that are left')
    equal(leave.metas[0].name, 'Bob', 'the name')
    await until('Ada is alone', () => ids(ada.presence).join() === ada.id)
  },

  async update_is_one_diff_with_a_new_ref(t) {
    const topic = `room:${t.room()}`
    const ada = await present(t, await t.person('Ada'), topic)
    const bob = await present(t, await t.person('Bob'), topic)
    await until('Bob is there', () => ada.presence.state[bob.id])
    const before = ada.presence.state[bob.id].metas[0].phx_ref
    const own = user({ raisedHand: true })
    equal((await result(bob.channel.push('userUpdate', { user: own })))[0], 'ok', 'the update')
    await until('the hand is seen', () => ada.presence.state[bob.id].metas[0].raisedHand)
    const [meta] = ada.presence.state[bob.id].metas
    equal(meta.phx_ref_prev, before, 'phx_ref_prev')
    assert(meta.phx_ref !== before, 'phx_ref is as before')
    const diff = ada.channel.all('presence_diff').find(({ joins }) => joins[bob.id]?.metas[0].raisedHand)
    assert(diff, 'no diff has the update')
    equal(diff.joins[bob.id].metas.length, 1, 'the metas that join')
    equal(diff.leaves[bob.id].metas.map(({ phx_ref }) => phx_ref), [before], 'the metas that leave')
    const [called] = ada.presence.joins.filter(({ id, before: known }) => id === bob.id && known)
    equal(called.before.metas.at(-1).phx_ref, before, 'the meta that onJoin was given')
    equal(ids(ada.presence), [ada.id, bob.id].sort(), 'the list')
  },

  async presence_ends_with_the_transport(t) {
    const topic = `room:${t.room()}`
    const ada = await present(t, await t.person('Ada'), topic)
    const bob = await t.raw(await t.person('Bob')).opened()
    const { id } = await bob.join(topic, '1')
    await until('Bob is there', () => ada.presence.state[id])
    bob.ws.terminate()
    // At once: a member's grace periods are 15 s and more.
    await until('Bob is gone', () => !ada.presence.state[id], 3_000)
  },

  async presence_state_is_sent_anew_after_a_reconnect(t) {
    const topic = `room:${t.room()}`
    const _pk = randomUUID()
    const ada = await present(t, await t.person('Ada'), topic, { _pk })
    const bob = await present(t, await t.person('Bob'), topic)
    await until('Ada sees Bob', () => ids(ada.presence).length === 2)
    ada.socket.conn.terminate()
    await until('Ada is back', () => ada.socket.opens === 2 && ada.channel.state === 'joined')
    await until('the state comes again', () => ada.channel.all('presence_state').length === 2)
    await until('Ada sees both', () => ids(ada.presence).join() === [ada.id, bob.id].sort().join())
    const gone = ada.presence.leaves.filter(({ id, after }) => id === bob.id && after.length === 0)
    equal(gone, [], 'leaves of Bob')
  },

  async rapid_updates_end_with_the_newest(t) {
    const topic = `room:${t.room()}`
    const people = []
    for (const name of ['Ada', 'Bob', 'Cy', 'Di']) people.push(await present(t, await t.person(name), topic))
    const pushes = []
    for (let turn = 0; turn < 20; turn += 1) {
      for (const { channel } of people) {
        pushes.push(result(channel.push('userUpdate', { user: user({ raisedHand: turn % 2 === 1, turn }) })))
      }
    }
    for (const [status] of await Promise.all(pushes)) equal(status, 'ok', 'an update')
    for (const { presence } of people) {
      const turns = () => presenceUsers(presence).map(({ turn }) => turn).join()
      await until('all have the last turn', () => turns() === '19,19,19,19')
    }
  },

  presence_has_members_of_the_other_protocol: ours(async (t) => {
    const room = t.room()
    const ada = await present(t, await t.person('Ada'), `room:${room}`)
    const bob = await t.orange(await t.person('Bob'), room).opened()
    bob.send({ type: 'userUpdate', user: user({ raisedHand: true }) })
    const metas = await until('Bob is there', () =>
      ada.presence.list((_, { metas }) => metas[0]).find(({ name, raisedHand }) => name === 'Bob' && raisedHand)
    )
    bob.send({ type: 'userLeft' })
    await until('Bob is gone', () => !ada.presence.state[metas.id])
  }),
}

const byId = (a, b) => (a.id < b.id ? -1 : 1)

/** The same object with its keys in order, so that its text can be compared. */
const sorted = (value) =>
  value && typeof value === 'object' && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort().map(([key, inner]) => [key, sorted(inner)]))
    : value
