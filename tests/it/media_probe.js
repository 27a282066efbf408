// Runs before every script of a page, and measures the media that its connections receive and play, since
// the last `mark()`.
{
  /** Energy of decoded audio below which it is silent. */
  const SILENCE = 1e-7;
  /** Seconds of silence. The browser's fake microphone beeps twice a second, so a shorter pause is normal. */
  const LONG_SILENCE = 1.2;
  /** Number of frames that cannot all have been buffered. */
  const MOVING = 5;

  const connections = new Set();
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...how) {
      super(...how);
      connections.add(this);
    }
  };
  // Audio needs no element in the page.
  const players = new Set();
  window.Audio = class extends Audio {
    constructor(...what) {
      super(...what);
      players.add(this);
    }
  };

  /** By received track: its counts, now and at the last mark. */
  const known = new Map();

  /** Number of frames sent in each layer, by `rid`. */
  const sent = new Map();

  async function look() {
    for (const connection of connections) {
      if (connection.connectionState === 'closed') connections.delete(connection);
      for (const { sender, receiver, currentDirection } of connection.getTransceivers()) {
        for (const { type, rid, framesSent } of (await sender.getStats()).values()) {
          if (type === 'outbound-rtp' && rid) sent.set(rid, framesSent);
        }
        if (!['recvonly', 'sendrecv'].includes(currentDirection)) continue;
        const stats = [...(await receiver.getStats()).values()].find(({ type }) => type === 'inbound-rtp');
        if (!stats) continue;
        const before = known.get(receiver.track) ?? { energy: 0, loudAt: 0, mark: { frames: 0, packets: 0, energy: 0 } };
        const energy = stats.totalAudioEnergy ?? 0;
        const sound = stats.totalSamplesDuration ?? 0;
        known.set(receiver.track, {
          frames: stats.framesDecoded ?? 0,
          width: stats.frameWidth ?? 0,
          packets: stats.packetsReceived,
          energy,
          sound,
          loudAt: energy - before.energy > SILENCE ? sound : before.loudAt,
          mark: before.mark,
        });
      }
    }
    setTimeout(look, 50);
  }
  look();

  const trackOf = (element) => element?.srcObject?.getTracks().find(({ readyState }) => readyState === 'live');
  const isPlaying = (element) => Boolean(trackOf(element)) && !element.paused;
  /** The counts of all played audio tracks. */
  const voices = () => {
    const all = [...players, ...document.querySelectorAll('audio')].filter((player) => !player.muted && isPlaying(player));
    return all.map((player) => known.get(trackOf(player))).filter(Boolean);
  };
  const times = new WeakMap();

  window.probe = {
    mark() {
      for (const [track, { frames, packets, energy }] of known) known.get(track).mark = { frames, packets, energy };
      for (const video of document.querySelectorAll('video')) times.set(video, { of: video.srcObject, time: video.currentTime });
    },

    /** True if this video element plays a received track with new frames. */
    shows(video) {
      const picture = known.get(trackOf(video));
      if (!picture || !isPlaying(video) || video.videoWidth === 0) return false;
      const before = times.get(video);
      const from = before?.of === video.srcObject ? before.time : 0;
      return picture.frames - picture.mark.frames > MOVING && video.currentTime > from;
    },

    /** Width of the decoded video. */
    width(video) {
      return known.get(trackOf(video))?.width;
    },

    /** Number of played audio tracks that were audible. */
    get audible() {
      return voices().filter(({ energy, mark }) => energy - mark.energy > SILENCE).length;
    },

    /** Number of played audio tracks that arrive and have been silent for long. */
    get silent() {
      const isSilent = ({ packets, sound, loudAt, mark }) => packets > mark.packets && sound - loudAt > LONG_SILENCE;
      return voices().filter(isSilent).length;
    },

    /** Number of frames sent in this layer. */
    sent: (rid) => sent.get(rid) ?? 0,

    /** Sends only this layer. */
    async sendOnly(rid) {
      for (const connection of connections) {
        for (const sender of connection.getSenders()) {
          const parameters = sender.getParameters();
          if (!parameters.encodings.some((encoding) => encoding.rid === rid)) continue;
          for (const encoding of parameters.encodings) encoding.active = encoding.rid === rid;
          // A busy machine must not change the resolution.
          parameters.degradationPreference = 'maintain-resolution';
          await sender.setParameters(parameters);
        }
      }
    },
  };
}
