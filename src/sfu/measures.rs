//! Exports the counters of the engine and its sockets as metrics.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::counters::{Counters, DropReason};
use super::metrics::{Reason, SfuMetrics};
use super::net::Undelivered;

/// Counts already exported. Metrics are updated a few times a second, not for each packet.
pub struct Measures {
    metrics: SfuMetrics,
    told: Counters,
    told_busy: Duration,
    /// Packets not sent since the last export.
    undelivered: [u64; Undelivered::ALL.len()],
}

impl Measures {
    /// Exports to `metrics`, starting at zero.
    pub fn new(metrics: SfuMetrics) -> Self {
        Self {
            metrics,
            told: Counters::default(),
            told_busy: Duration::ZERO,
            undelivered: [0; Undelivered::ALL.len()],
        }
    }

    /// Counts packets that were not sent.
    pub fn undelivered(&mut self, why: Undelivered, packets: usize) {
        self.undelivered[why as usize] += packets as u64;
    }

    /// Counts a failure to read datagrams.
    pub fn receive_failed(&self) {
        self.metrics.receive_errors.inc();
    }

    /// Records the time that the oldest datagram of a batch spent in this machine.
    pub fn forwarded(&self, after: Duration) {
        self.metrics.forward_seconds.observe(after.as_secs_f64());
    }

    /// Exports what was counted since the last call.
    pub fn publish(&mut self, now: &Counters, busy: Duration) {
        let (metrics, told) = (&self.metrics, &self.told);
        let more = |counter: &Counter, now: u64, told: u64| {
            counter.inc_by(now.saturating_sub(told));
        };
        more(&metrics.received_packets, now.received_packets, told.received_packets);
        more(&metrics.received_bytes, now.received_bytes, told.received_bytes);
        more(&metrics.forwarded_packets, now.forwarded_packets, told.forwarded_packets);
        more(&metrics.forwarded_bytes, now.forwarded_bytes, told.forwarded_bytes);
        let more = |family: &Family<Reason, Counter>, reason, now: u64, told: u64| {
            if now > told {
                family.get_or_create(&Reason { reason }).inc_by(now - told);
            }
        };
        more(&metrics.nacks, "received", now.nacks_received, told.nacks_received);
        more(&metrics.nacks, "sent", now.nacks_sent, told.nacks_sent);
        let asked = &metrics.keyframe_requests;
        more(asked, "received", now.keyframe_requests_received, told.keyframe_requests_received);
        more(asked, "sent", now.keyframe_requests_sent, told.keyframe_requests_sent);
        for why in DropReason::ALL {
            more(&metrics.drops, why.label(), now.drops_by(why), told.drops_by(why));
        }
        for why in Undelivered::ALL {
            more(&metrics.undelivered, why.label(), self.undelivered[why as usize], 0);
        }
        self.undelivered = Default::default();
        if let Some(busy) = busy.checked_sub(self.told_busy) {
            metrics.busy_seconds.inc_by(busy.as_secs_f64());
        }
        self.told_busy = busy;
        self.gauge(now);
        self.told.clone_from(now);
    }

    fn gauge(&self, now: &Counters) {
        let set = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.metrics.sessions, now.sessions);
        set(&self.metrics.connected_sessions, now.connected);
        set(&self.metrics.tracks, now.tracks);
        set(&self.metrics.subscriptions, now.subscriptions);
    }
}

impl std::ops::Drop for Measures {
    /// The sessions end with the thread, even if it panicked.
    fn drop(&mut self) {
        self.gauge(&Counters::default());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn counts_are_exported_once() {
        let mut registry = Registry::default();
        let metrics = SfuMetrics::register(&mut registry);
        let mut measures = Measures::new(metrics.clone());
        let mut counters =
            Counters { received_packets: 5, nacks_sent: 2, sessions: 3, ..Counters::default() };
        counters.dropped(DropReason::Late);
        measures.undelivered(Undelivered::Full, 1);
        measures.forwarded(Duration::from_millis(3));
        for _ in 0..2 {
            measures.publish(&counters, Duration::from_millis(1500));
        }
        counters.received_packets += 1;
        counters.dropped(DropReason::Late);
        measures.publish(&counters, Duration::from_millis(2500));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "sfu_received_packets_total 6",
            "sfu_nacks_total{reason=\"sent\"} 2",
            "sfu_drops_total{reason=\"late\"} 2",
            "sfu_undelivered_total{reason=\"full\"} 1",
            "sfu_sessions 3",
            "sfu_busy_seconds_total 2.5",
            "sfu_forward_seconds_bucket{le=\"0.005\"} 1",
            "sfu_forward_seconds_bucket{le=\"0.002\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("reason=\"received\""), "nothing is told of what never was");
        drop(measures);
        assert_eq!(metrics.sessions.get(), 0, "the thread ended");
    }
}
