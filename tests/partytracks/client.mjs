// Runs the npm library `partytracks` against a server, as a page would, with stand-ins for browser APIs that
// Node lacks. The server causes the failures; this program must reach its goal without help.
//
//   node client.mjs BASE_URL COOKIE_HEADER SCENARIO [LIMIT_SECONDS=20]
//
// One JSON line per fact on stdout. Exit code 0: the goal was reached; 1: not within the limit
// (last line {"fact":"gave up"}); 2: invalid arguments.
//
// Requirements on the server's SDP, which the fake peer connection below checks:
// - an answer has the offer's `m=` sections, in order, with the same `a=mid:`, and receives
//   (`offer.replace("a=sendonly", "a=recvonly")` is enough; port 0 rejects a section);
// - an offer has every section negotiated before, in order, and appends its own: at least
//   `v=0`, and for each `m=audio 9 UDP/TLS/RTP/SAVPF 111`, `a=mid:N`, `a=sendonly`.

const [base, cookieHeader, scenarioName, limitArgument] = process.argv.slice(2)
const limit = Number(limitArgument ?? 20)
const origin = base && URL.canParse(base) ? new URL(base).origin : undefined

// Time after which ICE without an answer fails; browsers take 15 to 30 s.
const ICE_FAILS_AFTER = 3000
const CONNECTS_AFTER = 20

const started = performance.now()
const fact = (name, details = {}) =>
  console.log(JSON.stringify({ fact: name, ...details, ms: Math.round(performance.now() - started) }))

// ---------------------------------------------------------------------------------------------
// Cookies

const jar = []

function storeCookie(text, url) {
  const [pair, ...rest] = text.split(';').map(part => part.trim())
  const at = pair.indexOf('=')
  const cookie = { name: pair.slice(0, at), value: pair.slice(at + 1) }
  const attributes = new Map(
    rest.map(part => {
      const [name, value = ''] = part.split(/=(.*)/s)
      return [name.toLowerCase(), value]
    })
  )
  const local = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
  if (attributes.has('secure') && url.protocol !== 'https:' && !local) return
  const path = attributes.get('path')
  cookie.path = path?.startsWith('/') ? path : url.pathname.replace(/\/[^/]*$/, '') || '/'
  const age = attributes.get('max-age')
  if (age !== undefined) cookie.expires = Date.now() + Number(age) * 1000
  else if (attributes.has('expires')) cookie.expires = Date.parse(attributes.get('expires'))
  const old = jar.findIndex(other => other.name === cookie.name && other.path === cookie.path)
  if (old >= 0) jar.splice(old, 1)
  jar.push(cookie)
}

const cookieFits = (cookie, pathname) =>
  !(cookie.expires <= Date.now()) &&
  (pathname === cookie.path ||
    (pathname.startsWith(cookie.path) && (cookie.path.endsWith('/') || pathname[cookie.path.length] === '/')))

const cookiesFor = url =>
  jar
    .filter(cookie => cookieFits(cookie, url.pathname))
    .sort((a, b) => b.path.length - a.path.length)
    .map(({ name, value }) => `${name}=${value}`)
    .join('; ')

for (const pair of (cookieHeader ?? '').split(';').map(part => part.trim()).filter(Boolean)) {
  const at = pair.indexOf('=')
  jar.push({ name: pair.slice(0, at), value: pair.slice(at + 1), path: '/' })
}

// ---------------------------------------------------------------------------------------------
// fetch: absolute addresses, cookies, `Origin`, and redirects left alone as a browser leaves them

const answered = new EventTarget()
const realFetch = globalThis.fetch

