// @ts-check
// The tracks to send and to receive, and the loop that makes the session match them, over failures and new sessions.

import { Emitter } from '../events.js';
import { text } from '../texts.js';
import { CallsError } from './api.js';
import { Failures } from './failures.js';
import { Flow } from './flow.js';
import { IncomingTracks } from './incoming.js';
import { OutgoingTracks, prepare, untilSent } from './outgoing.js';
import { Reception } from './reception.js';
import { BATCH, due, tryLater } from './retry.js';
import { CallsSession } from './session.js';

/** @import { CallsApi } from './api.js' */
/** @import { Incoming, Wanted } from './incoming.js' */
/** @import { Outgoing, TrackKind } from './outgoing.js' */

/** Delay before a failed ICE restart is repeated: the first calls on a new network may fail. */
const RESTART_AGAIN = 1_000;

/**
 * Events: `sent`, when the references of sent tracks changed; `received`, when the received tracks changed; `trouble`
 * with the end of a sentence about the cause, when no media can be carried, and `well` when they can again; `flow`, when
 * tracks stop or resume; `connected`, when the media service is reached; `quality`, when it was judged anew.
 * @extends {Emitter<{ sent: void, received: void, trouble: string, well: void, flow: void, connected: void, quality: void }>}
 */
export class Media extends Emitter {
  /** How well the received tracks, and ours, arrive. */
  reception = new Reception(
    () => this.#flow,
    (reference) => this.#incoming.trackId(reference),
  );

  #api;
  #iceServers;
  #outgoing = new OutgoingTracks();
  #incoming = new IncomingTracks();
  /**
   * Transceivers to close.
   * @type {RTCRtpTransceiver[]}
   */
  #closing = [];
  /** @type {CallsSession | undefined} */
  #session;
  /** @type {Flow | undefined} */
  #flow;
  #failures = new Failures();
  /** @type {string | undefined} */
  #shownTrouble;
  #wake = () => {};
  #ended = false;
  #isRestartDue = false;
  /** @type {number | undefined} */
  #restartTimer;
  /** True from the loss of a connection until the next one is established. */
  #isBroken = false;

  /**
   * @param {CallsApi} api
   * @param {RTCIceServer[] | undefined} iceServers
   * @param {boolean} isNeeded opens a session at once, before there is anything to send or receive
   */
  constructor(api, iceServers, isNeeded) {
    super();
    this.#api = api;
    this.#iceServers = iceServers;
    this.#run(isNeeded);
  }

  /** The media session's id, which other members and operators see. */
  get sessionId() {
    return this.#session?.id;
  }

  /**
   * The reference of our track of this kind for other members, once it flows.
   * @param {TrackKind} kind
   */
  reference(kind) {
    return this.#outgoing.reference(kind);
  }

