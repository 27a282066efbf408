//! The list of meetings over all nodes: each has those of the rooms that it owned.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout_at;

use super::engine::Engine;
use super::node::Cluster;
use super::requests::Asked;
use crate::clock::now;
use crate::store::reports::{Cursor, MeetingLine, Reports, ReportsError};

/// Time in which a node has to list its meetings.
const PATIENCE: Duration = Duration::from_secs(2);

/// Meetings that a node lists at a time at most, whoever asks.
const MOST: u32 = 1000;

/// The meetings of all nodes.
pub trait MeetingLists: Send + Sync {
    /// Gives requests of other nodes the meetings of this one.
    fn serve(&self, reports: Reports);

    /// At most `most` meetings, newest first, from a position on.
    fn meetings(
        &self,
        from: Option<Cursor>,
        most: u32,
    ) -> BoxFuture<'static, Result<MeetingListing, ReportsError>>;
}

/// A part of the list.
#[derive(Clone, Debug, Default)]
pub struct MeetingListing {
    /// The meetings, newest first.
    pub meetings: Vec<MeetingLine>,
    /// The nodes that did not answer.
    pub silent: Vec<String>,
}

impl<E: Engine> MeetingLists for Cluster<E> {
    fn serve(&self, reports: Reports) {
        // A node has one database of them.
        let _ = self.requests().reports.set(reports);
    }

    fn meetings(
        &self,
        from: Option<Cursor>,
        most: u32,
    ) -> BoxFuture<'static, Result<MeetingListing, ReportsError>> {
        let cluster = self.clone();
        async move { cluster.all_meetings(from, most).await }.boxed()
    }
}

impl<E: Engine> Cluster<E> {
    async fn all_meetings(&self, from: Option<Cursor>, most: u32) -> Result<MeetingListing, ReportsError> {
        let until = now() + PATIENCE;
        let others: Vec<_> =
            self.nodes().into_iter().filter(|node| node.is_alive && node.is_member).collect();
        let message = Asked::Meetings { from: from.clone(), most }.encode();
        let asked = others.iter().map(|other| async {
            let node = other.pulse.heartbeat.node;
            let listed = timeout_at(until, self.request(node, message.clone(), until)).await.ok()?.ok()?;
            serde_json::from_slice::<Option<Vec<MeetingLine>>>(&listed).ok()?
        });
        let own = async {
            match self.requests().reports.get() {
                Some(reports) => reports.meetings(from.as_ref(), most).await,
                None => Ok(Vec::new()),
            }
        };
        let (own, listed) = tokio::join!(own, join_all(asked));
        let mut parts = vec![own?];
        let mut silent = Vec::new();
        for (other, listed) in others.iter().zip(listed) {
            match listed {
                Some(part) => parts.push(part),
                None => silent.push(format!("{} ({})", other.pulse.name, other.pulse.heartbeat.node)),
            }
        }
        Ok(MeetingListing { meetings: merge(parts, most), silent })
    }

    /// The meetings of this node, for another one; none if they cannot be read.
    pub(super) async fn own_meetings(&self, from: Option<Cursor>, most: u32) -> Option<Vec<MeetingLine>> {
        let reports = self.requests().reports.get()?;
        let read = reports.meetings(from.as_ref(), most.min(MOST)).await;
        read.inspect_err(|error| tracing::warn!(event = "meetingsNotRead", %error)).ok()
    }
}

/// The first of the meetings of several nodes. One whose room moved is in the lists of all its owners: its number of members
/// is the largest, and it has ended if one of them ended it.
fn merge(parts: Vec<Vec<MeetingLine>>, most: u32) -> Vec<MeetingLine> {
    let mut all: BTreeMap<String, MeetingLine> = BTreeMap::new();
    for line in parts.into_iter().flatten() {
        let known = all.entry(line.id.clone()).or_insert_with(|| line.clone());
        known.peak_members = known.peak_members.max(line.peak_members);
        known.ended = known.ended.take().max(line.ended);
        // The id tells it, so it is the same but for meetings of before there were several nodes.
        known.created = std::mem::take(&mut known.created).min(line.created);
    }
    let mut merged: Vec<MeetingLine> = all.into_values().collect();
    merged.sort_by(|one, other| (&other.created, &other.id).cmp(&(&one.created, &one.id)));
    merged.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meeting_of_several_owners_is_listed_once() {
        let line = |id: &str, created: &str, ended: Option<&str>, peak_members| MeetingLine {
            id: id.to_owned(),
            created: created.to_owned(),
            ended: ended.map(str::to_owned),
            peak_members,
        };
        let first = vec![line("c", "2026-03", None, 2), line("b", "2026-02", None, 9)];
        let second = vec![line("b", "2026-02", Some("2026-04"), 3), line("a", "2026-02", None, 1)];
        let merged = vec![
            line("c", "2026-03", None, 2),
            line("b", "2026-02", Some("2026-04"), 9),
            line("a", "2026-02", None, 1),
        ];
        assert_eq!(merge(vec![first.clone(), second.clone()], 3), merged);
        assert_eq!(merge(vec![second, first], 2), merged[..2]);
    }
}
