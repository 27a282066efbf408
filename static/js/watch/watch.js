// @ts-check
// Watching a video together: one state for the room, which the player of each page follows.

import { byId } from '../element.js';
import { notice } from '../notices.js';
import { text } from '../texts.js';
import { ServerClock } from './clock.js';
import { FilePlayer } from './player.js';
import { VideoTile } from './tile.js';
import { YouTubePlayer } from './youtube.js';

/** @import { Settings } from '../settings.js' */
/** @import { RoomState, Signalling, WatchedVideo, WatchRequest } from '../signalling.js' */
/** @import { Stage } from '../stage.js' */
/** @import { Player } from './player.js' */

/** Difference in seconds to the room's position from which the player is moved. */
const MAX_DRIFT = 0.25;

/** Interval of comparing the player with the room. */
const CHECK = 500;

/** Maximum seconds that a player is moved ahead, for the time that moving takes. */
const MAX_LEAD = 4;

export class Watch {
  #signalling;
  #stage;
  #videos;
  #clock;
  /** @type {RoomState} */
  #state;
  /** @type {WatchedVideo | undefined} */
  #watching;
  /** @type {Player | undefined} */
  #player;
  /** Time that the last move of the player took, in seconds. */
  #lead = 0;
  #isMoving = false;
  /** @type {number | undefined} */
  #aspect;
  #hasFailed = false;
  /**
   * The hosts that this user agreed to load videos from.
   * @type {Set<string>}
   */
  #agreed = new Set();
  #tile = new VideoTile();

