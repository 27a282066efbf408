//! Media that test clients send.

use std::time::Duration;

use str0m::media::{KeyframeRequestKind, MediaKind, Mid, Pt, Rid};
use str0m::rtp::RtpWrite;
use str0m::{Input, Rtc};

use super::world::World;

/// Time between two video frames.
pub(crate) const PICTURE: Duration = Duration::from_millis(33);

/// Time between two audio packets.
pub(crate) const SOUND: Duration = Duration::from_millis(20);

impl World {
    /// Sends one audio packet.
    pub(crate) fn speak(&mut self, peer: usize, mid: Mid) {
        let number = self.number(peer, mid, None);
        let [.., high, low] = number.to_be_bytes();
        self.write(peer, mid, None, number, (number * 960) as u32, true, vec![1, 2, high, low]);
    }

    /// Sends one video frame of `packets` packets; a keyframe if one is due.
    pub(crate) fn show(&mut self, peer: usize, mid: Mid, rid: Option<&str>, packets: usize) {
        let rid = rid.map(Rid::from);
        let keyframe = std::mem::take(self.peers[peer].due.entry((mid, rid)).or_insert(true));
        // A clock per layer, unrelated to the others'.
        let letter = rid.map_or(0, |rid| rid.as_bytes()[0]);
        let since = self.now.saturating_duration_since(self.start).as_millis() as u32;
        for packet in 0..packets {
            let number = self.number(peer, mid, rid);
            // RFC 7741: extended, a start at the first packet, a long PictureID; then the P bit.
            let start = if packet == 0 { 0x90 } else { 0x80 };
            let id = (since / 33) as u16 & 0x7fff;
            let [high, low] = (id | 0x8000).to_be_bytes();
            let mut payload = vec![start, 0x80, high, low, u8::from(!keyframe)];
            payload.extend_from_slice(&number.to_be_bytes());
            payload.push(letter);
            payload.resize(1000, 0);
            let time = (u32::from(letter) * 1_000_000).wrapping_add(since.wrapping_mul(90));
            self.write(peer, mid, rid, number, time, packet + 1 == packets, payload);
        }
    }

    /// Sends `pictures` frames of these layers, given as rid and packets per frame.
    pub(crate) fn film(&mut self, peer: usize, mid: Mid, layers: &[(Option<&str>, usize)], pictures: usize) {
        for _ in 0..pictures {
            for (rid, packets) in layers {
                self.show(peer, mid, *rid, *packets);
            }
            self.pass(PICTURE);
        }
    }

    /// Sends `packets` audio packets.
    pub(crate) fn talk(&mut self, peer: usize, mid: Mid, packets: usize) {
        for _ in 0..packets {
            self.speak(peer, mid);
            self.pass(SOUND);
        }
    }

    pub(crate) fn number(&mut self, peer: usize, mid: Mid, rid: Option<Rid>) -> u64 {
        let number = self.peers[peer].numbers.entry((mid, rid)).or_insert(1000);
        *number += 1;
        *number
    }

    /// Sets the sequence number of a stream's next packet.
    pub(crate) fn number_from(&mut self, peer: usize, mid: Mid, rid: Option<&str>, next: u64) {
        self.peers[peer].numbers.insert((mid, rid.map(Rid::from)), next - 1);
    }

    #[expect(clippy::too_many_arguments, reason = "a packet has many parts")]
    pub(crate) fn write(
        &mut self,
        peer: usize,
        mid: Mid,
        rid: Option<Rid>,
        seq: u64,
        time: u32,
        last: bool,
        payload: Vec<u8>,
    ) {
        let (now, encoding) = (self.now, self.peers[peer].encoding);
        let rtc = &mut self.peers[peer].rtc;
        let pt = payload_type(rtc, mid);
        let is_video = rtc.media(mid).unwrap().kind() == MediaKind::Video;
        let mut api = rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, rid).expect("a stream");
        stream.set_unpaced(true);
        let captured = if is_video { now - encoding } else { now };
        let write = RtpWrite::new(pt, seq.into(), time, captured, payload).marker(last).nackable(is_video);
        stream.write_rtp(write);
        rtc.handle_input(Input::Timeout(now)).unwrap();
        self.poll(peer);
    }

    /// Sends a keyframe request of a client.
    pub(crate) fn complain(&mut self, peer: usize, mid: Mid) {
        let rtc = &mut self.peers[peer].rtc;
        rtc.direct_api().stream_rx_by_mid(mid, None).unwrap().request_keyframe(KeyframeRequestKind::Pli);
        rtc.handle_input(Input::Timeout(self.now)).unwrap();
        self.poll(peer);
    }
}

fn payload_type(rtc: &Rtc, mid: Mid) -> Pt {
    rtc.media(mid).unwrap().remote_pts()[0]
}
