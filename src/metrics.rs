//! All metrics of this server, as shown by `GET /metrics`.
//!
//! The metrics belong to a server, not to the process, so that two servers in one test have separate counts;
//! the dropped log lines are the exception. The doc line of a field is also its help text.

mod process;

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, LazyLock};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use satsuma_sfu::SfuMetrics;

/// A label with a reason, such as that of a close.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByReason {
    /// The reason; always one of a fixed set.
    pub reason: &'static str,
}

/// Labels of a kind and its outcome.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByOutcome {
    /// The kind, such as of a report or a job; always one of a fixed set.
    pub kind: &'static str,
    /// The outcome; always one of a fixed set.
    pub outcome: &'static str,
}

/// A label with the type of a message.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByType {
    /// The message's `type`, or `invalid`.
    pub r#type: &'static str,
}

/// Labels of a socket of Phoenix Channels.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct BySocket {
    /// The transport; always one of a fixed set.
    pub transport: &'static str,
    /// The version of the serializer.
    pub version: &'static str,
}

/// Labels of an HTTP request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByRoute {
    /// The route's pattern, never the path itself: room names must not be published.
    pub route: String,
    /// The answer's status code.
    pub status: u16,
}

/// Labels of a call to the media API.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByCall {
    /// The operation; always one of a fixed set.
    pub operation: &'static str,
    /// The status of the answer, or the label of the error.
    pub status: String,
}

/// Constructor of histograms with buckets from half a millisecond to ten seconds.
#[derive(Clone)]
pub struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
    }
}

/// Dropped log lines. The log belongs to the process, unlike everything else that is counted.
pub static LOG_LINES_DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

const PREFIX: &str = "satsuma";

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal, $new:expr;)*) => {
        /// All metrics of one server.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $type,)*
            /// The embedded media server.
            pub sfu: SfuMetrics,
        }

        impl Metrics {
            /// Creates all metrics at zero.
            pub fn new() -> Arc<Self> {
                let mut registry = Registry::default();
                registry.register_collector(Box::new(process::Process));
                let own = registry.sub_registry_with_prefix(PREFIX);
                own.register("build", "Version of the program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
                $(
                    let $field: $type = $new;
                    own.register($name, concat!($($help),+).trim().trim_end_matches('.'), $field.clone());
                )*
                let sfu = SfuMetrics::register(own);
                Arc::new(Self { registry, $($field,)* sfu })
            }

            /// Returns the names of all metrics as in `/metrics`, without the suffixes of counters and
            /// histograms. A family with labels is shown once one of its members was counted.
            pub fn names() -> Vec<String> {
                let own = ["build", $($name),*].into_iter().chain(SfuMetrics::names().iter().copied());
                own.map(|name| format!("{PREFIX}_{name}")).chain(process::NAMES.map(str::to_owned)).collect()
            }
        }
    };
}

