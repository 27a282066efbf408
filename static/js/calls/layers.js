// @ts-check
// The header extensions that simulcast needs.

/** The header extensions with the layer of a packet (RFC 8852). */
const LAYER_NAMES = new Set(['urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id', 'urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id']);

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
