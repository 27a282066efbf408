//! The results of a run, as figures.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::bus::BusTraffic;
use super::histogram::Histogram;
use super::options::Options;
use super::process::ProcessUsage;
use super::protocol::Protocols;
use super::target::LoadTarget;
use super::world::{ChannelCounts, RunCounts};

/// The share of a core from which on the tool itself may be what is measured.
const BUSY_PERCENT: f64 = 80.0;

/// The lateness of an update from which on the load was not spread as asked.
const LATE: Duration = Duration::from_millis(50);

/// Measurements beside the members' own counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Duration of joining.
    pub joining: Duration,
    /// Duration of the measurement.
    pub time: Duration,
    /// Sockets that were open when it began.
    pub sockets: u64,
    /// The server before anybody came, if it is to be looked at.
    pub before: Option<ProcessUsage>,
    /// The server while it was measured, if it could be looked at.
    pub server: Option<Used>,
    /// The messages of NATS servers while it was measured, if their monitoring could be read.
    pub bus: Option<BusTraffic>,
    /// The tool's own processor time while it was measured.
    pub own_cpu: Duration,
    /// Rooms whose presences were not the members of the last snapshot at the end.
    pub differing_rooms: u64,
}

/// The server's resource use during the measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Processor time.
    pub cpu: Duration,
    /// Resident memory when it began, with everybody in.
    pub joined_bytes: u64,
    /// Resident memory at the end.
    pub after_bytes: u64,
}

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// The servers.
    pub urls: Vec<String>,
    /// Rooms that were asked for.
    pub rooms: u32,
    /// Users that were asked for in each.
    pub users: u32,
    /// The users' protocols.
    pub protocol: Protocols,
    /// Updates a second that were asked for of each user.
    pub rate: f64,
    /// Users a second that were to be replaced.
    pub churn: f64,
    /// The negotiated compression.
    pub compression: CompressionStats,
    /// Duration of the measurement; 0 if it was stopped before.
    pub seconds: f64,
    /// True if the measurement lasted as long as requested.
    pub is_whole: bool,
    /// Figures on joins.
    pub joins: Joins,
    /// Figures on updates.
    pub updates: Updates,
    /// From an update to its sight by another member; none was seen if it is null.
    pub latency_ms: Option<Quantiles>,
    /// The same of updates whose sender and watcher are on different servers; null if there were none.
    pub latency_across_ms: Option<Quantiles>,
    /// Figures on received messages.
    pub received: ReceivedStats,
    /// Figures on Phoenix Channels; null if nobody spoke it.
    pub channels: Option<Channels>,
    /// Refused users, by the status of the answer or a word for the reason that there was none.
    pub refusals: BTreeMap<String, RefusedUsers>,
    /// Sockets that the server closed, by code; 1005 is no code and 1006 no close frame.
    pub closes: BTreeMap<u16, u64>,
    /// Connections that could not be read on, by what was wrong with them.
    pub broken: BTreeMap<String, u64>,
    /// Figures on departures.
    pub leaves: Leaves,
    /// The server's resource use; null without `--pid`, or if its process ended.
    pub server: Option<ServerUsage>,
    /// The messages of the NATS servers between nodes; null without `--nats`, or if their monitoring could not be read.
    pub bus: Option<BusUsage>,
    /// The tool's own resource use.
    pub tool: Tool,
    /// Warnings for readers of the figures.
    pub notes: Vec<String>,
}

/// The negotiated compression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompressionStats {
    /// True if it was offered.
    pub offered: bool,
    /// The server's answer; null if messages are uncompressed.
    pub agreed: Option<String>,
}

/// Figures on joins.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joins {
    /// Sockets that were opened, those of users who came in somebody's place included.
    pub made: u64,
    /// Refused users.
    pub refused: u64,
    /// Time until all users had joined.
    pub seconds: f64,
    /// From the connection to the first message.
    pub latency_ms: Option<Quantiles>,
}

/// Figures on updates.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Updates {
    /// All that were sent.
    pub sent: u64,
    /// Those of others than their room's watcher, which it should see.
    pub watched: u64,
    /// Those of them that it saw.
    pub seen: u64,
    /// Those that it did not see, because it saw the same member's next one.
    pub overtaken: u64,
    /// The rest.
    pub unseen: u64,
}

/// Milliseconds that shares of all values do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half of them.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// All.
    pub max: f64,
}

/// Figures on messages received during the measurement.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedStats {
    /// Messages.
    pub frames: u64,
    /// Bytes, of frames with their headers.
    pub bytes: u64,
    /// Messages a second.
    pub frames_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Bytes of one snapshot on the wire, on average; null if none came.
    pub snapshot_bytes: Option<f64>,
}

