// @ts-check
// A short sound to try a speaker with.

const SECONDS = 0.9;
const NOTES = [523.25, 659.25, 783.99];

/**
 * Plays it on a speaker; on the browser's own choice without an id.
 * @param {string} speaker
 */
export async function playTestSound(speaker) {
  const context = new AudioContext();
  const destination = context.createMediaStreamDestination();
  const audio = new Audio();
  audio.srcObject = destination.stream;
  await audio.setSinkId?.(speaker).catch(() => {});
  const start = context.currentTime + 0.1;
  NOTES.forEach((frequency, index) => {
    const [tone, volume] = [context.createOscillator(), context.createGain()];
    const at = start + (index * SECONDS) / NOTES.length;
    tone.frequency.value = frequency;
    volume.gain.setValueAtTime(0.25, at);
    volume.gain.exponentialRampToValueAtTime(0.001, at + SECONDS / NOTES.length);
    tone.connect(volume).connect(destination);
    tone.start(at);
    tone.stop(at + SECONDS / NOTES.length);
  });
  await audio.play().catch(() => {});
  setTimeout(() => context.close(), (SECONDS + 0.5) * 1_000);
}
