// A room's page built from the npm packages of the stock client, used as it uses them.
//
// It has no controls: the test calls `client`.

import PartySocket from 'partysocket'
import { PartyTracks, getCamera, getMic } from 'partytracks/client'
import { BehaviorSubject, of } from 'rxjs'

const camera = getCamera({
  broadcasting: true,
  constraints: { width: { ideal: 640 }, height: { ideal: 480 } },
})
const mic = getMic({ broadcasting: true })
// Low enough that a browser sends both layers from the start, with any bandwidth estimate.
const encodings = [
  { rid: 'a', maxBitrate: 300_000 },
  { rid: 'b', maxBitrate: 100_000, scaleResolutionDownBy: 2 },
]
const rid$ = new BehaviorSubject('a')
const partyTracks = new PartyTracks()
const socket = new PartySocket({
  host: location.host,
  party: 'rooms',
  room: decodeURIComponent(location.pathname.slice(1)),
})

const me = {
  id: socket.id,
  name: '',
  joined: true,
  raisedHand: false,
  speaking: false,
  tracks: { audioEnabled: true, videoEnabled: true, screenShareEnabled: false },
}
const say = (message) => socket.send(JSON.stringify(message))
const introduce = () => say({ type: 'userUpdate', user: me })

/** Publishes the name of one of our tracks to all members, now and after each change. */
function publish(kind, track$, sendEncodings$) {
  return partyTracks.push(track$, { sendEncodings$ }).subscribe(({ sessionId, trackName }) => {
    me.transceiverSessionId = sessionId
    me.tracks[kind] = `${sessionId}/${trackName}`
    introduce()
  })
}

const pushes = [
  publish('video', camera.broadcastTrack$, of(encodings)),
  publish('audio', mic.broadcastTrack$, of([{ networkPriority: 'high' }])),
]
mic.isBroadcasting$.subscribe((is) => {
  me.tracks.audioEnabled = is
  introduce()
})

/** Pulled tracks by name: a subscription, and the element that plays it. */
const pulls = new Map()

function pull(reference, kind, owner) {
  const [sessionId, trackName] = reference.split('/')
  const element = document.createElement(kind)
  Object.assign(element, { autoplay: true, playsInline: true, muted: kind === 'video' })
  element.dataset.owner = owner
  document.body.append(element)
  const how = kind === 'video' ? { simulcast: { preferredRid$: rid$ } } : undefined
  const subscription = partyTracks
    .pull(of({ sessionId, trackName, location: 'remote' }), how)
    .subscribe((track) => (element.srcObject = new MediaStream([track])))
  pulls.set(reference, { subscription, element })
}

function show({ users }) {
  const wanted = new Set()
  for (const { id, name, joined, tracks } of users) {
    if (id === socket.id || !joined) continue
    for (const kind of ['video', 'audio']) {
      if (!tracks[kind]) continue
      wanted.add(tracks[kind])
      if (!pulls.has(tracks[kind])) pull(tracks[kind], kind, name)
    }
  }
  for (const [reference, { subscription, element }] of pulls) {
    if (wanted.has(reference)) continue
    pulls.delete(reference)
    subscription.unsubscribe()
    element.remove()
  }
}

socket.addEventListener('open', introduce)
socket.addEventListener('message', ({ data }) => {
  const message = JSON.parse(data)
  if (message.type === 'roomState') show(message.state)
})
setInterval(() => say({ type: 'heartbeat' }), 5_000)
addEventListener('beforeunload', () => say({ type: 'userLeft' }))

window.client = {
  mic,
  prefer: (rid) => rid$.next(rid),
  leave() {
    pushes.forEach((push) => push.unsubscribe())
    show({ users: [] })
    say({ type: 'userLeft' })
    socket.close()
  },
}