/// Figures on messages of Phoenix Channels during the measurement; compressed ones are those of watchers alone.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Channels {
    /// The counts.
    #[serde(flatten)]
    pub counts: ChannelCounts,
    /// Rooms whose presences were not the members of the last snapshot at the end, as their watcher saw both.
    pub differing_rooms: u64,
}

/// Refused users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedUsers {
    /// Number of users.
    pub count: u64,
    /// The answer to the first.
    pub says: String,
}

/// Figures on departures, during the run and at its end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Leaves {
    /// With `userLeft`, and the server closed their socket.
    pub properly: u64,
    /// With `userLeft`, and the server did nothing.
    pub unanswered: u64,
    /// By dropping their socket.
    pub dropped: u64,
}

/// The server's resource use.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerUsage {
    /// Processor time while it was measured.
    pub cpu_seconds: f64,
    /// The same as a share of one core.
    pub core_percent: f64,
    /// The same for each update; null if there were none.
    pub cpu_micros_per_update: Option<f64>,
    /// Resident memory before anybody came.
    pub resident_before_bytes: u64,
    /// Resident memory with everybody in, before it was measured.
    pub resident_joined_bytes: u64,
    /// Resident memory after it was measured.
    pub resident_after_bytes: u64,
    /// Memory added by each socket: the second less the first, divided by the sockets.
    pub bytes_per_connection: Option<f64>,
}

/// The messages of the NATS servers between nodes while it was measured: those of all load, pulses of nodes included.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BusUsage {
    /// The counts.
    #[serde(flatten)]
    pub traffic: BusTraffic,
    /// Messages in and out for each update; null if there were none.
    pub messages_per_update: Option<f64>,
    /// Bytes in and out for each update; null if there were none.
    pub bytes_per_update: Option<f64>,
}

/// The tool's own resource use.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Processor time while it was measured.
    pub cpu_seconds: f64,
    /// The same as a share of one core, of which it uses one.
    pub core_percent: f64,
    /// The longest time that an update was sent after it was due.
    pub latest_update_ms: f64,
}

/// The run was not what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Shortfall(String);

impl RunReport {
    /// Puts together what a run found.
    pub(crate) fn new(options: &Options, is_whole: bool, counts: RunCounts, measured: Measured) -> Self {
        let seconds = measured.time.as_secs_f64();
        let per_second = |amount: f64| if seconds > 0.0 { rounded(amount / seconds) } else { 0.0 };
        let (seen, overtaken) = (counts.sightings.latencies.total(), counts.sightings.overtaken);
        let mut report = Self {
            urls: options.urls.iter().map(LoadTarget::url).collect(),
            rooms: options.rooms,
            users: options.users,
            protocol: options.protocol,
            rate: options.rate,
            churn: options.churn,
            compression: CompressionStats { offered: options.deflate, agreed: counts.compression.clone() },
            seconds: rounded(seconds),
            is_whole,
            joins: Joins {
                made: counts.joined,
                refused: counts.refused(),
                seconds: rounded(measured.joining.as_secs_f64()),
                latency_ms: Quantiles::of(&counts.joins),
            },
            updates: Updates {
                sent: counts.sent,
                watched: counts.watched,
                seen,
                overtaken,
                unseen: counts.watched.saturating_sub(seen + overtaken),
            },
            latency_ms: Quantiles::of(&counts.sightings.latencies),
            latency_across_ms: Quantiles::of(&counts.sightings.across),
            received: ReceivedStats {
                frames: counts.frames,
                bytes: counts.bytes,
                frames_per_second: per_second(counts.frames as f64),
                bytes_per_second: per_second(counts.bytes as f64),
                snapshot_bytes: ratio(counts.sightings.snapshot_bytes as f64, counts.sightings.snapshots),
            },
            channels: (options.protocol != Protocols::Orange)
                .then_some(Channels { counts: counts.channels, differing_rooms: measured.differing_rooms }),
            leaves: Leaves { properly: counts.left, unanswered: counts.unanswered, dropped: counts.dropped },
            server: measured.before.zip(measured.server).map(|(before, used)| ServerUsage {
                cpu_seconds: rounded(used.cpu.as_secs_f64()),
                core_percent: per_second(100.0 * used.cpu.as_secs_f64()),
                cpu_micros_per_update: ratio(used.cpu.as_secs_f64() * 1e6, counts.sent),
                resident_before_bytes: before.resident_bytes,
                resident_joined_bytes: used.joined_bytes,
                resident_after_bytes: used.after_bytes,
                bytes_per_connection: ratio(
                    used.joined_bytes as f64 - before.resident_bytes as f64,
                    measured.sockets,
                ),
            }),
            bus: measured.bus.map(|traffic| BusUsage {
                traffic,
                messages_per_update: ratio((traffic.in_messages + traffic.out_messages) as f64, counts.sent),
                bytes_per_update: ratio((traffic.in_bytes + traffic.out_bytes) as f64, counts.sent),
            }),
            tool: Tool {
                cpu_seconds: rounded(measured.own_cpu.as_secs_f64()),
                core_percent: per_second(100.0 * measured.own_cpu.as_secs_f64()),
                latest_update_ms: rounded(counts.latest.as_secs_f64() * 1000.0),
            },
            refusals: counts
                .refusals
                .into_iter()
                .map(|(kind, (count, says))| (kind, RefusedUsers { count, says }))
                .collect(),
            closes: counts.closes,
            broken: counts.broken,
            notes: Vec::new(),
        };
        report.notes = report.remarks(options, counts.latest);
        report
    }