globalThis.fetch = async (input, init = {}) => {
  const url = new URL(String(input), base)
  const method = (init.method ?? 'GET').toUpperCase()
  const headers = new Headers(init.headers)
  const cookies = cookiesFor(url)
  if (cookies) headers.set('cookie', cookies)
  if (method !== 'GET') headers.set('origin', origin)
  let response
  try {
    response = await realFetch(url, { ...init, headers })
  } catch (error) {
    fact('request', { method, path: url.pathname, error: error.cause?.code ?? error.message })
    throw error
  }
  for (const cookie of response.headers.getSetCookie()) storeCookie(cookie, url)
  fact('request', { method, path: url.pathname, status: response.status })
  // The server receives an answer only through this request.
  if (response.ok && method === 'PUT' && url.pathname.endsWith('/renegotiate')) {
    FakePeerConnection.delivered(JSON.parse(init.body).sessionDescription.sdp)
  }
  answered.dispatchEvent(Object.assign(new Event('answered'), { method, path: url.pathname, status: response.status }))
  const redirected = response.status >= 300 && response.status < 400 && response.status !== 304
  return redirected && init.redirect === 'manual' ? Response.error() : response // status 0, no body
}

// ---------------------------------------------------------------------------------------------
// The browser

const invalidState = message => new DOMException(message, 'InvalidStateError')

class FakeTrack extends EventTarget {
  constructor(kind) {
    super()
    Object.assign(this, { kind, id: crypto.randomUUID(), enabled: true, muted: false, readyState: 'live' })
  }
  stop() {
    this.readyState = 'ended'
  }
}

// As Chromium: constructed without arguments it has the type null, and only setting it throws.
class FakeSessionDescription {
  constructor(init) {
    this.type = init?.type ?? null
    this.sdp = init?.sdp ?? ''
    if (this.type !== null) checkType(this)
  }
}

function checkType({ type }) {
  if (['offer', 'answer', 'pranswer', 'rollback'].includes(type)) return
  throw new TypeError(`The provided value '${type}' is not a valid enum value of type RTCSdpType.`)
}

function parseSdp(sdp) {
  if (!sdp?.startsWith('v=0')) throw new DOMException('Failed to parse SessionDescription', 'OperationError')
  return sdp
    .split(/^(?=m=)/m)
    .slice(1)
    .map(text => ({
      kind: /^m=(\w+)/.exec(text)[1],
      rejected: /^m=\w+ 0 /.test(text),
      mid: /^a=mid:(\S+)/m.exec(text)?.[1],
      direction: /^a=(sendrecv|sendonly|recvonly|inactive)\s*$/m.exec(text)?.[1] ?? 'sendrecv',
    }))
}

const sends = direction => direction === 'sendonly' || direction === 'sendrecv'
const receives = direction => direction === 'recvonly' || direction === 'sendrecv'

class FakeTransceiver {
  constructor(pc, kind, track, direction, fromRemote) {
    Object.assign(this, { pc, kind, direction, fromRemote, mid: null, currentDirection: null, stopping: false })
    this.stopped = false
    this.sending = false
    this.encodings = []
    this.receiver = { track: new FakeTrack(kind) }
    this.sender = {
      track,
      transport: null,
      replaceTrack: async next => {
        this.sender.track = next
      },
      getParameters: () => ({ encodings: this.encodings }),
      setParameters: async parameters => {
        this.encodings = parameters.encodings
      },
      getStats: async () => {
        const flows = this.sending && this.pc.connectionState === 'connected' && this.sender.track
        return new Map([['out', { type: 'outbound-rtp', bytesSent: flows ? 1200 : 0 }]])
      },
    }
  }
  stop() {
    this.stopping = true
    this.direction = 'stopped'
  }
}

// One m-line of the session: { kind, mid, transceiver }; a rejected one can be reused.
class FakePeerConnection extends EventTarget {
  static #all = new Set() // for `delivered`
  #ufrag = crypto.randomUUID().slice(0, 8)
  #transceivers = []
  #sections = [] // as agreed
  #pendingSections = null // as proposed in the pending offer
  #nextMid = 0
  #peerKnowsUs = false
  #lapsed = false
  #iceTimer
  signalingState = 'stable'
  connectionState = 'new'
  iceConnectionState = 'new'
  currentLocalDescription = null
  pendingLocalDescription = null
  currentRemoteDescription = null
  pendingRemoteDescription = null

