//! An engine in memory, for several nodes in one process: it stores exactly, and loses what a test tells it to lose.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use satsuma::id::NodeId;
use satsuma::nodes::engine::{
    Engine, EngineEvent, EngineServer, Followed, Following, NoAnswer, ReplyAddress, RequestFailure, Stored,
    StoredEntry, Subject, SubjectKind,
};
use satsuma_cluster::writer::Appended;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Events that wait for a node, and entries and broadcasts that wait for a follower. What comes on top is lost.
const QUEUED: usize = 1024;

/// The engine itself.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Shared>>);

/// The engine, as a node sees it.
#[derive(Clone)]
pub struct MemoryEngine {
    network: MemoryNetwork,
    node: NodeId,
}

#[derive(Default)]
struct Shared {
    journals: BTreeMap<Subject, Vec<StoredEntry>>,
    sequence: u64,
    nodes: HashMap<NodeId, mpsc::Sender<EngineEvent>>,
    followers: Vec<(Subject, NodeId, mpsc::Sender<Followed>)>,
    replies: HashMap<String, (NodeId, oneshot::Sender<Bytes>)>,
    requests: u64,
    cut_off: HashSet<NodeId>,
    is_silent: bool,
    /// The node that is cut off once its next entry is stored.
    cut_off_next: Option<NodeId>,
    lost_answers: usize,
    lost_entries: usize,
    lost_broadcasts: usize,
    /// Entries to be stored before the engine falls silent, and those who wait for that.
    silent_after: Option<(usize, oneshot::Sender<()>)>,
}

impl MemoryNetwork {
    /// A node, and what happens to it. Once the events are dropped nobody listens at its address.
    pub fn node(&self, node: NodeId) -> (MemoryEngine, mpsc::Receiver<EngineEvent>) {
        let (sender, events) = mpsc::channel(QUEUED);
        sender.try_send(EngineEvent::Connected).unwrap();
        self.shared().nodes.insert(node, sender);
        (MemoryEngine { network: self.clone(), node }, events)
    }

    /// True if somebody listens at a node's address.
    pub fn listens(&self, node: NodeId) -> bool {
        self.shared().nodes.get(&node).is_some_and(|events| !events.is_closed())
    }

    /// Stores and answers nothing, or does again. Messages pass.
    pub fn be_silent(&self, is_silent: bool) {
        self.shared().is_silent = is_silent;
    }

    /// Stores a number of entries, and then falls silent, which the result tells.
    pub fn be_silent_after(&self, entries: usize) -> oneshot::Receiver<()> {
        let (sender, silent) = oneshot::channel();
        self.shared().silent_after = Some((entries, sender));
        silent
    }

    /// Cuts a node off from the engine and from all others, or ends that.
    pub fn cut_off(&self, node: NodeId, is_cut_off: bool) {
        let mut shared = self.shared();
        let (changed, event) = match is_cut_off {
            true => (shared.cut_off.insert(node), EngineEvent::Disconnected),
            false => (shared.cut_off.remove(&node), EngineEvent::Connected),
        };
        if changed && let Some(events) = shared.nodes.get(&node) {
            let _ = events.try_send(event);
        }
    }

    /// Cuts a node off as soon as its next entry is stored, of which it is not told any more.
    pub fn cut_off_after_entry(&self, node: NodeId) {
        self.shared().cut_off_next = Some(node);
    }

    /// Stores the next entries without telling their writers.
    pub fn lose_answers(&self, number: usize) {
        self.shared().lost_answers = number;
    }

    /// Stores the next entries without telling those who follow their subjects.
    pub fn lose_entries(&self, number: usize) {
        self.shared().lost_entries = number;
    }

    /// Loses the next broadcasts about settings and events.
    pub fn lose_broadcasts(&self, number: usize) {
        self.shared().lost_broadcasts = number;
    }

    /// Forgets the last entries of a journal, as after a power failure. Their numbers are given again.
    pub fn forget_last(&self, subject: Subject, entries: usize) {
        let mut shared = self.shared();
        let journal = shared.journals.entry(subject).or_default();
        journal.truncate(journal.len().saturating_sub(entries));
        shared.sequence = shared.journals.values().flatten().map(|entry| entry.sequence).max().unwrap_or(0);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap()
    }
}

impl Shared {
    fn answers(&self, node: NodeId) -> Result<(), NoAnswer> {
        if self.is_silent || self.cut_off.contains(&node) { Err(NoAnswer) } else { Ok(()) }
    }

    fn append(&mut self, node: NodeId, subject: Subject, expected: u64, bytes: Bytes) -> Appended {
        if self.answers(node).is_err() {
            return Appended::Unknown;
        }
        if let Some((_, silent)) = self.silent_after.take_if(|(entries, _)| *entries == 0) {
            self.is_silent = true;
            let _ = silent.send(());
            return Appended::Unknown;
        }
        let journal = self.journals.entry(subject).or_default();
        if journal.last().map_or(0, |last| last.sequence) != expected {
            return Appended::Refused;
        }
        if let Some((entries, _)) = &mut self.silent_after {
            *entries -= 1;
        }
        self.sequence += 1;
        let stored = StoredEntry { sequence: self.sequence, expected, bytes };
        journal.push(stored.clone());
        if self.lost_entries > 0 {
            self.lost_entries -= 1;
        } else {
            self.publish(subject, &Followed::Stored(stored));
        }
        if self.cut_off_next.take_if(|next| *next == node).is_some() {
            self.cut_off.insert(node);
            return Appended::Unknown;
        }
        if self.lost_answers > 0 {
            self.lost_answers -= 1;
            return Appended::Unknown;
        }
        Appended::Stored(self.sequence)
    }