    /// Checks that all users joined, and none was disconnected.
    ///
    /// # Errors
    /// [`Shortfall`] says what was otherwise.
    pub fn verdict(&self) -> Result<(), Shortfall> {
        let mut faults = Vec::new();
        if self.joins.refused > 0 {
            let kinds = self
                .refusals
                .iter()
                .map(|(kind, RefusedUsers { count, says })| format!("{count} × {kind} ({says})"));
            faults.push(format!(
                "{} not let in: {}",
                self.joins.refused,
                kinds.collect::<Vec<_>>().join(", ")
            ));
        }
        let closed: u64 = self.closes.values().sum();
        if closed > 0 {
            let codes = self.closes.iter().map(|(code, count)| format!("{count} × {code}"));
            faults.push(format!("{closed} closed by the server: {}", codes.collect::<Vec<_>>().join(", ")));
        }
        if let Some(Channels { counts: ChannelCounts { refused, first_refusal, .. }, differing_rooms }) =
            &self.channels
        {
            if let Some(first) = first_refusal {
                faults.push(format!("{refused} pushes refused: {first}"));
            }
            if *differing_rooms > 0 {
                faults.push(format!("presences and snapshots differ in {differing_rooms} rooms"));
            }
        }
        faults.extend(self.broken.iter().map(|(why, count)| format!("{count} broken: {why}")));
        if faults.is_empty() { Ok(()) } else { Err(Shortfall(faults.join("; "))) }
    }

    fn remarks(&self, options: &Options, latest: Duration) -> Vec<String> {
        let mut notes = Vec::new();
        if self.seconds == 0.0 {
            notes.push("stopped before the measurement began".to_owned());
        } else if !self.is_whole {
            notes.push("stopped early".to_owned());
        }
        if self.compression.offered && self.compression.agreed.is_none() {
            notes.push(
                "compression was offered, and the server answered none: messages went uncompressed"
                    .to_owned(),
            );
        }
        if self.tool.core_percent > BUSY_PERCENT {
            notes.push("the tool's own core was nearly full: it may be what was measured".to_owned());
        }
        if latest > LATE {
            notes.push(
                "the tool fell behind its schedule: the load was not spread as evenly as asked".to_owned(),
            );
        }
        if self.users == 1 && options.rate > 0.0 {
            notes.push("nobody sees anybody else's updates in rooms of one user".to_owned());
        }
        if !options.pids.is_empty() && self.server.is_none() && self.seconds > 0.0 {
            notes.push("the server's process ended while it was measured".to_owned());
        }
        if !options.nats.is_empty() && self.bus.is_none() && self.seconds > 0.0 {
            notes.push("the monitoring of NATS did not answer at the end of the measurement".to_owned());
        }
        notes
    }
}

impl Quantiles {
    /// Those of a histogram of microseconds; `None` if it is empty.
    pub(crate) fn of(times: &Histogram) -> Option<Self> {
        let millis = |micros: u64| micros as f64 / 1000.0;
        Some(Self {
            p50: millis(times.quantile(0.5)?),
            p90: millis(times.quantile(0.9)?),
            p99: millis(times.quantile(0.99)?),
            max: millis(times.most()?),
        })
    }
}

/// The share of each part; `None` if there are none.
fn ratio(whole: f64, parts: u64) -> Option<f64> {
    (parts > 0).then(|| rounded(whole / parts as f64))
}