  constructor(configuration) {
    super()
    FakePeerConnection.#all.add(this)
    const { iceServers = [] } = configuration ?? {}
    if (!iceServers?.[Symbol.iterator]) throw new TypeError("'iceServers' cannot be converted to a sequence")
    for (const { urls } of iceServers) {
      for (const url of [urls].flat()) {
        if (!/^(stun|turn)s?:/.test(url)) throw new DOMException(`'${url}' is not a valid URL`, 'SyntaxError')
      }
    }
    fact('peer connection', { iceServers })
  }

  static delivered(sdp) {
    for (const pc of this.#all) {
      if (sdp?.includes(`a=ice-ufrag:${pc.#ufrag}`)) {
        pc.#peerKnowsUs = true
        pc.#connect()
      }
    }
  }

  get localDescription() {
    return this.pendingLocalDescription ?? this.currentLocalDescription
  }
  get remoteDescription() {
    return this.pendingRemoteDescription ?? this.currentRemoteDescription
  }
  getTransceivers() {
    return this.#transceivers.filter(transceiver => !transceiver.stopped)
  }

  addTransceiver(track, { direction = 'sendrecv', sendEncodings = [] } = {}) {
    this.#open()
    const transceiver = new FakeTransceiver(this, track.kind, track, direction, false)
    transceiver.encodings = sendEncodings
    this.#transceivers.push(transceiver)
    return transceiver
  }

