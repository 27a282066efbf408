//! Alarms of objects that several nodes share, each handled by the owner of its object, at least once.
//!
//! An object with an alarm has an entry in the engine that names the node which looks after it, written before the alarm
//! is. That node knows the time; when it is gone, another one finds the entry, and reads the time from the object's
//! journal.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use super::{ObjectCluster, entry};
use crate::clock::{now, wall_clock};
use crate::durable::registry::ObjectRegistry;
use crate::id::{NodeId, ObjectId};
use crate::nodes::engine::{Subject, SubjectKind};
use crate::store::objects::ObjectRow;

/// Handlers that run at a time.
const PARALLEL: usize = 32;

/// Maximum sleep: the wall clock, by which alarms are due, may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Pause before an alarm is rung again that may still be due, since nobody answered for it.
const RETRY: Duration = Duration::from_secs(1);

/// Entries that are read at a time.
const READS: usize = 64;

/// Interval at which the entries of all alarms are looked through, besides each time that a node is gone.
const SEARCHED_EVERY: Duration = Duration::from_secs(600);

/// Pause before a search that failed is made again.
const SEARCH_RETRY: Duration = Duration::from_secs(1);

/// The times of the alarms that this node looks after, in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Alarms {
    times: Mutex<Times>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Times {
    by_object: HashMap<ObjectId, u64>,
    by_time: BTreeMap<u64, HashSet<ObjectId>>,
}

impl Times {
    fn set(&mut self, id: &ObjectId, due: Option<u64>) {
        let before = match due {
            Some(due) => self.by_object.insert(id.clone(), due),
            None => self.by_object.remove(id),
        };
        if let Some(before) = before
            && let Some(ids) = self.by_time.get_mut(&before)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.by_time.remove(&before);
            }
        }
        if let Some(due) = due {
            self.by_time.entry(due).or_default().insert(id.clone());
        }
    }
}

impl Alarms {
    /// Sets the time of an object's alarm, or forgets it.
    pub fn set(&self, id: &ObjectId, due: Option<u64>) {
        self.times().set(id, due);
        self.changed.notify_one();
    }

    /// Forgets an alarm, unless it was set to another time.
    fn done(&self, id: &ObjectId, due: u64) {
        let mut times = self.times();
        if times.by_object.get(id) == Some(&due) {
            times.set(id, None);
        }
    }

    /// The earliest alarms.
    fn next(&self, most: usize) -> Vec<(u64, ObjectId)> {
        let times = self.times();
        let all = times.by_time.iter().flat_map(|(due, ids)| ids.iter().map(|id| (*due, id.clone())));
        all.take(most).collect()
    }

