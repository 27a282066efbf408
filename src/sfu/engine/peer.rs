//! The library's half of a session: what it is told of this server.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::net::{Protocol, TcpType};
use str0m::rtp::StreamTx;
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::{Address, Engine};
use crate::sfu::request::Ice;

/// What a connection is taken for until it is known. A narrow one would queue audio behind more for its first
/// second; on another the first probes, at three and six times of it, tell within a few round trips.
pub(super) const FIRST_ESTIMATE: Bitrate = Bitrate::kbps(800);

/// Time for which packets of video are kept to be sent again: a second, and the way of the request.
const VIDEO_KEPT: Duration = Duration::from_millis(1250);

/// Packets of a video that are kept at most: those of that time at 8 Mbit/s, of 1,000 bytes and a few small ones.
/// Payloads are shared by all subscribers, and the rest takes memory only as the stream has packets.
const MAX_VIDEO_PACKETS_KEPT: usize = 1280;

/// The part of what is sent that may be retransmissions. A receiver far away that misses 10 % asks for a packet several
/// times before it comes; beyond this the connection is too narrow, and more makes that worse.
const MAX_RESENT: f32 = 0.4;

/// How often a connection's losses are counted.
const STATISTICS: Duration = Duration::from_secs(2);

impl Engine {
    /// A peer that speaks for the server in a new session.
    pub(super) fn new_rtc(&self, now: Instant, ice: Ice, credentials: IceCreds, is_measurable: bool) -> Rtc {
        let mut config: RtcConfig = Rtc::builder()
            // Payloads pass untouched, so that they may be encrypted from end to end.
            .set_rtp_mode(true)
            .set_ice_lite(ice == Ice::Lite)
            .set_local_ice_credentials(credentials)
            .enable_bwe(is_measurable.then_some(FIRST_ESTIMATE))
            .set_stats_interval(Some(STATISTICS))
            .clear_codecs()
            .enable_opus(true, false)
            .enable_pcmu(true, false)
            .enable_pcma(true, false)
            // The first is what browsers send.
            .enable_vp8(true)
            .enable_h264(true)
            .enable_vp9(true)
            .enable_av1(true)
            .enable_h265(true);
        if let Some(certificate) = &self.certificate {
            config = config.set_dtls_cert(certificate.clone());
        }
        let mut rtc = config.build(now);
        for address in &self.settings.candidates {
            if let Some(candidate) = candidate(*address) {
                rtc.add_local_candidate(candidate);
            }
        }
        rtc
    }
}

/// Lets a stream to a subscriber keep what it may have to send again.
pub(super) fn keep_for_retransmission(stream: &mut StreamTx) {
    stream.set_rtx_cache(MAX_VIDEO_PACKETS_KEPT, VIDEO_KEPT, Some(MAX_RESENT));
}

/// An address as ICE knows it.
pub(super) fn candidate(Address { proto, address }: Address) -> Option<Candidate> {
    match proto {
        Protocol::Tcp => Candidate::builder().tcp().host(address).tcptype(TcpType::Passive).build().ok(),
        proto => Candidate::host(address, proto).ok(),
    }
}
