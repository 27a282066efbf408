// The tracks to send and to receive, and the one loop that makes the session match them, whatever happens to sessions.

import { CallsError } from './api.js';
import { Flow } from './flow.js';
import { CallsSession, ConnectionError } from './session.js';

/** The media API takes at most 64 tracks a call. */
const BATCH = 32;

const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 10_000;

/** After so many failures in a row somebody should be told. */
const WORRYING = 3;

/** After so many tries nothing of the others is to be hoped for soon: their own media may heal by then. */
const STARVING = 6;

/** A network that comes up refuses calls for a moment. */
const RESTART_AGAIN = 1_000;

/**
 * Events: `sent`, when what others can receive of us has changed; `received` with
 * `{ reference, track }`, the track being undefined when it is gone; `trouble` with a sentence's end
 * that says why nothing can be carried, and `well` when that is over; `flow`, when tracks stop or go on arriving;
 * `connected`, when the media service is reached.
 */
export class Media extends EventTarget {
  #api;
  #iceServers;
  /** Sent tracks, by kind. */
  #outgoing = new Map();
  /** Received tracks, by reference. */
  #incoming = new Map();
  /** Transceivers that have served their time. */
  #closing = [];
  #session;
  #flow;
  #failures = 0;
  /** Reason that the last one failed. */
  #lastFailure;
  #toldTrouble;
  #wake = () => {};
  #ended = false;
  #isRestartDue = false;
  #restartTimer;
  /** There was a connection, and its successor is not there yet. */
  #isBroken = false;

  constructor(api, iceServers) {
    super();
    this.#api = api;
    this.#iceServers = iceServers;
    this.#run();
  }

  /** The media session's id, by which others and operators know us. */
  get sessionId() {
    return this.#session?.id;
  }

  /** The reference under which others receive what we send of this kind, once it flows. */
  reference(kind) {
    return this.#outgoing.get(kind)?.reference;
  }

  /** Sends this track as our only one of its kind; undefined sends none. */
  send(kind, track, encodings = [{}]) {
    const known = this.#outgoing.get(kind);
    if (known?.track === track) return;
    if (known && track) {
      known.track = track;
      known.transceiver?.sender.replaceTrack(track);
    } else if (known) {
      this.#outgoing.delete(kind);
      if (known.isPushed) this.#closing.push(known.transceiver);
      else known.transceiver?.stop();
      this.#tell('sent');
    } else {
      this.#outgoing.set(kind, { track, encodings, ...UNSENT });
    }
    this.#wake();
  }