  /**
   * @param {{ signalling: Signalling, stage: Stage, settings: Settings, state: RoomState }} parts
   * @param {AbortSignal} signal
   */
  constructor({ signalling, stage, settings, state }, signal) {
    this.#signalling = signalling;
    this.#stage = stage;
    this.#videos = settings.videos;
    this.#state = state;
    this.#clock = new ServerClock(signalling, () => this.#follow(), signal);
    const tile = this.#tile;
    tile.on('agree', () => this.#agree());
    tile.on('toggle', () => this.#send({ action: this.#watching?.playing ? 'pause' : 'play', position: millis(this.#position) }));
    tile.on('seek', (position) => this.#send({ action: 'seek', position: millis(position) }));
    tile.on('stop', () => this.#send({ action: 'stop' }));
    tile.on('pin', () => stage.pinVideo());
    const timer = setInterval(() => this.#follow(), CHECK);
    signal.addEventListener('abort', () => {
      clearInterval(timer);
      this.#unload();
    });
    signalling.on('roomState', ({ state }) => this.#show(state), { signal });
    this.#offer(signal);
    this.#show(state);
  }

  /**
   * Lets the user share a video, and moderators decide who may.
   * @param {AbortSignal} signal
   */
  #offer(signal) {
    const dialog = byId('watch', HTMLDialogElement);
    const address = byId('watch-url', HTMLInputElement);
    const share = byId('share-video');
    share.hidden = !this.#videos;
    byId('watch-youtube').hidden = !this.#videos?.youtube;
    share.addEventListener('click', () => {
      byId('menu').hidePopover();
      dialog.showModal();
    }, { signal });
    byId('watch-form').addEventListener('submit', () => {
      const url = address.value.trim();
      // Whoever shares it knows where it is.
      this.#agreed.add(hostOf(url));
      if (this.#videos?.youtube) this.#agreed.add(hostOf(this.#videos.youtube));
      this.#send({ action: 'start', url });
      address.value = '';
    }, { signal });
    const box = byId('rule-videos', HTMLInputElement);
    byId('rule-videos-label').hidden = !this.#videos;
    box.addEventListener('change', () => this.#signalling.send({ type: 'moderate', action: 'videos', on: box.checked }), { signal });
  }

  /** @param {RoomState} state */
  #show(state) {
    const before = this.#watching && addressOf(this.#watching);
    this.#state = state;
    this.#watching = state.watch;
    byId('rule-videos', HTMLInputElement).checked = state.room?.videos ?? true;
    byId('share-video', HTMLButtonElement).disabled = !this.#mayControl;
    const video = state.watch;
    const address = video && addressOf(video);
    if (address !== before) {
      this.#unload();
      this.#stage.showVideo(video ? this.#tile : undefined);
    }
    if (!video) return;
    this.#clock.check();
    const sharer = state.users.find(({ id }) => id === video.by)?.name;
    const host = video.kind === 'file' ? hostOf(video.url) : hostOf(this.#videos?.youtube ?? '');
    const isMine = video.by === this.#signalling.id;
    const by = isMine ? text('watch.you') : (sharer ?? text('watch.somebody'));
    this.#tile.introduce({ name: `${by} · ${host}`, question: text('watch.question', { by, host }) });
    if (!this.#player && this.#agreed.has(host)) this.#load();
    this.#follow();
  }

  /** True if this user may share and control videos. */
  get #mayControl() {
    const { room } = this.#state;
    return room?.videos !== false || Boolean(room.moderators?.includes(this.#signalling.id));
  }

  /** The room's position in seconds. */
  get #position() {
    const video = this.#watching;
    if (!video) return 0;
    const passed = video.playing ? Math.max(0, this.#clock.now - video.at) : 0;
    return (video.position + passed) / 1000;
  }

  #agree() {
    const video = this.#watching;
    if (!video) return;
    this.#agreed.add(video.kind === 'file' ? hostOf(video.url) : hostOf(this.#videos?.youtube ?? ''));
    this.#load();
    this.#follow();
  }

  #load() {
    const video = this.#watching;
    if (!video || this.#player) return;
    // The server has a player's address whenever it lets members share videos of it.
    const player = video.kind === 'file' ? new FilePlayer(video.url) : new YouTubePlayer(this.#videos?.youtube ?? '', video.id);
    this.#player = player;
    player.on('change', () => this.#follow());
    player.on('failed', () => this.#fail());
    this.#tile.use(player);
  }

  #unload() {
    this.#player?.end();
    this.#player = undefined;
    this.#hasFailed = false;
    this.#lead = 0;
    this.#tile.use(undefined);
  }

  #fail() {
    if (!this.#watching || this.#hasFailed) return;
    this.#hasFailed = true;
    notice(text('watch.failed'), 'watch');
  }

  /** Moves the player to where the room is. */
  #follow() {
    const video = this.#watching;
    if (!video) return;
    this.#clock.check();
    const player = this.#player;
    const position = this.#position;
    const end = player?.duration ?? Infinity;
    const isPlaying = video.playing && position < end;
    this.#tile.show({ isPlaying, position, mayControl: this.#mayControl });
    if (!player?.isReady) return;
    if (player.aspect !== this.#aspect) {
      this.#aspect = player.aspect;
      this.#stage.reshaped();
    }
    if (!player.isBusy) this.#correct(player, Math.min(position, end), isPlaying);
    if (isPlaying && player.isPaused) player.play();
    else if (!isPlaying && !player.isPaused) player.pause();
  }

  /**
   * @param {Player} player
   * @param {number} position
   * @param {boolean} isPlaying
   */
  #correct(player, position, isPlaying) {
    const behind = position - player.position;
    if (Math.abs(behind) <= MAX_DRIFT) {
      this.#isMoving = false;
      return;
    }
    // Still behind after a move: it took that long.
    if (isPlaying && this.#isMoving) this.#lead = Math.min(Math.max(this.#lead + behind, 0), MAX_LEAD);
    this.#isMoving = isPlaying;
    player.seek(isPlaying ? Math.min(position + this.#lead, player.duration ?? Infinity) : position);
  }

  /** @param {WatchRequest} request */
  #send(request) {
    this.#signalling.sendIfOpen({ type: 'watch', ...request });
  }
}

/** @param {WatchedVideo} video */
function addressOf(video) {
  // The same video may be shared again, which is then another one.
  return video.kind === 'file' ? video.url : `youtube ${video.id}`;
}

/** @param {string} url */
function hostOf(url) {
  return URL.canParse(url) ? new URL(url).host : '';
}

/** @param {number} seconds */
function millis(seconds) {
  return Math.max(0, Math.round(seconds * 1000));
}
