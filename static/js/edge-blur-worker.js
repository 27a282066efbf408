// @ts-check
// The worker that blurs the edges of a camera's pictures. It is loaded by whoever switches that on.

/** A blurred picture is this many times smaller until it is shown, which costs a fraction and looks the same. */
const SCALE = 8;

/** Pixels of the smaller picture that a pixel is spread over, and that its edges lie outside of what is shown. */
const BLUR = 4;

const [result, small, sharp, mask] = Array.from({ length: 4 }, () => new OffscreenCanvas(1, 1));
const [onResult, onSmall, onSharp, onMask] = [result, small, sharp, mask].map((canvas) => {
  const context = canvas.getContext('2d');
  if (!context) throw new Error('no canvas');
  return context;
});

addEventListener('message', ({ data: { readable, writable } }) => {
  const blurred = new TransformStream({ transform: (frame, frames) => frames.enqueue(blurEdges(frame)) });
  // As an error of the worker, which its page hears.
  readable.pipeThrough(blurred).pipeTo(writable).catch(reportError);
});

/** @param {VideoFrame} frame */
function blurEdges(frame) {
  const { displayWidth: width, displayHeight: height, timestamp } = frame;
  if (result.width !== width || result.height !== height) resize(width, height);
  onSmall.drawImage(frame, -BLUR, -BLUR, small.width + 2 * BLUR, small.height + 2 * BLUR);
  onSharp.globalCompositeOperation = 'copy';
  onSharp.drawImage(frame, 0, 0, width, height);
  onSharp.globalCompositeOperation = 'destination-in';
  onSharp.drawImage(mask, 0, 0);
  onResult.drawImage(small, 0, 0, width, height);
  onResult.drawImage(sharp, 0, 0);
  frame.close();
  return new VideoFrame(result, { timestamp, alpha: 'discard' });
}

/**
 * @param {number} width
 * @param {number} height
 */
function resize(width, height) {
  for (const canvas of [result, sharp, mask]) Object.assign(canvas, { width, height });
  Object.assign(small, { width: Math.ceil(width / SCALE), height: Math.ceil(height / SCALE) });
  onSmall.filter = `blur(${BLUR}px)`;
  // A head and shoulders, with an edge that is soft.
  const edge = onMask.createRadialGradient(0, 0, 0.75, 0, 0, 1);
  edge.addColorStop(0, 'black');
  edge.addColorStop(1, 'transparent');
  onMask.setTransform(0.4 * Math.min(width, height), 0, 0, 0.6 * height, width / 2, 0.55 * height);
  onMask.fillStyle = edge;
  onMask.fillRect(-1, -1, 2, 2);
}