  async createOffer() {
    await this.#turn()
    if (!['stable', 'have-local-offer'].includes(this.signalingState)) {
      throw invalidState('createOffer called in state ' + this.signalingState)
    }
    const sections = [...(this.#pendingSections ?? this.#sections)]
    for (const transceiver of this.getTransceivers()) {
      if (transceiver.mid !== null || transceiver.stopping) continue
      const section = { kind: transceiver.kind, mid: String(this.#nextMid++), transceiver }
      const free = sections.findIndex(({ transceiver }) => transceiver.stopped)
      if (free >= 0) sections[free] = section
      else sections.push(section)
    }
    return { type: 'offer', sdp: this.#sdp(sections, 'actpass', ({ direction }) => direction) }
  }

  async createAnswer() {
    await this.#turn()
    if (this.signalingState !== 'have-remote-offer') throw invalidState('createAnswer: no remote offer')
    const offered = new Map(parseSdp(this.pendingRemoteDescription.sdp).map(section => [section.mid, section]))
    return {
      type: 'answer',
      sdp: this.#sdp(this.#pendingSections, 'active', ({ mid, direction }) => {
        const theirs = offered.get(mid).direction
        const send = sends(direction) && receives(theirs)
        return send ? (sends(theirs) ? 'sendrecv' : 'sendonly') : sends(theirs) ? 'recvonly' : 'inactive'
      }),
    }
  }

  async setLocalDescription({ type, sdp }) {
    checkType({ type })
    await this.#turn()
    if (type === 'rollback') return this.#rollback()
    const from = type === 'offer' ? ['stable', 'have-local-offer'] : ['have-remote-offer']
    if (!from.includes(this.signalingState)) {
      throw invalidState(`setLocalDescription(${type}) called in state ${this.signalingState}`)
    }
    if (type === 'answer') {
      this.currentLocalDescription = { type, sdp }
      this.currentRemoteDescription = this.pendingRemoteDescription
      this.#agree(parseSdp(sdp), false)
      return
    }
    if (!parseSdp(sdp).some(({ rejected }) => !rejected)) {
      // so the only track of a connection can never be closed
      throw new DOMException('max-bundle configured but session description has no BUNDLE group', 'OperationError')
    }
    const before = this.#pendingSections ?? this.#sections
    this.#pendingSections = parseSdp(sdp).map(({ mid, kind }) => {
      const known = before.find(section => section.mid === mid)
      if (known) return known
      // `createOffer` numbered them in this order
      const transceiver = this.getTransceivers().find(t => t.mid === null && !t.stopping && t.kind === kind)
      transceiver.mid = mid
      return { kind, mid, transceiver }
    })
    this.pendingLocalDescription = { type, sdp }
    this.#signaling('have-local-offer')
    // As Chromium: while an offer closes the first section, which carries the bundle, nothing flows on
    // any of them, until an answer comes or the offer is rolled back.
    const carrier = this.#sections.find(({ transceiver }) => !transceiver.stopped)
    if (carrier?.transceiver.stopping && this.connectionState === 'connected') {
      this.#lapsed = true
      this.#connection('new')
    }
  }

  async setRemoteDescription({ type, sdp }) {
    checkType({ type })
    await this.#turn()
    if (type === 'rollback') return this.#rollback()
    if (type === 'answer') {
      if (this.signalingState !== 'have-local-offer') {
        throw invalidState(`setRemoteDescription(answer) called in state ${this.signalingState}`)
      }
      const sections = parseSdp(sdp)
      if (sections.map(s => s.mid).join() !== this.#pendingSections.map(s => s.mid).join()) {
        throw new DOMException("The m-lines of the answer don't match the offer's", 'InvalidAccessError')
      }
      const offered = parseSdp(this.pendingLocalDescription.sdp)
      if (sections.some((s, i) => !s.rejected && sends(s.direction) && !receives(offered[i].direction))) {
        throw new DOMException('Incompatible receive direction', 'InvalidAccessError')
      }
      this.currentLocalDescription = this.pendingLocalDescription
      this.currentRemoteDescription = { type, sdp }
      this.#peerKnowsUs = true
      this.#agree(sections, true)
      return
    }
    const sections = parseSdp(sdp)
    if (this.signalingState === 'have-local-offer') this.#rollback() // implicit, as browsers do
    if (this.#sections.some((s, i) => sections[i]?.mid !== s.mid && !s.transceiver.stopped)) {
      throw new DOMException("The m-lines of the offer don't match the earlier ones", 'InvalidAccessError')
    }
    const arrived = []
    this.#pendingSections = sections.map(({ kind, mid, rejected, direction }) => {
      const known = this.#sections.find(section => section.mid === mid)
      const transceiver = known?.transceiver ?? new FakeTransceiver(this, kind, null, 'recvonly', true)
      if (!known) {
        transceiver.mid = mid
        this.#transceivers.push(transceiver)
        this.#nextMid = Math.max(this.#nextMid, Number(mid) + 1 || 0)
      }
      if (rejected) transceiver.stopping = true
      else if (sends(direction) && !transceiver.receiving) {
        transceiver.receiving = true
        arrived.push(transceiver)
      }
      return known ?? { kind, mid, transceiver }
    })
    this.pendingRemoteDescription = { type, sdp }
    this.#signaling('have-remote-offer')
    for (const transceiver of arrived) {
      const { receiver } = transceiver
      this.dispatchEvent(Object.assign(new Event('track'), { transceiver, receiver, track: receiver.track, streams: [] }))
    }
  }

  close() {
    clearTimeout(this.#iceTimer)
    this.signalingState = this.connectionState = this.iceConnectionState = 'closed'
  }

  #open() {
    if (this.signalingState === 'closed') throw invalidState("The RTCPeerConnection's signalingState is 'closed'.")
  }

  async #turn() {
    this.#open()
    await new Promise(resolve => setImmediate(resolve))
    this.#open()
  }

  #sdp(sections, setup, direction) {
    return [
      'v=0',
      'o=- 1 2 IN IP4 127.0.0.1',
      's=-',
      't=0 0',
      `a=group:BUNDLE ${sections.map(({ mid }) => mid).join(' ')}`,
      ...sections.flatMap(({ kind, mid, transceiver }) => {
        const gone = transceiver.stopping || transceiver.stopped
        return [
          `m=${kind} ${gone ? 0 : 9} UDP/TLS/RTP/SAVPF ${kind === 'audio' ? 111 : 96}`,
          'c=IN IP4 0.0.0.0',
          `a=ice-ufrag:${this.#ufrag}`,
          `a=setup:${setup}`,
          `a=mid:${mid}`,
          `a=${gone ? 'inactive' : direction(transceiver)}`,
          'a=rtcp-mux',
        ]
      }),
      '',
    ].join('\r\n')
  }

  #signaling(state) {
    if (state === this.signalingState) return
    this.signalingState = state
    this.dispatchEvent(new Event('signalingstatechange'))
  }

  #rollback() {
    if (!['have-local-offer', 'have-remote-offer'].includes(this.signalingState)) {
      throw invalidState('rollback called in state ' + this.signalingState)
    }
    for (const section of this.#pendingSections) {
      if (this.#sections.includes(section)) continue
      section.transceiver.mid = null
      if (section.transceiver.fromRemote) section.transceiver.stopped = true
    }
    this.#pendingSections = this.pendingLocalDescription = this.pendingRemoteDescription = null
    this.#signaling('stable')
    if (this.#lapsed) this.#connection('connected')
    this.#lapsed = false
  }

  #agree(answer, weOffered) {
    this.#sections = this.#pendingSections
    this.#pendingSections = this.pendingLocalDescription = this.pendingRemoteDescription = null
    this.#sections.forEach(({ transceiver }, i) => {
      if (answer[i].rejected) {
        Object.assign(transceiver, { stopping: true, stopped: true, sending: false, mid: null })
        return
      }
      transceiver.sending = sends(transceiver.direction) && (weOffered ? receives : sends)(answer[i].direction)
      transceiver.sender.transport ??= {}
    })
    this.#signaling('stable')
    this.#lapsed = false
    this.#connect()
  }

  #connect() {
    if (this.connectionState === 'connected' || this.connectionState === 'closed' || !this.currentRemoteDescription) return
    clearTimeout(this.#iceTimer)
    if (this.#peerKnowsUs) this.#iceTimer = setTimeout(() => this.#connection('connected'), CONNECTS_AFTER)
    else this.#iceTimer = setTimeout(() => this.#connection('failed'), ICE_FAILS_AFTER)
    if (this.connectionState === 'new') this.#connection('connecting')
  }

  #connection(state) {
    fact('connection', { state })
    this.iceConnectionState = state === 'connecting' ? 'checking' : state
    this.dispatchEvent(new Event('iceconnectionstatechange'))
    if (this.connectionState === 'closed') return
    this.connectionState = state
    this.dispatchEvent(new Event('connectionstatechange'))
  }
}

