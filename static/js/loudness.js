// @ts-check
// Detects speech by the loudness of a track.

const INTERVAL = 50;

/** Loudness at which speech begins, and above which it continues. */
const BEGIN_LEVEL = 0.1;
const CONTINUE_LEVEL = 0.02;

/** Silence after which speech has ended: longer than a breath. */
const RELEASE = 1_000;

/**
 * Calls `changed` with true and false as speech begins and ends; returns a function that stops the detection.
 * @param {MediaStreamTrack} track
 * @param {(isSpeaking: boolean) => void} changed
 */
export function watchSpeech(track, changed) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let isSpeaking = false;
  let lastLoud = 0;
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const loudness = Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
    const now = performance.now();
    if (loudness > (isSpeaking ? CONTINUE_LEVEL : BEGIN_LEVEL)) lastLoud = now;
    const isNow = lastLoud > 0 && now - lastLoud < RELEASE;
    if (isNow === isSpeaking) return;
    isSpeaking = isNow;
    changed(isSpeaking);
  }, INTERVAL);
  return () => {
    clearInterval(timer);
    context.close();
    if (isSpeaking) changed(false);
  };
}