/// To three places: more would only pretend to be measured.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Refusal;

    fn options() -> Options {
        Options {
            urls: vec!["http://127.0.0.1:8787".parse().unwrap()],
            rooms: 2,
            users: 3,
            rate: 1.0,
            protocol: Protocols::Orange,
            deflate: true,
            churn: 0.0,
            duration: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            join_rate: 500.0,
            pids: vec![7],
            nats: Vec::new(),
            json: false,
        }
    }

    fn counts() -> RunCounts {
        let mut counts =
            RunCounts { joined: 6, sent: 60, watched: 40, frames: 90, bytes: 9000, ..RunCounts::default() };
        (1..=36).for_each(|millis| counts.sightings.latencies.record(millis * 1000));
        counts.sightings.overtaken = 3;
        (counts.sightings.snapshots, counts.sightings.snapshot_bytes) = (30, 3001);
        counts.latest = Duration::from_micros(1500);
        counts
    }

    fn measured() -> Measured {
        let cpu = Duration::from_millis(300);
        Measured {
            time: Duration::from_secs(10),
            sockets: 6,
            before: Some(ProcessUsage { cpu, resident_bytes: 10_000 }),
            server: Some(Used { cpu: Duration::from_millis(600), joined_bytes: 16_000, after_bytes: 17_000 }),
            own_cpu: Duration::from_millis(100),
            ..Measured::default()
        }
    }

    #[test]
    fn figures_add_up() {
        let report = RunReport::new(&options(), true, counts(), measured());
        let Updates { watched, seen, overtaken, unseen, .. } = report.updates;
        assert_eq!((seen, overtaken, unseen), (36, 3, 1));
        assert_eq!(seen + overtaken + unseen, watched);
        assert_eq!(report.latency_ms.map(|latency| latency.max), Some(36.0));
        assert_eq!((report.received.frames_per_second, report.received.snapshot_bytes), (9.0, Some(100.033)));
        let server = report.server.unwrap();
        assert_eq!((server.core_percent, server.cpu_micros_per_update), (6.0, Some(10_000.0)));
        assert_eq!(server.bytes_per_connection, Some(1000.0));
        assert_eq!((report.tool.core_percent, report.tool.latest_update_ms), (1.0, 1.5));
        assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
        assert!(report.notes[0].contains("uncompressed"));
        assert_eq!(report.verdict(), Ok(()));
        let text = report.to_string();
        assert!(report.latency_across_ms.is_none() && !text.contains("across"), "{text}");
        for part in [
            "2 × 3 users",
            "36 seen, 3 overtaken",
            "p50 18.2 ms",
            "10000 µs an update",
            "1.0 kB a connection",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn figures_of_several_servers_are_shown() {
        let mut counts = counts();
        counts.sightings.across.record(9000);
        let bus = BusTraffic { in_messages: 60, in_bytes: 6000, out_messages: 120, out_bytes: 18_000 };
        let mut options = options();
        options.urls.push("http://127.0.0.1:8788".parse().unwrap());
        let report = RunReport::new(&options, true, counts, Measured { bus: Some(bus), ..measured() });
        let text = report.to_string();
        for part in [
            "http://127.0.0.1:8787, http://127.0.0.1:8788, 2 × 3",
            "across       p50 9.0 ms",
            "60 messages in, 120 out; 6.0 kB in, 18.0 kB out; for each update 3.0 messages, 400 B",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["urls"][1], &json["bus"]["outBytes"]),
            (&"http://127.0.0.1:8788".into(), &18_000.into())
        );
        assert_eq!(json["latencyAcrossMs"]["max"], 9.0);
    }

    #[test]
    fn failures_are_reported() {
        let mut counts = counts();
        for _ in 0..2 {
            counts.refuse(Refusal { kind: "503".into(), says: "the room is full".into() });
        }
        counts.closes.insert(1013, 4);
        counts.broken.insert("a frame is masked".into(), 1);
        let report = RunReport::new(&options(), true, counts, measured());
        assert_eq!(
            report.verdict().unwrap_err().to_string(),
            "2 not let in: 2 × 503 (the room is full); 4 closed by the server: 4 × 1013; 1 broken: a frame is masked"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["refusals"]["503"]["count"], 2);
        assert_eq!(json["closes"]["1013"], 4);
    }

    #[test]
    fn unmeasured_run_has_no_figures_and_warns() {
        let measured = Measured { time: Duration::ZERO, server: None, ..measured() };
        let report =
            RunReport::new(&options(), false, RunCounts { joined: 1, ..RunCounts::default() }, measured);
        assert!(report.latency_ms.is_none() && report.server.is_none());
        assert!(report.notes[0].contains("before the measurement"), "{:?}", report.notes);
        assert!(!report.to_string().contains("NaN"));
        let early = RunReport::new(&options(), false, counts(), self::measured());
        assert!(early.notes.contains(&"stopped early".to_owned()));
    }

    #[test]
    fn bottlenecked_tool_warns() {
        let mut counts = counts();
        counts.latest = Duration::from_millis(51);
        let measured = Measured { own_cpu: Duration::from_secs(9), ..measured() };
        let notes = RunReport::new(&options(), true, counts, measured).notes.join("\n");
        assert!(notes.contains("nearly full") && notes.contains("fell behind"), "{notes}");
    }
}
