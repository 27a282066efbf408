// @ts-check
// Layers of simulcast: the ones that we send, the one that a size needs, and the header extensions for them.

/** The header extensions with the layer of a packet (RFC 8852). */
const LAYER_NAMES = new Set(['urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id', 'urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id']);

/** The layers of our camera, best first: each with half the height of the one before. */
const LAYERS = /** @type {const} */ (['a', 'b', 'c']);

/** Share of a layer's height by which a video may be enlarged. */
const ENLARGED = 1.35;

/**
 * Returns the encodings of our camera. A subscriber with low bandwidth, or a small tile, gets lower resolution.
 * @param {{ bitrate: number, framerate: number }} webcam
 * @returns {RTCRtpEncodingParameters[]}
 */
export function cameraLayers({ bitrate, framerate }) {
  const [a, b, c] = LAYERS;
  return [
    { rid: a, maxBitrate: Math.min(bitrate, 1_300_000), maxFramerate: framerate },
    { rid: b, maxBitrate: 500_000, maxFramerate: framerate, scaleResolutionDownBy: 2 },
    { rid: c, maxBitrate: 150_000, maxFramerate: Math.min(framerate, 15), scaleResolutionDownBy: 4 },
  ];
}

/**
 * Numbers of videos up to which the media service chooses all layers, and up to which the smallest one is not asked for. A
 * connection that carries little is measured as a narrow one, and would have no room for a large video that comes next.
 */
const FEW = 4;
const SEVERAL = 8;

/**
 * Returns the smallest layer that fills this height; undefined leaves it to the media service.
 * @param {number} height in pixels of the screen
 * @param {number} best height of the best layer
 * @param {number} count number of videos that are received
 */
export function layerFor(height, best, count) {
  if (count <= FEW) return undefined;
  const smallest = count <= SEVERAL ? 1 : LAYERS.length - 1;
  const fills = LAYERS.findLastIndex((_, index) => (best / 2 ** index) * ENLARGED >= height);
  return LAYERS[Math.min(Math.max(0, fills), smallest)];
}

/**
 * A transceiver with the methods of RTP header extension control, which not every browser has.
 * @typedef {{ uri: string, direction: RTCRtpTransceiverDirection }} HeaderExtension
 * @typedef {RTCRtpTransceiver & {
 *   getHeaderExtensionsToNegotiate?: () => HeaderExtension[],
 *   setHeaderExtensionsToNegotiate?: (extensions: HeaderExtension[]) => void,
 * }} ExtensibleTransceiver
 */

/**
 * Enables those extensions. Chromium drops them if the other side made the first offer, and then rejects its own
 * description.
 * @param {ExtensibleTransceiver} transceiver
 */
export function nameLayers(transceiver) {
  const extensions = transceiver.getHeaderExtensionsToNegotiate?.();
  if (!extensions) return;
  /** @type {HeaderExtension[]} */
  const named = extensions.map(({ uri, direction }) => ({ uri, direction: LAYER_NAMES.has(uri) ? 'sendrecv' : direction }));
  transceiver.setHeaderExtensionsToNegotiate?.(named);
}