Object.assign(globalThis, {
  window: globalThis,
  MediaStreamTrack: FakeTrack,
  RTCPeerConnection: FakePeerConnection,
  RTCSessionDescription: FakeSessionDescription,
  alert: message => fact('alert', { message }),
})
globalThis.location = {
  href: base,
  origin,
  reload() {
    fact('reload') // a page would begin again, and lose what its user was doing
    process.exitCode = 1
    setImmediate(() => process.exit())
  },
}
// The library leaves some promises without a handler: a page logs those, and continues.
process.on('unhandledRejection', error => fact('unhandled', { error: String(error?.message ?? error) }))

// ---------------------------------------------------------------------------------------------
// Scenarios

const { PartyTracks } = await import('partytracks/client')
const { BehaviorSubject, of } = await import('rxjs')

const someIceServers = [{ urls: ['stun:stun.example:3478'] }]
const party = (name, config = { iceServers: someIceServers }) => {
  const tracks = new PartyTracks(config)
  const stop = tracks.session$.subscribe(({ sessionId, peerConnection }) => {
    tracks.sessionId = sessionId
    tracks.peerConnection = peerConnection
    fact('session', { party: name, id: sessionId ?? null })
  })
  return Object.assign(tracks, { name, stop })
}

// The first value, and a subscription that stays open until `.unsubscribe()`.
const first = (observable, onValue = () => {}) => {
  let subscription
  const value = new Promise((resolve, reject) => {
    subscription = observable.subscribe({
      next: value => {
        onValue(value)
        resolve(value)
      },
      error: reject,
    })
  })
  return { value, unsubscribe: () => subscription.unsubscribe() }
}

const push = (tracks, kind = 'audio') =>
  first(tracks.push(of(new FakeTrack(kind))), metadata => fact('pushed', { party: tracks.name, ...metadata }))

const pull = (tracks, metadata, options) => {
  const flows = track => {
    const pc = tracks.peerConnection
    const transceiver = pc.getTransceivers().find(t => t.receiver.track === track)
    return pc.connectionState === 'connected' && transceiver !== undefined
  }
  const pulled = first(tracks.pull(of(metadata), options), track => {
    pulled.track = track
    fact('pulled', { party: tracks.name, kind: track.kind, trackName: metadata.trackName })
  })
  pulled.flowing = (async () => {
    await pulled.value
    while (!flows(pulled.track)) await new Promise(resolve => setTimeout(resolve, 20))
    fact('flowing', { party: tracks.name, trackName: metadata.trackName })
  })()
  return pulled
}

