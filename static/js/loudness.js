// @ts-check
// The loudness of a track, and speech detected by it.

const INTERVAL = 50;
const LEVEL_INTERVAL = 100;

/** Loudness at which speech begins, and above which it continues. */
const BEGIN_LEVEL = 0.1;
const CONTINUE_LEVEL = 0.02;

/** Silence after which speech has ended: longer than a breath. */
const RELEASE = 1_000;

/** Time in which whoever was just muted ends a word. */
const LAST_WORD = 700;

/** Decibels below full scale that are shown as silence. */
const QUIETEST = 60;

/**
 * Calls `changed` with true and false as speech begins and ends, of a muted track as well. `stop` ends that, and `restart`
 * takes what is said from then on as new speech, but for the end of a word.
 * @param {MediaStreamTrack} track
 * @param {(isSpeaking: boolean) => void} changed
 */
export function watchSpeech(track, changed) {
  let isSpeaking = false;
  let lastLoud = 0;
  let deafUntil = 0;
  const end = () => {
    lastLoud = 0;
    if (isSpeaking) changed((isSpeaking = false));
  };
  const unmeasure = measure(track, INTERVAL, (loudness) => {
    const now = performance.now();
    if (now < deafUntil) return;
    if (loudness > (isSpeaking ? CONTINUE_LEVEL : BEGIN_LEVEL)) lastLoud = now;
    const isNow = lastLoud > 0 && now - lastLoud < RELEASE;
    if (isNow === isSpeaking) return;
    isSpeaking = isNow;
    changed(isSpeaking);
  });
  return {
    stop: () => {
      unmeasure();
      end();
    },
    restart: () => {
      deafUntil = performance.now() + LAST_WORD;
      end();
    },
  };
}

/**
 * Calls `show` with the level of a track, from 0 to 1 on a scale of decibels; returns a function that ends that.
 * @param {MediaStreamTrack} track
 * @param {(level: number) => void} show
 */
export function watchLevel(track, show) {
  return measure(track, LEVEL_INTERVAL, (loudness) => show(Math.max(0, 1 + (20 * Math.log10(loudness)) / QUIETEST)));
}

/**
 * @param {MediaStreamTrack} track
 * @param {number} interval
 * @param {(loudness: number) => void} measured
 */
function measure(track, interval, measured) {
  // A track that is muted carries silence; its clone does not.
  const heard = track.clone();
  heard.enabled = true;
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([heard])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    measured(Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length));
  }, interval);
  return () => {
    clearInterval(timer);
    context.close();
    heard.stop();
  };
}