metrics! {
    /// Open WebSocket connections.
    connections: Gauge = "connections", Gauge::default();
    /// Open TCP connections that speak HTTP on the public listener; an upgraded one counts as a WebSocket.
    tcp_connections: Gauge = "tcp_connections", Gauge::default();
    /// Running rooms.
    rooms: Gauge = "rooms", Gauge::default();
    /// Members of all rooms, including those whose connection is lost for the moment.
    members: Gauge = "members", Gauge::default();
    /// Messages from clients, by type.
    messages: Family<ByType, Counter> = "messages", Family::default();
    /// Bytes of messages from clients.
    received_bytes: Counter = "received_bytes", Counter::default();
    /// Snapshots encoded by rooms, each once for all members.
    broadcasts: Counter = "broadcasts", Counter::default();
    /// Snapshots replaced by a newer one before they were written to a member's socket.
    conflated_snapshots: Counter = "conflated_snapshots", Counter::default();
    /// Presence messages replaced by a newer state before they were written to a member's connection.
    conflated_presences: Counter = "conflated_presences", Counter::default();
    /// Bytes of messages that wait to be written or confirmed; shared bytes count once.
    outbox_bytes: Gauge = "outbox_bytes", Gauge::default();
    /// Bytes of the histories of all rooms' chats.
    chat_history_bytes: Gauge = "chat_history_bytes", Gauge::default();
    /// Open WebSocket connections with compression.
    deflated_connections: Gauge = "deflated_connections", Gauge::default();
    /// Bytes of compressed messages before compression, counted once for all recipients.
    deflate_from_bytes: Counter = "deflate_from_bytes", Counter::default();
    /// Bytes of compressed messages after compression, counted once for all recipients.
    deflate_to_bytes: Counter = "deflate_to_bytes", Counter::default();
    /// Open sockets of Phoenix Channels, by transport and version of the serializer.
    phoenix_sockets: Family<BySocket, Gauge> = "phoenix_sockets", Family::default();
    /// Requests for a socket of Phoenix Channels, by transport and outcome.
    phoenix_connects: Family<ByOutcome, Counter> = "phoenix_connects", Family::default();
    /// Joins of topics over Phoenix Channels, by result.
    phoenix_joins: Family<ByReason, Counter> = "phoenix_joins", Family::default();
    /// Seconds from an event of Phoenix Channels to its room's answer, by type and outcome.
    phoenix_event_seconds: Family<ByOutcome, Histogram, Seconds> = "phoenix_event_seconds", Family::new_with_constructor(Seconds);
    /// Bytes written to WebSockets.
    sent_bytes: Counter = "sent_bytes", Counter::default();
    /// Log lines of the process dropped because its output was not read in time.
    log_lines_dropped: Counter = "log_lines_dropped", LOG_LINES_DROPPED.clone();
    /// Messages, events and stored changes dropped, by reason.
    drops: Family<ByReason, Counter> = "drops", Family::default();
    /// WebSocket connections that ended, by reason.
    closes: Family<ByReason, Counter> = "closes", Family::default();
    /// Refused requests and upgrades, by reason.
    refusals: Family<ByReason, Counter> = "refusals", Family::default();
    /// Pauses in reading a connection because it sent too fast.
    throttled: Counter = "held_back", Counter::default();
    /// Rooms of a cluster that go on alone while the engine is away: their members were shown what is not stored.
    rooms_alone: Gauge = "rooms_alone", Gauge::default();
    /// Rooms ended by a panic.
    room_panics: Counter = "room_panics", Counter::default();
    /// Rooms of a cluster that panicked again after another node or start had taken them over, and whose meetings were ended.
    rooms_quarantined: Counter = "rooms_quarantined", Counter::default();
    /// Errors when accepting a TCP connection, by reason.
    accept_errors: Family<ByReason, Counter> = "accept_errors", Family::default();
    /// Failed TLS handshakes, by reason, including plain HTTP on the TLS port.
    tls_failures: Family<ByReason, Counter> = "tls_failures", Family::default();
    /// New certificates found, "used" or "unusable".
    tls_reloads: Family<ByReason, Counter> = "tls_reloads", Family::default();
    /// Expiry of the certificate in use, in seconds since 1970; 0 without TLS.
    tls_certificate_expires: Gauge = "tls_certificate_expires", Gauge::default();
    /// Orders of a certificate by ACME, "obtained" or "failed".
    acme_orders: Family<ByReason, Counter> = "acme_orders", Family::default();
    /// Seconds that the store takes for a batch of writes.
    store_write_seconds: Histogram = "store_write_seconds", Seconds.new_metric();
    /// Failed batches of writes of the store.
    store_failures: Counter = "store_failures", Counter::default();
    /// Changes waiting to be written to the store.
    store_pending: Gauge = "store_pending", Gauge::default();
    /// Ended jobs of the AI participant, by kind and outcome.
    ai_jobs: Family<ByOutcome, Counter> = "ai_jobs", Family::default();
    /// Ended answers of the assistant, by kind and outcome.
    assistant_jobs: Family<ByOutcome, Counter> = "assistant_jobs", Family::default();
    /// Seconds from a call of the media API to the head of its answer, by operation and status.
    call_seconds: Family<ByCall, Histogram, Seconds> = "call_seconds", Family::new_with_constructor(Seconds);
    /// Reports of users, by kind and outcome.
    reports: Family<ByOutcome, Counter> = "reports", Family::default();
    /// Bytes of memory reserved for reports' forms while they arrive.
    form_bytes: Gauge = "form_bytes", Gauge::default();
    /// Bytes of messages that have arrived in part.
    arriving_bytes: Gauge = "arriving_bytes", Gauge::default();
    /// Recorded events for programs outside, by type.
    events: Family<ByType, Counter> = "events", Family::default();
    /// Open streams of events.
    event_streams: Gauge = "event_streams", Gauge::default();
    /// Attempts to deliver a card or an event to its webhook, by outcome.
    deliveries: Family<ByReason, Counter> = "deliveries", Family::default();
    /// Cards and events waiting for delivery to their webhooks.
    deliveries_waiting: Gauge = "deliveries_waiting", Gauge::default();
    /// Cards and events given up after days of failed deliveries; /admin/reports and /admin/webhooks/dead list them.
    deliveries_dead: Gauge = "deliveries_dead", Gauge::default();
    /// Removed reports, by reason.
    reports_removed: Family<ByReason, Counter> = "reports_removed", Family::default();
    /// Seconds from a request for a durable object to its answer, by operation and outcome.
    durable_requests: Family<ByOutcome, Histogram, Seconds> = "durable_request_seconds", Family::new_with_constructor(Seconds);
    /// Requests for durable objects that are being answered.
    durable_requests_active: Gauge = "durable_requests_active", Gauge::default();
    /// Requests for durable objects that failed, by reason.
    durable_errors: Family<ByReason, Counter> = "durable_errors", Family::default();
    /// WebSockets of durable objects that are open; they count in satsuma_connections as well.
    durable_sockets: Gauge = "durable_sockets", Gauge::default();
    /// WebSockets of durable objects that were opened.
    durable_sockets_opened: Counter = "durable_sockets_opened", Counter::default();
    /// Updates that a newer one of the same key replaced before they were written to their socket.
    durable_conflated_updates: Counter = "durable_conflated_updates", Counter::default();
    /// Durable objects that are stored.
    durable_objects: Gauge = "durable_objects", Gauge::default();
    /// Keys of all durable objects.
    durable_keys: Gauge = "durable_keys", Gauge::default();
    /// Bytes of the keys and values of all durable objects.
    durable_bytes: Gauge = "durable_bytes", Gauge::default();
    /// Durable objects in memory.
    durable_loaded: Gauge = "durable_loaded", Gauge::default();
    /// Bytes of the durable objects in memory.
    durable_loaded_bytes: Gauge = "durable_loaded_bytes", Gauge::default();
    /// Durable objects that were dropped from memory by a panic.
    durable_panics: Counter = "durable_panics", Counter::default();
    /// Seconds of a call of a durable object's method, by the kind of its code and outcome.
    durable_calls: Family<ByOutcome, Histogram, Seconds> = "durable_call_seconds", Family::new_with_constructor(Seconds);
    /// Calls of durable objects' alarms, by outcome.
    durable_alarms: Family<ByReason, Counter> = "durable_alarms", Family::default();
    /// Seconds of a commit of durable objects, the disk's sync included.
    durable_commit_seconds: Histogram = "durable_commit_seconds", Seconds.new_metric();
    /// Objects in the commits of durable objects; divided by their number, the size of a group.
    durable_commit_objects: Counter = "durable_commit_objects", Counter::default();
    /// Commits of durable objects that failed.
    durable_commit_failures: Counter = "durable_commit_failures", Counter::default();
    /// Durable objects that this node of a cluster lost to another one, which had taken it for dead.
    durable_fenced: Counter = "durable_fenced", Counter::default();
    /// Changed files of the script of durable objects, "used" or "unusable".
    durable_script_reloads: Family<ByReason, Counter> = "durable_script_reloads", Family::default();
    /// True (1) while a node of several is connected to its engine.
    engine_connected: Gauge = "engine_connected", Gauge::default();
    /// Connections that were made to the engine.
    engine_connects: Counter = "engine_connects", Counter::default();
    /// Messages to other nodes that were not sent, and gaps in what came from them because this node was too slow.
    engine_messages_lost: Counter = "engine_messages_lost", Counter::default();
    /// Rooms that this node owns, as one of several.
    rooms_owned: Gauge = "rooms_owned", Gauge::default();
    /// Other nodes that are alive, as this one sees them.
    nodes_alive: Gauge = "nodes_alive", Gauge::default();
    /// Rooms that this node took over from another one, by its fate.
    takeovers: Family<ByReason, Counter> = "takeovers", Family::default();
    /// Rooms that this node lost to another one, which had taken it for dead.
    rooms_fenced: Counter = "rooms_fenced", Counter::default();
    /// Journals that were read as a whole: by a room that starts here, or one that missed an entry.
    journal_reads: Counter = "journal_reads", Counter::default();
    /// Appends to journals, by the engine's answer.
    journal_appends: Family<ByReason, Counter> = "journal_appends", Family::default();
    /// Seconds from an append to a journal until it was stored.
    journal_append_seconds: Histogram = "journal_append_seconds", Seconds.new_metric();
    /// Calls about media sessions of other nodes, passed on to these, by outcome.
    media_calls_passed_on: Family<ByReason, Counter> = "media_calls_passed_on", Family::default();
    /// Tracks of sessions of another node that were asked for, and refused because no media pass between nodes.
    media_pulls_across_nodes: Counter = "media_pulls_across_nodes", Counter::default();
    /// Seconds from an HTTP request to its answer's head, by route and status.
    http_seconds: Family<ByRoute, Histogram, Seconds> = "http_request_seconds", Family::new_with_constructor(Seconds);
}

