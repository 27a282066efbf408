// Detects speakers by the loudness of their tracks.

const INTERVAL = 50;
/** Speech begins louder than it goes on. */
const BEGINS = 0.1;
const GOES_ON = 0.02;
/** A pause for breath is not the end. */
const BREATH = 1_000;

/** Calls `tell` with true and false as speech begins and ends. Gives back what stops it. */
export function watchSpeech(track, tell) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let isSpeaking = false;
  let lastHeard = 0;
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const loudness = Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
    const now = performance.now();
    if (loudness > (isSpeaking ? GOES_ON : BEGINS)) lastHeard = now;
    const isNow = lastHeard > 0 && now - lastHeard < BREATH;
    if (isNow === isSpeaking) return;
    isSpeaking = isNow;
    tell(isSpeaking);
  }, INTERVAL);
  return () => {
    clearInterval(timer);
    context.close();
    if (isSpeaking) tell(false);
  };
}
