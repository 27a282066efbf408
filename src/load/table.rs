//! A report as people read it.

use std::fmt;

use super::bus::BusTraffic;
use super::protocol::Protocols;
use super::report::{BusUsage, Channels, Quantiles, RunReport};
use super::world::ChannelCounts;

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { urls, rooms, users, rate, churn, seconds, .. } = self;
        let urls = urls.join(", ");
        write!(f, "{urls}, {rooms} × {users} users, each {rate}/s")?;
        match self.protocol {
            Protocols::Orange => {}
            Protocols::Phoenix => f.write_str(", over Phoenix Channels")?,
            Protocols::Mixed => f.write_str(", half over Phoenix Channels")?,
        }
        if *churn > 0.0 {
            write!(f, ", churn {churn}/s")?;
        }
        writeln!(f, ", {seconds:.1} s")?;
        for (name, text) in self.lines() {
            writeln!(f, "  {name:<12} {text}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

impl RunReport {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("joins", self.joins_text())];
        let updates = &self.updates;
        lines.push((
            "updates",
            format!(
                "{} sent; of the {} by others than a room's watcher {} seen, {} overtaken by the next, {} not seen",
                updates.sent, updates.watched, updates.seen, updates.overtaken, updates.unseen
            ),
        ));
        lines.push(("latency", self.latency_ms.map_or("nothing was seen".to_owned(), quantiles)));
        lines.extend(self.latency_across_ms.map(|latency| ("across", quantiles(latency))));
        let received = &self.received;
        let snapshot =
            received.snapshot_bytes.map_or(String::new(), |size| format!("; a snapshot {}", bytes(size)));
        lines.push((
            "received",
            format!(
                "{} frames ({:.0}/s), {} ({}/s){snapshot}",
                received.frames,
                received.frames_per_second,
                bytes(received.bytes as f64),
                bytes(received.bytes_per_second)
            ),
        ));
        lines.extend(self.channels.as_ref().map(|channels| ("channels", channels_text(channels))));
        lines.push((
            "compression",
            match &self.compression.agreed {
                Some(agreed) => agreed.clone(),
                None if self.compression.offered => "offered, not agreed to".to_owned(),
                None => "not offered".to_owned(),
            },
        ));
        let refused = self
            .refusals
            .iter()
            .map(|(kind, refused)| format!("{} × {kind} ({})", refused.count, refused.says));
        lines.push(("refusals", or_none(refused.collect())));
        let closes = self.closes.iter().map(|(code, count)| format!("{count} × {code}"));
        let broken = self.broken.iter().map(|(why, count)| format!("{count} × {why}"));
        lines.push(("closes", or_none(closes.chain(broken).collect())));
        let leaves = &self.leaves;
        let mut left = format!("{} properly", leaves.properly);
        if leaves.unanswered > 0 {
            left += &format!(", {} without an answer", leaves.unanswered);
        }
        if leaves.dropped > 0 {
            left += &format!(", {} dropped their socket", leaves.dropped);
        }
        lines.push(("leaves", left));
        lines.extend(self.server.is_some().then(|| ("server", self.server_text())));
        lines.extend(self.bus.map(|bus| ("bus", bus_text(bus))));
        let tool = &self.tool;
        lines.push((
            "tool",
            format!(
                "{:.2} s of processor time ({:.1} % of a core); latest update {:.1} ms late",
                tool.cpu_seconds, tool.core_percent, tool.latest_update_ms
            ),
        ));
        lines
    }

    fn joins_text(&self) -> String {
        let joins = &self.joins;
        let mut text = format!("{} in {:.1} s", joins.made, joins.seconds);
        if let Some(latency) = joins.latency_ms {
            text += &format!("; to the first message {}", quantiles(latency));
        }
        text
    }

    fn server_text(&self) -> String {
        let Some(server) = &self.server else { return String::new() };
        let mut text =
            format!("{:.2} s of processor time ({:.1} % of a core)", server.cpu_seconds, server.core_percent);
        if let Some(micros) = server.cpu_micros_per_update {
            text += &format!(", {micros:.0} µs an update");
        }
        let [before, joined, after] =
            [server.resident_before_bytes, server.resident_joined_bytes, server.resident_after_bytes]
                .map(|resident| bytes(resident as f64));
        text += &format!("; memory {before} before, {joined} with everybody in, {after} after");
        if let Some(each) = server.bytes_per_connection {
            text += &format!(": {} a connection", bytes(each));
        }
        text
    }
}

fn bus_text(BusUsage { traffic, messages_per_update, bytes_per_update }: BusUsage) -> String {
    let BusTraffic { in_messages, in_bytes, out_messages, out_bytes } = traffic;
    let [in_bytes, out_bytes] = [in_bytes, out_bytes].map(|count| bytes(count as f64));
    let mut text = format!("{in_messages} messages in, {out_messages} out; {in_bytes} in, {out_bytes} out");
    if let Some((messages, size)) = messages_per_update.zip(bytes_per_update) {
        text += &format!("; for each update {messages:.1} messages, {}", bytes(size));
    }
    text
}

fn channels_text(channels: &Channels) -> String {
    let ChannelCounts { replies, refused, presence_states, presence_diffs, presence_bytes, .. } =
        &channels.counts;
    let presences = bytes(*presence_bytes as f64);
    let end = match channels.differing_rooms {
        0 => "the same as the last snapshot at the end".to_owned(),
        rooms => format!("another than the last snapshot at the end in {rooms} rooms"),
    };
    format!(
        "{replies} pushes accepted, {refused} refused; presence: {presence_states} states, {presence_diffs} diffs, {presences}, {end}"
    )
}

fn or_none(parts: Vec<String>) -> String {
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn quantiles(Quantiles { p50, p90, p99, max }: Quantiles) -> String {
    format!("p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
}

/// Bytes with a unit, in three digits or so.
fn bytes(count: f64) -> String {
    let (value, unit) = match count.abs() {
        size if size < 1e3 => return format!("{count:.0} B"),
        size if size < 1e6 => (count / 1e3, "kB"),
        size if size < 1e9 => (count / 1e6, "MB"),
        _ => (count / 1e9, "GB"),
    };
    format!("{value:.1} {unit}")
}