    fn knows(&self, id: &ObjectId) -> bool {
        self.times().by_object.contains_key(id)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of an object with an alarm.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AlarmEntry {
    object: String,
    by: NodeId,
}

/// Encodes the entry by which a node looks after an alarm.
#[expect(clippy::expect_used, reason = "an entry is plain data")]
pub(super) fn encode(id: &ObjectId, by: NodeId) -> Bytes {
    let entry = AlarmEntry { object: id.as_str().to_owned(), by };
    serde_json::to_vec(&entry).expect("an entry is plain data").into()
}

fn decode(bytes: &[u8]) -> Option<(ObjectId, NodeId)> {
    let AlarmEntry { object, by } = serde_json::from_slice(bytes).ok()?;
    Some((ObjectId::parse(&object).ok()?, by))
}

/// Calls the handlers of alarms that this node looks after, until the objects stop.
pub async fn ring(registry: ObjectRegistry, cluster: &ObjectCluster) {
    let mut ringing = FuturesUnordered::new();
    let mut under_way: HashSet<ObjectId> = HashSet::new();
    let mut paused: HashMap<ObjectId, Instant> = HashMap::new();
    loop {
        paused.retain(|_, since| since.elapsed() < RETRY);
        let mut wait = LONGEST_SLEEP;
        for (due, id) in cluster.alarms.next(4 * PARALLEL) {
            let left = Duration::from_millis(due).saturating_sub(since_1970());
            if under_way.contains(&id) {
                continue;
            }
            if paused.contains_key(&id) {
                wait = wait.min(RETRY);
                continue;
            }
            if !left.is_zero() {
                wait = wait.min(left);
                break;
            }
            if under_way.len() >= PARALLEL {
                break;
            }
            under_way.insert(id.clone());
            let registry = registry.clone();
            ringing.push(async move { (registry.ring_anywhere(&id, due).await, id, due) });
        }
        tokio::select! {
            () = registry.stopping().cancelled() => break,
            Some((is_rung, id, due)) = ringing.next() => {
                under_way.remove(&id);
                if is_rung {
                    cluster.alarms.done(&id, due);
                } else {
                    paused.insert(id, now());
                }
            }
            () = cluster.alarms.changed.notified() => {}
            () = sleep(wait) => {}
        }
    }
    while ringing.next().await.is_some() {}
}

/// Looks for alarms whose node is gone: at the start, each time that one goes, and now and then. Without an end.
pub async fn search(cluster: &ObjectCluster) {
    let mut changes = cluster.nodes.changes();
    loop {
        changes.mark_unchanged();
        let pause = match adopt(cluster).await {
            Some(0) => SEARCHED_EVERY,
            Some(adopted) => {
                info!(
                    event = "alarmsAdopted",
                    alarms = adopted,
                    "alarms of nodes that are gone are looked after"
                );
                SEARCHED_EVERY
            }
            None => SEARCH_RETRY,
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

/// Takes the alarms whose node is gone and that belong on this one; returns their number, and none if the engine did not
/// answer.
async fn adopt(cluster: &ObjectCluster) -> Option<usize> {
    let subjects = cluster.nodes.subjects(SubjectKind::Alarm).await.ok()?;
    let mut reads = stream::iter(subjects).map(|subject| adopt_one(cluster, subject)).buffer_unordered(READS);
    let (mut adopted, mut is_complete) = (0, true);
    while let Some(read) = reads.next().await {
        match read {
            Some(is_adopted) => adopted += usize::from(is_adopted),
            None => is_complete = false,
        }
    }
    is_complete.then_some(adopted)
}

async fn adopt_one(cluster: &ObjectCluster, subject: Subject) -> Option<bool> {
    let Some(last) = cluster.nodes.last(subject).await.ok()? else { return Some(false) };
    let Some((id, by)) = decode(&last.bytes) else {
        error!(event = "unreadableAlarm", sequence = last.sequence);
        return Some(false);
    };
    let own = cluster.nodes.own();
    if by == own || cluster.alarms.knows(&id) || !cluster.nodes.is_gone(by).await {
        return Some(false);
    }
    if cluster.nodes.preferred(&id) != own {
        return Some(false);
    }
    let Some(last) = cluster.nodes.last(Subject::object(&id)).await.ok()? else { return Some(false) };
    let Ok((header, _)) = entry::decode(&id, &last.bytes) else { return Some(false) };
    let Some(alarm) = ObjectRow::from(header.row).alarm else { return Some(false) };
    cluster.alarms.set(&id, Some(alarm.due));
    Some(true)
}

fn since_1970() -> Duration {
    wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ObjectId {
        ObjectId::parse(text).unwrap()
    }

    #[test]
    fn alarms_are_in_order_of_their_times() {
        let alarms = Alarms::default();
        alarms.set(&id("b"), Some(7));
        alarms.set(&id("a"), Some(9));
        alarms.set(&id("a"), Some(3));
        assert_eq!(alarms.next(9), [(3, id("a")), (7, id("b"))]);
        alarms.done(&id("a"), 9);
        assert_eq!(alarms.next(1), [(3, id("a"))], "it was set to another time");
        alarms.done(&id("a"), 3);
        alarms.set(&id("b"), None);
        alarms.set(&id("b"), None);
        assert!(alarms.next(9).is_empty() && !alarms.knows(&id("a")));
        assert!(alarms.times().by_time.is_empty());
    }

    /// Nodes of the next release have to read it.
    #[test]
    fn recorded_entry_is_read_and_written() {
        let recorded = br#"{"object":"o","by":7}"#;
        assert_eq!(encode(&id("o"), NodeId::new(7)), &recorded[..]);
        assert_eq!(decode(recorded), Some((id("o"), NodeId::new(7))));
        assert_eq!(decode(b"{}"), None);
    }
}
