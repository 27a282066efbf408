//! Creates and configures the str0m peer of a session.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::net::{Protocol, TcpType};
use str0m::rtp::StreamTx;
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::{Address, Engine};
use crate::request::Ice;

/// Initial bandwidth estimate. With a higher one a narrow connection would queue audio for its first second; on
/// others the first probes, at three and six times this rate, correct it within a few round trips.
pub(super) const FIRST_ESTIMATE: Bitrate = Bitrate::kbps(800);

/// Time for which video packets are kept for retransmission: a second, and the delay of the request.
const VIDEO_KEPT: Duration = Duration::from_millis(1250);

/// Maximum number of packets kept per video: those of [`VIDEO_KEPT`] at 8 Mbit/s, of 1,000 bytes and a few small
/// ones. Payloads are shared by all subscribers, and the other memory grows only with the packets of the stream.
const MAX_VIDEO_PACKETS_KEPT: usize = 1280;

/// Share of the sent bits that may be retransmissions. A distant receiver that loses 10 % requests a packet several
/// times before it arrives; beyond this share the connection is too narrow, and more retransmissions make that worse.
const MAX_RESENT: f32 = 0.4;

/// Interval of str0m's statistics.
const STATISTICS: Duration = Duration::from_secs(2);

impl Engine {
    /// Creates the server's peer of a session; `is_measurable` enables bandwidth estimation.
    pub(super) fn new_rtc(&self, now: Instant, ice: Ice, credentials: IceCreds, is_measurable: bool) -> Rtc {
        let mut config: RtcConfig = Rtc::builder()
            // RTP mode passes payloads through unchanged, so that they may be end-to-end encrypted.
            .set_rtp_mode(true)
            .set_ice_lite(ice == Ice::Lite)
            .set_local_ice_credentials(credentials)
            .enable_bwe(is_measurable.then_some(FIRST_ESTIMATE))
            .set_stats_interval(Some(STATISTICS))
            .clear_codecs()
            .enable_opus(true, false)
            .enable_pcmu(true, false)
            .enable_pcma(true, false)
            // Browsers send the first video codec of the list.
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

/// Sets how many packets of a stream are kept for retransmission.
pub(super) fn keep_for_retransmission(stream: &mut StreamTx) {
    stream.set_rtx_cache(MAX_VIDEO_PACKETS_KEPT, VIDEO_KEPT, Some(MAX_RESENT));
}

/// Converts an address to a host candidate; none if the address cannot be one.
pub(super) fn candidate(Address { proto, address }: Address) -> Option<Candidate> {
    match proto {
        Protocol::Tcp => Candidate::builder().tcp().host(address).tcptype(TcpType::Passive).build().ok(),
        proto => Candidate::host(address, proto).ok(),
    }
}