  /**
   * Sends this track as our only one of its kind; undefined sends none.
   * @param {TrackKind} kind
   * @param {MediaStreamTrack | undefined} track
   * @param {RTCRtpEncodingParameters[]} [encodings]
   */
  send(kind, track, encodings = [{}]) {
    if (this.#outgoing.track(kind) === track) return;
    const gone = this.#outgoing.set(kind, track, encodings);
    if (gone) {
      if (gone.isPushed && gone.transceiver) this.#closing.push(gone.transceiver);
      else gone.transceiver?.stop();
      this.emit('sent');
    }
    this.#wake();
  }

  /**
   * Receives exactly these tracks.
   * @param {Wanted[]} wanted with references of the form `{session}/{track name}`
   */
  receive(wanted) {
    for (const { transceiver } of this.#incoming.want(wanted)) {
      if (transceiver) this.#closing.push(transceiver);
      this.emit('received');
    }
    this.#updateTrouble();
    this.#wake();
  }

  /** The tracks received now, by their references. */
  get received() {
    return this.#incoming.received;
  }

  /** True if nothing arrives any more, although something should. Not during `trouble`, which names the cause. */
  get isCutOff() {
    return !this.#shownTrouble && (this.#isBroken || Boolean(this.#flow?.isCutOff));
  }

  /** To be called when the server may have restarted. */
  check() {
    this.#session?.check();
  }

  /** To be called when the network may have changed. */
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

  /** @param {boolean} isNeeded */
  async #run(isNeeded) {
    while (!this.#ended) {
      try {
        while (!this.#ended && !isNeeded && this.#outgoing.size + this.#incoming.size === 0) {
          this.#setBroken(false);
          await this.#rest();
        }
        if (this.#ended) return;
        isNeeded = false;
        this.#session = await CallsSession.open(this.#api, this.#iceServers);
        this.#flow = this.#watch(this.#session);
        this.emit('sent');
        await this.#serve(this.#session);
      } catch (error) {
        this.#failed(error);
      }
      this.#forgetSession();
      // The first failure after a success needs no pause: the server most likely restarted.
      if (!this.#ended && this.#failures.count > 1) await this.#failures.pause();
    }
  }

  /**
   * Makes the calls that are due, one after the other, until the session ends.
   * @param {CallsSession} session
   */
  async #serve(session) {
    /** @type {Promise<never>} */
    const broken = new Promise((_, reject) => session.on('broken', reject));
    session.on('connected', () => {
      this.#worked();
      this.#setBroken(false);
      this.emit('connected');
      this.#wake();
    });
    session.on('disconnected', () => this.restartIce());
    // A call under way is abandoned when the connection breaks: its answer would never arrive.
    /** @param {Promise<unknown>} step */
    const orBroken = (step) => Promise.race([step, broken]);
    while (!this.#ended && !session.isBroken) {
      const isRestart = this.#isRestartDue;
      this.#isRestartDue = false;
      // Closing waits until the connection is established.
      const closes = isRestart || !session.isConnected ? [] : this.#closing.splice(0, BATCH);
      const pushes = isRestart || closes.length > 0 ? [] : due(this.#outgoing.unsent);
      const pulls = isRestart || closes.length + pushes.length > 0 ? [] : due(this.#incoming.unreceived);
      const isBusy = isRestart || closes.length + pushes.length + pulls.length > 0;
      const layers = isBusy || !session.isConnected ? [] : due(this.#incoming.relayered);
      try {
        if (isRestart) await orBroken(this.#restart(session));
        else if (closes.length > 0) await orBroken(session.close(closes));
        else if (pushes.length > 0) await orBroken(this.#push(session, pushes));
        else if (pulls.length > 0) await orBroken(this.#pull(session, pulls));
        else if (layers.length > 0) await orBroken(this.#askLayers(session, layers));
        else await orBroken(this.#rest());
      } catch (error) {
        if (!(error instanceof CallsError)) throw error;
        // Nothing has changed on either side, so all of it is repeated.
        this.#closing.unshift(...closes);
        for (const failed of [...pushes, ...pulls, ...layers]) tryLater(failed);
        if (closes.length > 0) await orBroken(this.#failures.pause());
        this.#failed(error);
      }
    }
  }

  /**
   * Restarts ICE. If the media service does not support it, the session breaks later, and is replaced.
   * @param {CallsSession} session
   */
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

  /** @param {CallsSession} session */
  #watch(session) {
    let wasCutOff = false;
    const changed = () => {
      // ICE would detect it five seconds later.
      if (flow.isCutOff && !wasCutOff) this.restartIce();
      wasCutOff = flow.isCutOff;
      this.emit('flow');
    };
    const flow = new Flow(session.connection, { changed, judged: () => this.emit('quality') });
    return flow;
  }

  /** @param {boolean} isBroken */
  #setBroken(isBroken) {
    if (isBroken === this.#isBroken) return;
    this.#isBroken = isBroken;
    this.emit('flow');
  }

  /**
   * @param {CallsSession} session
   * @param {Outgoing[]} pushes
   */
  async #push(session, pushes) {
    const named = pushes.map((push) => prepare(session.connection, push));
    await session.push(named);
    if (session !== this.#session) return;
    for (const { push, transceiver } of named) {
      push.isPushed = true;
      // It may have been switched off meanwhile.
      if (!this.#outgoing.has(push)) this.#closing.push(transceiver);
      else this.#announce(session, push);
    }
    this.#worked();
  }

  /**
   * Sets the reference of a track once the first packet was sent: before that it cannot be received.
   * @param {CallsSession} session
   * @param {Outgoing} push
   */
  async #announce(session, push) {
    if (!(await untilSent(session, push))) return;
    push.reference = `${session.id}/${push.name}`;
    this.emit('sent');
  }

  /**
   * @param {CallsSession} session
   * @param {Incoming[]} pulls
   */
  async #pull(session, pulls) {
    const asked = pulls.map(({ layer }) => layer);
    const transceivers = await session.pull(pulls);
    if (session !== this.#session) return;
    for (const [index, pull] of pulls.entries()) {
      const transceiver = transceivers[index];
      if (!transceiver) {
        tryLater(pull);
      } else if (!this.#incoming.has(pull)) {
        this.#closing.push(transceiver);
      } else {
        Object.assign(pull, { transceiver, asked: asked[index], tries: 0 });
        this.emit('received');
      }
    }
    if (transceivers.some(Boolean)) this.#worked();
    else this.#updateTrouble();
  }

  /**
   * Asks for other layers of received tracks.
   * @param {CallsSession} session
   * @param {Incoming[]} tracks
   */
  async #askLayers(session, tracks) {
    const asked = tracks.map(({ layer }) => layer);
    await session.askLayers(tracks);
    if (session !== this.#session) return;
    // One that failed keeps its layer, which is no reason to ask again.
    for (const [index, track] of tracks.entries()) Object.assign(track, { asked: asked[index], tries: 0 });
  }

  /**
   * Waits for a change of the wanted tracks, or for the next retry.
   * @returns {Promise<void>}
   */
  #rest() {
    const next = Math.min(...[...this.#outgoing.unsent, ...this.#incoming.unreceived, ...this.#incoming.relayered].map(({ retryAt }) => retryAt));
    return new Promise((resolve) => {
      const timer = Number.isFinite(next) ? setTimeout(resolve, next - performance.now()) : undefined;
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
    this.emit('flow');
    this.#session?.end();
    this.#session = undefined;
    this.#closing = [];
    this.#outgoing.reset();
    if (this.#incoming.reset()) this.emit('received');
    this.emit('sent');
  }

  /** @param {unknown} error */
  #failed(error) {
    if (this.#ended) return;
    this.#failures.add(error, Boolean(this.#session?.wasConnected));
    this.#updateTrouble();
  }

  /** Negotiated tracks carry media only once a connection is up. */
  #worked() {
    if (this.#session?.isConnected) this.#failures.forget();
    this.#updateTrouble();
  }

  /** Emits `trouble` or `well` after a change. */
  #updateTrouble() {
    const trouble = this.#trouble;
    if (trouble === this.#shownTrouble) return;
    this.#shownTrouble = trouble;
    if (trouble) this.emit('trouble', trouble);
    else this.emit('well');
    this.emit('flow');
  }

  get #trouble() {
    return this.#failures.trouble ?? (this.#incoming.isStarving ? text('media.starving') : undefined);
  }
}