impl Metrics {
    /// Formats the metrics as OpenMetrics text, for Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Formatting into a String cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// Increments the counter of `reason`.
    pub fn count(family: &Family<ByReason, Counter>, reason: &'static str) {
        family.get_or_create(&ByReason { reason }).inc();
    }
}

/// An amount counted in a gauge until it is dropped.
///
/// A panic or an aborted task drops it as well, so no gauge stays too high.
#[derive(Debug)]
pub struct Counted {
    gauge: Gauge<i64, AtomicI64>,
    amount: i64,
}

impl Counted {
    /// Adds `amount` to `gauge` until the value is dropped.
    pub fn new(gauge: &Gauge, amount: usize) -> Self {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        gauge.inc_by(amount);
        Self { gauge: gauge.clone(), amount }
    }

    /// The counted amount.
    pub fn count(&self) -> i64 {
        self.amount
    }

    /// Changes the counted amount.
    pub fn set(&mut self, amount: usize) {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        self.gauge.inc_by(amount - self.amount);
        self.amount = amount;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec_by(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_amount_is_removed_by_a_panic() {
        let metrics = Metrics::new();
        let mut members = Counted::new(&metrics.members, 2);
        members.set(5);
        assert_eq!(metrics.members.get(), 5);
        let moved = std::panic::AssertUnwindSafe(members);
        let _ = std::panic::catch_unwind(move || {
            let _members = moved;
            panic!("a room's end");
        });
        assert_eq!(metrics.members.get(), 0);
    }

    #[test]
    fn metrics_have_help_and_known_names() {
        let metrics = Metrics::new();
        Metrics::count(&metrics.closes, "idle");
        let text = metrics.render();
        assert!(text.contains("# HELP satsuma_connections Open WebSocket connections."), "{text}");
        let build = format!("satsuma_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "{text}");
        let shown = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let shown: Vec<&str> = shown.collect();
        assert!(shown.contains(&"process_cpu_seconds"), "{text}");
        let names = Metrics::names();
        let unknown: Vec<_> = shown.iter().filter(|shown| !names.iter().any(|name| name == *shown)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(text.contains("satsuma_closes_total{reason=\"idle\"} 1"), "{text}");
    }
}