const answer = (method, end) =>
  new Promise(resolve => {
    const listener = event => {
      if (event.method !== method || !event.path.endsWith(end)) return
      answered.removeEventListener('answered', listener)
      setTimeout(resolve, 50, event) // the library has read it by then
    }
    answered.addEventListener('answered', listener)
  })

const until = async condition => {
  while (!condition()) await new Promise(resolve => setTimeout(resolve, 20))
}

async function close(tracks, pushed) {
  const closing = answer('PUT', '/tracks/close')
  pushed.unsubscribe()
  const { status } = await closing
  await until(() => tracks.peerConnection.connectionState === 'connected')
  fact('closed', { status, signaling: tracks.peerConnection.signalingState })
}

const scenarios = {
  // A session comes.
  async session() {
    const alice = party('alice')
    await until(() => alice.sessionId)
  },
  // ICE servers come, and a session.
  async ice() {
    const alice = party('alice', {})
    await until(() => alice.sessionId)
  },
  // One track is pushed.
  async push() {
    await push(party('alice')).value
  },
  // Three tracks, in one request.
  async 'push-many'() {
    const alice = party('alice')
    await Promise.all(['audio', 'video', 'video'].map(kind => push(alice, kind).value))
  },
  // Alice pushes, Bob pulls it.
  async pull() {
    const metadata = await push(party('alice')).value
    await pull(party('bob'), metadata).value
  },
  // Three tracks, in one request.
  async 'pull-many'() {
    const alice = party('alice')
    const all = await Promise.all(['audio', 'video', 'video'].map(kind => push(alice, kind).value))
    const bob = party('bob')
    await Promise.all(all.map(metadata => pull(bob, metadata).value))
  },
  // As `pull`, and Bob's connection is established: the server must have received his answer.
  async 'pull-flowing'() {
    const metadata = await push(party('alice')).value
    await pull(party('bob'), metadata).flowing
  },
  // Bob has pushed before, so that his connection is up when he pulls.
  async 'pull-connected'() {
    const metadata = await push(party('alice')).value
    const bob = party('bob')
    await push(bob).value
    await pull(bob, metadata).value
  },
  // Push two, close one (the last one of a connection cannot be closed), push another.
  async close() {
    const alice = party('alice')
    const [pushed, stays] = [push(alice), push(alice)]
    await Promise.all([pushed.value, stays.value])
    await close(alice, pushed)
    await push(alice, 'video').value
  },
  // The same, and then pull another's.
  async 'close-pull'() {
    const metadata = await push(party('alice')).value
    const bob = party('bob')
    const [pushed, stays] = [push(bob), push(bob)]
    await Promise.all([pushed.value, stays.value])
    await close(bob, pushed)
    await pull(bob, metadata).value
  },
  // Another simulcast layer of a pulled track, then a push.
  async update() {
    const metadata = await push(party('alice'), 'video').value
    const bob = party('bob')
    const preferredRid$ = new BehaviorSubject('a')
    await pull(bob, metadata, { simulcast: { preferredRid$ } }).value
    const updating = answer('PUT', '/tracks/update')
    preferredRid$.next('b')
    fact('updated', { status: (await updating).status })
    await push(bob).value
  },
}

if (!origin || !(limit > 0) || !Object.hasOwn(scenarios, scenarioName ?? '')) {
  console.error('usage: node client.mjs BASE_URL COOKIE_HEADER SCENARIO [LIMIT_SECONDS]')
  console.error('scenarios: ' + Object.keys(scenarios).join(' '))
  process.exit(2)
}

setTimeout(() => {
  fact('gave up', { scenario: scenarioName, after: limit })
  process.exit(1)
}, limit * 1000)
await scenarios[scenarioName]()
fact('done', { scenario: scenarioName })
process.exit(0)
