// Runs before every script of a page, for its pictures: the camera shows a drawn person, the screen a drawn slide, and the
// devices have names. `ACTOR` is the number of the person.
{
  const SKIN = ['#8d5a3b', '#6b452d', '#c68b5f', '#f0d3b8', '#dfab7c', '#a97450'];
  const HAIR = ['#12110f', '#1c1512', '#3b2415', '#c39a4a', '#86552a', '#5b5a60'];
  const CLOTHES = ['#42368a', '#5f8a36', '#8a5a3c', '#3c8a66', '#8a3c77', '#35708a'];
  const WALLS = [['#8cb87f', '#ccd4a8'], ['#c3a9d4', '#a870b0'], ['#a9c6d6', '#6a6fb3'], ['#dba9b3', '#a9755f'], ['#aedbb5', '#63b0ad'], ['#e6cf9f', '#c48a5a']];

  const of = (list) => list[ACTOR % list.length];

  function drawPerson(context, { width, height }, time) {
    const wall = context.createLinearGradient(0, 0, width, height);
    of(WALLS).forEach((colour, at) => wall.addColorStop(at, colour));
    context.fillStyle = wall;
    context.fillRect(0, 0, width, height);
    // A window, on one side or the other.
    const left = ACTOR % 2 ? width * 0.06 : width * 0.7;
    context.fillStyle = 'rgb(255 255 255 / 38%)';
    context.fillRect(left, height * 0.1, width * 0.24, height * 0.5);
    context.strokeStyle = 'rgb(255 255 255 / 45%)';
    context.lineWidth = 4;
    for (const [x1, y1, x2, y2] of [[0.12, 0, 0.12, 0.5], [0, 0.25, 0.24, 0.25]]) {
      context.beginPath();
      context.moveTo(left + width * x1, height * (0.1 + y1));
      context.lineTo(left + width * x2, height * (0.1 + y2));
      context.stroke();
    }
    const x = width / 2 + Math.sin(time / 900 + ACTOR) * 6;
    const y = height * 0.5;
    const size = height * 0.2;
    const shape = (colour, draw) => {
      context.fillStyle = colour;
      context.beginPath();
      draw();
      context.fill();
    };
    shape(of(HAIR), () => context.ellipse(x, y - size * 0.18, size * 1.02, size * 1.24, 0, 0, 7));
    shape(of(CLOTHES), () => context.ellipse(x, height * 1.1, size * 2.2, height * 0.36, 0, 0, 7));
    shape(of(SKIN), () => context.roundRect(x - size * 0.3, y + size * 0.7, size * 0.6, size * 0.9, size * 0.25));
    shape(of(SKIN), () => context.ellipse(x, y, size * 0.82, size * 1.05, 0, 0, 7));
    shape(of(HAIR), () => context.ellipse(x, y - size * 0.86, size * 0.86, size * 0.42, -0.12, 0, 7));
    for (const side of [-1, 1]) shape('#221a16', () => context.arc(x + side * size * 0.3, y - size * 0.02, size * 0.075, 0, 7));
    context.strokeStyle = '#7a3a2e';
    context.lineWidth = size * 0.075;
    context.lineCap = 'round';
    context.beginPath();
    context.arc(x, y + size * 0.36, size * 0.26, 0.35, Math.PI - 0.35);
    context.stroke();
  }

  function drawSlide(context, { width, height }) {
    context.fillStyle = '#fbf7f1';
    context.fillRect(0, 0, width, height);
    context.fillStyle = '#b5430a';
    context.fillRect(0, 0, width, 18);
    context.fillStyle = '#221d1a';
    context.font = '700 64px sans-serif';
    context.fillText('Orders by month', 90, 150);
    const values = [0.34, 0.42, 0.38, 0.55, 0.61, 0.74, 0.7, 0.88];
    values.forEach((value, index) => {
      context.fillStyle = index === values.length - 1 ? '#b5430a' : '#e8a06c';
      context.fillRect(110 + index * 135, 600 - value * 400, 90, value * 400);
    });
    context.fillStyle = '#6a615b';
    context.fillRect(90, 600, 1110, 3);
    context.font = '400 26px sans-serif';
    ['Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov'].forEach((month, index) => context.fillText(month, 130 + index * 135, 640));
  }

  function track(width, height, draw) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    const paint = () => draw(context, canvas, performance.now());
    paint();
    setInterval(paint, 100);
    return canvas.captureStream(10).getVideoTracks()[0];
  }

  // Nothing is heard until `speaks.gain.value` is set.
  function voice() {
    const context = new AudioContext();
    const destination = context.createMediaStreamDestination();
    const tone = new OscillatorNode(context);
    window.speaks = new GainNode(context, { gain: 0 });
    tone.connect(speaks).connect(destination);
    tone.start();
    return destination.stream.getAudioTracks()[0];
  }

  const NAMES = [['videoinput', 'camera', 'Built-in camera'], ['audioinput', 'microphone', 'Built-in microphone'], ['audioinput', 'headset', 'Headset'], ['audiooutput', 'speaker', 'Built-in speakers']];
  navigator.mediaDevices.enumerateDevices = async () => NAMES.map(([kind, deviceId, label]) => ({ kind, deviceId, label, groupId: '' }));
  navigator.mediaDevices.getUserMedia = async ({ audio, video }) =>
    new MediaStream([...(audio ? [voice()] : []), ...(video ? [track(640, 360, drawPerson)] : [])]);
  navigator.mediaDevices.getDisplayMedia = async () => new MediaStream([track(1280, 720, drawSlide)]);
}
