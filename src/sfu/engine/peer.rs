//! The library's half of a session: what it is told of this server.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::net::{Protocol, TcpType};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::{Address, Engine};
use crate::sfu::request::Ice;

/// What a connection is taken for until it is known. A narrow one would queue audio behind more for its first
/// second; on another the first probes, at three and six times of it, tell within a few round trips.
pub(super) const FIRST_ESTIMATE: Bitrate = Bitrate::kbps(800);

/// How many packets of a picture are kept to be sent again; half a second at 2.5 Mbit/s.
const VIDEO_PACKETS_KEPT: usize = 256;

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
            .set_send_buffer_video(VIDEO_PACKETS_KEPT)
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

/// An address as ICE knows it.
pub(super) fn candidate(Address { proto, address }: Address) -> Option<Candidate> {
    match proto {
        Protocol::Tcp => Candidate::builder().tcp().host(address).tcptype(TcpType::Passive).build().ok(),
        proto => Candidate::host(address, proto).ok(),
    }
}