    fn publish(&mut self, subject: Subject, news: &Followed) {
        self.followers.retain(|(_, _, follower)| !follower.is_closed());
        for (followed, node, follower) in &self.followers {
            if *followed == subject && !self.cut_off.contains(node) {
                let _ = follower.try_send(news.clone());
            }
        }
    }

    fn tell(&mut self, to: NodeId, event: EngineEvent) -> Result<(), RequestFailure> {
        let Some(events) = self.nodes.get(&to).filter(|events| !events.is_closed()) else {
            return Err(RequestFailure::NobodyListens);
        };
        if !self.cut_off.contains(&to) {
            let _ = events.try_send(event);
        }
        Ok(())
    }
}

impl Engine for MemoryEngine {
    type Following = MemoryFollowing;

    async fn append(&self, subject: Subject, expected: u64, entry: Bytes) -> Appended {
        self.network.shared().append(self.node, subject, expected, entry)
    }

    async fn last(&self, subject: Subject) -> Result<Option<StoredEntry>, NoAnswer> {
        Ok(self.all(subject).await?.pop())
    }

    async fn all(&self, subject: Subject) -> Result<Vec<StoredEntry>, NoAnswer> {
        let shared = self.network.shared();
        shared.answers(self.node)?;
        Ok(shared.journals.get(&subject).cloned().unwrap_or_default())
    }

    async fn purge(&self, subject: Subject, below: u64) {
        let mut shared = self.network.shared();
        if shared.answers(self.node).is_ok()
            && let Some(journal) = shared.journals.get_mut(&subject)
        {
            journal.retain(|entry| entry.sequence >= below);
        }
    }

    async fn subjects(&self, kind: SubjectKind) -> Result<Vec<Subject>, NoAnswer> {
        let shared = self.network.shared();
        shared.answers(self.node)?;
        let known =
            shared.journals.iter().filter(|(subject, entries)| subject.kind() == kind && !entries.is_empty());
        Ok(known.map(|(subject, _)| *subject).collect())
    }

    async fn stored(&self, kind: SubjectKind) -> Result<Stored, NoAnswer> {
        let shared = self.network.shared();
        shared.answers(self.node)?;
        let journals = shared.journals.iter().filter(|(subject, _)| subject.kind() == kind);
        let journals = journals.map(|(_, entries)| entries).filter(|entries| !entries.is_empty());
        let bytes =
            |entries: &Vec<StoredEntry>| entries.iter().map(|entry| entry.bytes.len() as u64).sum::<u64>();
        Ok(journals.fold(Stored::default(), |stored, entries| Stored {
            subjects: stored.subjects + 1,
            bytes: stored.bytes + bytes(entries),
        }))
    }

    async fn send(&self, to: NodeId, message: Bytes) {
        let mut shared = self.network.shared();
        if !shared.cut_off.contains(&self.node) {
            let _ = shared.tell(to, EngineEvent::Message { from: self.node, message, reply: None });
        }
    }

    async fn request(&self, to: NodeId, message: Bytes, most: Duration) -> Result<Bytes, RequestFailure> {
        let (sender, answer) = oneshot::channel();
        {
            let mut shared = self.network.shared();
            if shared.cut_off.contains(&self.node) {
                return Err(RequestFailure::NoAnswer);
            }
            shared.requests += 1;
            let reply = shared.requests.to_string();
            let event = EngineEvent::Message {
                from: self.node,
                message,
                reply: Some(ReplyAddress::new(reply.clone())),
            };
            shared.replies.insert(reply, (self.node, sender));
            shared.tell(to, event)?;
        }
        timeout(most, answer).await.ok().and_then(Result::ok).ok_or(RequestFailure::NoAnswer)
    }

    async fn reply(&self, to: ReplyAddress, message: Bytes) {
        let mut shared = self.network.shared();
        let Some((asker, sender)) = shared.replies.remove(to.as_str()) else { return };
        if !shared.cut_off.contains(&self.node) && !shared.cut_off.contains(&asker) {
            let _ = sender.send(message);
        }
    }

    async fn send_to_all(&self, message: Bytes) {
        let mut shared = self.network.shared();
        if shared.cut_off.contains(&self.node) {
            return;
        }
        let nodes: Vec<_> = shared.nodes.keys().copied().collect();
        for node in nodes {
            let _ = shared.tell(node, EngineEvent::ToAll(message.clone()));
        }
    }

    async fn broadcast(&self, subject: Subject, message: Bytes) {
        let mut shared = self.network.shared();
        if subject.kind() == SubjectKind::Setting && shared.lost_broadcasts > 0 {
            shared.lost_broadcasts -= 1;
        } else if !shared.cut_off.contains(&self.node) {
            shared.publish(subject, &Followed::Broadcast(message));
        }
    }

    async fn follow(&self, subject: Subject) -> Result<MemoryFollowing, NoAnswer> {
        let (sender, news) = mpsc::channel(QUEUED);
        self.network.shared().followers.push((subject, self.node, sender));
        Ok(MemoryFollowing(news))
    }

    fn server(&self) -> EngineServer {
        EngineServer { name: "memory".to_owned(), version: "1".to_owned() }
    }

    async fn flush(&self) {}
}

/// A subscription to a subject.
pub struct MemoryFollowing(mpsc::Receiver<Followed>);

impl Following for MemoryFollowing {
    async fn next(&mut self) -> Option<Followed> {
        self.0.recv().await
    }
}