  /** Receives exactly these tracks, each named `{session}/{track name}`. */
  receive(references) {
    const wanted = new Set(references);
    for (const [reference, { transceiver }] of this.#incoming) {
      if (wanted.has(reference)) continue;
      this.#incoming.delete(reference);
      if (transceiver) this.#closing.push(transceiver);
      this.#tell('received', { reference });
    }
    for (const reference of wanted) {
      if (!this.#incoming.has(reference)) this.#incoming.set(reference, { reference, ...UNRECEIVED });
    }
    this.#look();
    this.#wake();
  }

  /** The tracks that we receive now, by their references. */
  get received() {
    const arrived = [...this.#incoming].filter(([, { transceiver }]) => transceiver);
    return new Map(arrived.map(([reference, { transceiver }]) => [reference, transceiver.receiver.track]));
  }

  /** True if a person's connection is lost, of whom we receive `audio` and `video`; see `Arrival`. */
  isLost({ audio, video, ...microphone }) {
    const idOf = (reference) => this.#incoming.get(reference)?.transceiver?.receiver.track.id;
    return Boolean(this.#flow?.isLost({ audio: idOf(audio), video: idOf(video), ...microphone }));
  }

  /** True if nothing arrives any more, although something should. Not while there is `trouble`, which says more. */
  get isCutOff() {
    return !this.#toldTrouble && (this.#isBroken || Boolean(this.#flow?.isCutOff));
  }

  /** To be called when the server may be another one than before. */
  check() {
    this.#session?.check();
  }

  /** To be called when the network may be another one than before. */
  restartIce() {
    this.#isRestartDue = true;
    this.#wake();
  }

  end() {
    this.#ended = true;
    this.#flow?.end();
    this.#session?.end();
    this.#wake();
  }

  async #run() {
    while (!this.#ended) {
      try {
        while (!this.#ended && this.#outgoing.size + this.#incoming.size === 0) {
          this.#setBroken(false);
          await this.#rest();
        }
        if (this.#ended) return;
        this.#session = await CallsSession.open(this.#api, this.#iceServers);
        this.#flow = this.#watch(this.#session);
        this.#tell('sent');
        await this.#serve(this.#session);
      } catch (error) {
        this.#failed(error);
      }
      this.#forgetSession();
      // The first time after something worked there is nothing to wait for: the server began anew.
      if (!this.#ended && this.#failures > 1) await new Promise((resolve) => setTimeout(resolve, pause(this.#failures)));
    }
  }

  /** Does one thing after the other until the session is at its end. */
  async #serve(session) {
    const broken = new Promise((_, reject) => session.addEventListener('broken', ({ detail }) => reject(detail)));
    session.addEventListener('connected', () => {
      this.#worked();
      this.#setBroken(false);
      this.#tell('connected');
      this.#wake();
    });
    session.addEventListener('disconnected', () => this.restartIce());
    // Whatever is under way then has nothing left to wait for.
    const orBroken = (step) => Promise.race([step, broken]);
    while (!this.#ended && !session.isBroken) {
      const isRestart = this.#isRestartDue;
      this.#isRestartDue = false;
      // While the connection is interrupted, or not there yet, what is to be closed waits.
      const closes = isRestart || !session.isConnected ? [] : this.#closing.splice(0, BATCH);
      const pushes = isRestart || closes.length > 0 ? [] : due(this.#unsent);
      const pulls = isRestart || closes.length + pushes.length > 0 ? [] : due(this.#unreceived);
      try {
        if (isRestart) await orBroken(this.#restart(session));
        else if (closes.length > 0) await orBroken(session.close(closes));
        else if (pushes.length > 0) await orBroken(this.#push(session, pushes));
        else if (pulls.length > 0) await orBroken(this.#pull(session, pulls));
        else await orBroken(this.#rest());
      } catch (error) {
        if (!(error instanceof CallsError)) throw error;
        // Nothing has changed on either side. What is to be closed is closed with the next call.
        this.#closing.unshift(...closes);
        [...pushes, ...pulls].forEach(tryLater);
        if (closes.length > 0) await orBroken(new Promise((resolve) => setTimeout(resolve, pause(this.#failures))));
        this.#failed(error);
      }
    }
  }

  /** Looks for another way. Where the service knows no such thing, a session that stays without one is replaced. */
  async #restart(session) {
    try {
      await session.restartIce();
    } catch (error) {
      if (!(error instanceof CallsError)) throw error;
      if (error.code !== 'unreachable') return;
      clearTimeout(this.#restartTimer);
      this.#restartTimer = setTimeout(() => session === this.#session && this.isCutOff && this.restartIce(), RESTART_AGAIN);
    }
  }

  #watch(session) {
    let wasCutOff = false;
    const flow = new Flow(session.connection, () => {
      // ICE takes five seconds more to notice it.
      if (flow.isCutOff && !wasCutOff) this.restartIce();
      wasCutOff = flow.isCutOff;
      this.#tell('flow');
    });
    return flow;
  }

  #setBroken(isBroken) {
    if (isBroken === this.#isBroken) return;
    this.#isBroken = isBroken;
    this.#tell('flow');
  }

  get #unsent() {
    return [...this.#outgoing.values()].filter(({ isPushed }) => !isPushed);
  }

  get #unreceived() {
    return [...this.#incoming.values()].filter(({ transceiver }) => !transceiver);
  }

  async #push(session, pushes) {
    for (const push of pushes) {
      const { track, encodings } = push;
      push.name ??= crypto.randomUUID();
      push.transceiver ??= session.connection.addTransceiver(track, { direction: 'sendonly', sendEncodings: encodings });
      if (encodings.length > 1) nameLayers(push.transceiver);
    }
    await session.push(pushes);
    if (session !== this.#session) return;
    for (const push of pushes) {
      push.isPushed = true;
      // It may have been switched off meanwhile.
      if (![...this.#outgoing.values()].includes(push)) this.#closing.push(push.transceiver);
      else this.#announce(session, push);
    }
    this.#worked();
  }

  /** A track can be received only once something was sent. */
  async #announce(session, push) {
    while (!session.isBroken && push.transceiver && push.transceiver.currentDirection !== 'stopped') {
      const stats = await push.transceiver.sender.getStats();
      if ([...stats.values()].some(({ type, bytesSent }) => type === 'outbound-rtp' && bytesSent > 0)) {
        push.reference = `${session.id}/${push.name}`;
        this.#tell('sent');
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async #pull(session, pulls) {
    const transceivers = await session.pull(
      pulls.map(({ reference }) => {
        const slash = reference.indexOf('/');
        return { sessionId: reference.slice(0, slash), trackName: reference.slice(slash + 1) };
      }),
    );
    if (session !== this.#session) return;
    for (const [place, pull] of pulls.entries()) {
      const transceiver = transceivers[place];
      if (!transceiver) {
        tryLater(pull);
      } else if (this.#incoming.get(pull.reference) !== pull) {
        this.#closing.push(transceiver);
      } else {
        pull.transceiver = transceiver;
        this.#tell('received', { reference: pull.reference, track: transceiver.receiver.track });
      }
    }
    if (transceivers.some(Boolean)) this.#worked();
    else this.#look();
  }

  /** Sleeps until something is wanted, or until something should be tried again. */
  #rest() {
    const next = Math.min(...[...this.#unsent, ...this.#unreceived].map(({ retryAt }) => retryAt));
    return new Promise((resolve) => {
      const timer = Number.isFinite(next) && setTimeout(resolve, next - performance.now());
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #forgetSession() {
    this.#flow?.end();
    this.#flow = undefined;
    this.#isRestartDue = false;
    this.#isBroken ||= Boolean(this.#session?.wasConnected);
    this.#tell('flow');
    this.#session?.end();
    this.#session = undefined;
    this.#closing = [];
    for (const push of this.#outgoing.values()) Object.assign(push, UNSENT);
    for (const [reference, pull] of this.#incoming) {
      if (pull.transceiver) this.#tell('received', { reference });
      Object.assign(pull, UNRECEIVED);
    }
    this.#tell('sent');
  }

  #failed(error) {
    if (this.#ended) return;
    this.#lastFailure = error;
    // A connection that never came about was waited for long enough.
    const isHopeless = error instanceof ConnectionError && !this.#session.wasConnected;
    this.#failures = isHopeless ? Math.max(this.#failures, WORRYING) : this.#failures + 1;
    this.#look();
  }

  /** Negotiated tracks carry media only once a connection is up. */
  #worked() {
    if (this.#session.isConnected) this.#failures = 0;
    this.#look();
  }

  /** Tells whether anything can be carried, if that is news. */
  #look() {
    const trouble = this.#trouble;
    if (trouble === this.#toldTrouble) return;
    this.#toldTrouble = trouble;
    this.#tell(trouble ? 'trouble' : 'well', trouble);
    this.#tell('flow');
  }

  get #trouble() {
    if (this.#failures >= WORRYING) return explain(this.#lastFailure);
    const pulls = [...this.#incoming.values()];
    const isStarving = pulls.length > 0 && pulls.every(({ transceiver, tries }) => !transceiver && tries >= STARVING);
    return isStarving ? 'nothing of the others arrives' : undefined;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Items that a session does not have yet. */
const UNRECEIVED = { transceiver: undefined, tries: 0, retryAt: 0 };
const UNSENT = { ...UNRECEIVED, name: undefined, reference: undefined, isPushed: false };

function due(tracks) {
  return tracks.filter(({ retryAt }) => retryAt <= performance.now()).slice(0, BATCH);
}

/** The end of a sentence that says to a user what is wrong. */
function explain(error) {
  if (error instanceof ConnectionError) return error.message;
  const refusal = [error, error.cause].find((known) => known instanceof CallsError);
  if (!refusal) return 'this page and the media service do not understand each other';
  if (refusal.code === 'unreachable') return 'the media service does not answer';
  return refusal.description || `the media service refuses it (${refusal.code})`;
}

/** The extensions that name the layers of a packet (RFC 8852). */
const LAYER_NAMES = new Set(['urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id', 'urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id']);

/** Chromium forgets them where the other side made the first offer, and refuses its own description then. */
function nameLayers(transceiver) {
  const extensions = transceiver.getHeaderExtensionsToNegotiate?.();
  if (!extensions) return;
  const named = extensions.map(({ uri, direction }) => ({ uri, direction: LAYER_NAMES.has(uri) ? 'sendrecv' : direction }));
  transceiver.setHeaderExtensionsToNegotiate(named);
}

function tryLater(track) {
  track.tries += 1;
  track.retryAt = performance.now() + pause(track.tries);
}

function pause(tries) {
  return Math.min(FIRST_PAUSE * 2 ** tries, LONGEST_PAUSE);
}
