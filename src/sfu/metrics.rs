//! The media server's metrics, registered in the embedder's registry.
//!
//! The doc line of a field is also its help text.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A label with a reason.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Reason {
    /// The reason; always one of a fixed set.
    pub(super) reason: &'static str,
}

/// Upper bounds of the forwarding time's buckets, in seconds.
const MOMENTS: [f64; 13] =
    [0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal, $new:expr;)*) => {
        /// The metrics of one media server. Clones share their counts.
        #[derive(Clone, Debug)]
        pub struct SfuMetrics {
            $($(#[doc = $help])+ pub(super) $field: $type,)*
            /// Failures to accept a connection, if they are not counted in `tcp_ends`.
            accept_errors: Option<Counter>,
        }

        impl SfuMetrics {
            /// Creates all metrics at zero and registers them, with names that begin with `sfu_`.
            pub fn register(registry: &mut Registry) -> Self {
                $(
                    let $field: $type = $new;
                    registry.register($name, concat!($($help),+).trim().trim_end_matches('.'), $field.clone());
                )*
                Self { $($field,)* accept_errors: None }
            }

            /// Returns the names of all metrics, without a registry's prefix and the suffixes of counters and
            /// histograms.
            pub fn names() -> &'static [&'static str] {
                &[$($name),*]
            }
        }
    };
}

metrics! {
    /// Sessions of the embedded media server.
    sessions: Gauge = "sfu_sessions", Gauge::default();
    /// Connected sessions of the embedded media server.
    connected_sessions: Gauge = "sfu_connected_sessions", Gauge::default();
    /// Published tracks of the embedded media server.
    tracks: Gauge = "sfu_tracks", Gauge::default();
    /// Subscriptions to tracks of the embedded media server.
    subscriptions: Gauge = "sfu_subscriptions", Gauge::default();
    /// Packets received by the embedded media server.
    received_packets: Counter = "sfu_received_packets", Counter::default();
    /// Bytes received by the embedded media server.
    received_bytes: Counter = "sfu_received_bytes", Counter::default();
    /// Media packets forwarded, counted once per subscriber.
    forwarded_packets: Counter = "sfu_forwarded_packets", Counter::default();
    /// Bytes of media packets forwarded, counted once per subscriber.
    forwarded_bytes: Counter = "sfu_forwarded_bytes", Counter::default();
    /// Retransmission requests (NACK), "received" from subscribers or "sent" to publishers.
    nacks: Family<Reason, Counter> = "sfu_nacks", Family::default();
    /// Keyframe requests (PLI, FIR), "received" from subscribers or "sent" to publishers.
    keyframe_requests: Family<Reason, Counter> = "sfu_keyframe_requests", Family::default();
    /// Packets dropped by the embedded media server instead of forwarded, by reason.
    drops: Family<Reason, Counter> = "sfu_drops", Family::default();
    /// Packets dropped at a socket of the embedded media server, by reason.
    undelivered: Family<Reason, Counter> = "sfu_undelivered", Family::default();
    /// Failed reads of a batch of datagrams.
    receive_errors: Counter = "sfu_receive_errors", Counter::default();
    /// Seconds from the arrival of a batch's oldest datagram until all of the batch is forwarded.
    forward_seconds: Histogram = "sfu_forward_seconds", Histogram::new(MOMENTS);
    /// Seconds of work of the media thread; the rate is its load, 1 being a full core.
    busy_seconds: Counter<f64, AtomicU64> = "sfu_busy_seconds", Counter::default();
    /// Open TCP connections for media.
    tcp_connections: Gauge = "sfu_tcp_connections", Gauge::default();
    /// TCP connections for media that ended or were refused, by reason.
    tcp_ends: Family<Reason, Counter> = "sfu_tcp_ends", Family::default();
}

impl SfuMetrics {
    /// Counts failures to accept a TCP connection in `counter`, such as one of all listeners of a process. Without
    /// it they are counted in `sfu_tcp_ends`, with the reason `accept_error`.
    #[must_use]
    pub fn with_accept_errors(self, counter: Counter) -> Self {
        Self { accept_errors: Some(counter), ..self }
    }

    /// Counts a failure to accept a TCP connection, such as for too many open files.
    pub(super) fn accept_failed(&self) {
        let Some(counter) = &self.accept_errors else {
            return Self::count(&self.tcp_ends, "accept_error");
        };
        counter.inc();
    }

    /// Increments the counter of `reason`.
    pub(super) fn count(family: &Family<Reason, Counter>, reason: &'static str) {
        family.get_or_create(&Reason { reason }).inc();
    }
}

impl Default for SfuMetrics {
    /// Creates metrics that no registry shows.
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

/// A TCP connection in the gauge of open ones, until it is dropped; also by a panic.
pub(super) struct OpenConnection(Gauge);

impl OpenConnection {
    /// Counts a connection.
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
