// Runs before every script of a page, and watches what its connections receive: what is decoded, and
// what is played of it. `rises` is always since the last `mark()`.
{
  /** Decoded sound below this is silence. */
  const SILENCE = 1e-7;
  /** The browser's own microphone is heard twice a second; this much of its sound cannot miss it. */
  const LONG_SILENCE = 1.2;
  /** So many pictures are no remains of what came before. */
  const MOVING = 5;

  const connections = new Set();
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...how) {
      super(...how);
      connections.add(this);
    }
  };
  // Sound needs no element in the page.
  const players = new Set();
  window.Audio = class extends Audio {
    constructor(...what) {
      super(...what);
      players.add(this);
    }
  };

  /** By received track: what is known of it, and what was at the last mark. */
  const known = new Map();

  /** By the name of a size: how many pictures of it were sent. */
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
  /** What is known of the sounds that are played. */
  const voices = () => {
    const all = [...players, ...document.querySelectorAll('audio')].filter((player) => !player.muted && isPlaying(player));
    return all.map((player) => known.get(trackOf(player))).filter(Boolean);
  };
  const times = new WeakMap();

  window.witness = {
    mark() {
      for (const [track, { frames, packets, energy }] of known) known.get(track).mark = { frames, packets, energy };
      for (const video of document.querySelectorAll('video')) times.set(video, { of: video.srcObject, time: video.currentTime });
    },

    /** Whether this video element shows a received picture that moves. */
    sees(video) {
      const picture = known.get(trackOf(video));
      if (!picture || !isPlaying(video) || video.videoWidth === 0) return false;
      const before = times.get(video);
      const from = before?.of === video.srcObject ? before.time : 0;
      return picture.frames - picture.mark.frames > MOVING && video.currentTime > from;
    },

    /** How wide the decoded picture is. */
    width(video) {
      return known.get(trackOf(video))?.width;
    },

    /** How many voices are played and rise. */
    get heard() {
      return voices().filter(({ energy, mark }) => energy - mark.energy > SILENCE).length;
    },

    /** How many voices are carried and played, and have been silent for long. */
    get silent() {
      const isSilent = ({ packets, sound, loudAt, mark }) => packets > mark.packets && sound - loudAt > LONG_SILENCE;
      return voices().filter(isSilent).length;
    },

    /** How many of our pictures were sent in the size of this name. */
    sent: (rid) => sent.get(rid) ?? 0,

    /** Sends our picture in the size of this name alone. */
    async sendOnly(rid) {
      for (const connection of connections) {
        for (const sender of connection.getSenders()) {
          const parameters = sender.getParameters();
          if (!parameters.encodings.some((encoding) => encoding.rid === rid)) continue;
          for (const encoding of parameters.encodings) encoding.active = encoding.rid === rid;
          // A machine that has much to do is no reason for another size.
          parameters.degradationPreference = 'maintain-resolution';
          await sender.setParameters(parameters);
        }
      }
    },
  };
}
