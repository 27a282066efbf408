// @ts-check
// The tracks to receive of the other members. Pure functions.

import { layerFor } from './calls/layers.js';

/** @import { Wanted } from './calls/incoming.js' */
/** @import { User } from './signalling.js' */
/** @import { VideoKind } from './stage.js' */

/** @type {VideoKind[]} */
const VIDEO_KINDS = ['video', 'screenshare'];

/**
 * Returns the audio of all others, and the video of those in view, as large as it is shown.
 * @param {User[]} others
 * @param {number} best height of a camera's best layer
 * @param {(user: User, kind: VideoKind) => number | undefined} heightOf the height of a video in pixels of the screen; undefined out of view
 * @returns {Wanted[]}
 */
export function wantedTracks(others, best, heightOf) {
  const visible = others.flatMap((user) =>
    VIDEO_KINDS.filter((kind) => isOn(user, kind)).flatMap((kind) => {
      const height = heightOf(user, kind);
      const reference = user.tracks[kind];
      return reference && height !== undefined ? { kind, reference, height } : [];
    }),
  );
  const videos = visible.map(({ kind, reference, height }) => ({
    reference,
    // A screen has one layer.
    layer: kind === 'video' ? layerFor(height, best, visible.length) : undefined,
  }));
  const voices = others.flatMap(({ tracks }) => (tracks.audio ? { reference: tracks.audio } : []));
  return [...voices, ...videos];
}

/**
 * @param {User} user
 * @param {VideoKind} kind
 */
export function isOn(user, kind) {
  return kind === 'video' ? user.tracks.videoEnabled : user.tracks.screenShareEnabled;
}
