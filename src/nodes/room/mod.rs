//! The task of a room on this node, which other nodes may have members of as well.
//!
//! It is to its sockets what a room's [actor](crate::room::actor) is on a single node: the same mailbox, the same
//! outboxes. It owns the outboxes of the members here and the room's [replica](RoomReplica), whose actions it carries
//! out: it asks the engine, sends to other nodes, and, where this node owns the room, does what the room wants.

mod acting;
pub(super) mod asking;
mod commands;
mod delivering;
pub(super) mod feed;
mod keeping;
mod media;
mod meetings;
mod restarting;
mod sending;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::info;

use self::acting::Written;
pub(super) use self::asking::{MAX_ENTRY_BYTES, record};
use self::feed::{Feed, News};
use self::media::RoomMedia;
use self::sending::Outgoing;
use super::engine::{Engine, Followed, Subject};
use super::node::{Changes, Cluster, PeerBytes};
use crate::clock::now;
use crate::id::{ConnectionId, MeetingId, NodeId, RoomName, UserId};
use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::room::actor::time::unix_millis;
use crate::room::actor::{RoomDeps, RoomPermit};
use crate::room::agent_jobs::AgentJobs;
use crate::room::codec::RemoteCommand;
use crate::room::event_queue::RecordedMark;
use crate::room::fanout::LocalFanout;
use crate::room::io::{Disconnection, JoinRefusal};
use crate::room::mailbox::{Inbox, Reply};
use crate::room::outbox::OutboxReader;
use crate::room::replica::messages::{Broadcast, PeerMessage};
use crate::room::replica::{ReplicaInput, RoomReplica, Surroundings};
use crate::room::requests::{Notice, OwnRooms, RoomAnswer, RoomListing, RoomRequest};
use crate::room::shared::{EngineState, SharedRooms, StartedRoom};
use crate::room::state::{Denied, RoomSettings};

/// Time between two looks at what members confirmed, while they have something to confirm.
const CONFIRMATIONS: Duration = Duration::from_secs(1);

/// Time for which a leaving node waits for the room to be handed over before it closes its sockets.
const HAND_OVER: Duration = Duration::from_secs(1);

/// A room on this node.
struct RoomTask<E: Engine> {
    name: RoomName,
    cluster: Cluster<E>,
    replica: RoomReplica,
    inbox: Inbox,
    peers: mpsc::Receiver<PeerBytes>,
    changes: watch::Receiver<Changes>,
    seen: Changes,
    /// Questions to the engine.
    questions: FuturesUnordered<BoxFuture<'static, ReplicaInput>>,
    outgoing: Outgoing<E>,
    fanout: LocalFanout,
    /// The members with an outbox here.
    members: HashMap<UserId, LocalMember>,
    /// The members of open sockets.
    sockets: HashMap<ConnectionId, UserId>,
    joining: HashMap<ConnectionId, Joining>,
    /// The replies to messages, by their numbers among the items of the link.
    replies: BTreeMap<u64, Reply>,
    /// Those who wait for the result of their request, in its order.
    operators: VecDeque<oneshot::Sender<Result<(), Denied>>>,
    /// Those whose message is written once the room's journal has this entry.
    posts: VecDeque<(u64, Written)>,
    agents: AgentJobs,
    /// The newest snapshot that was shown.
    snapshot: Option<Arc<str>>,
    history: Counted,
    /// The events for programs outside that this node has recorded.
    recorded: RecordedMark,
    deps: RoomDeps,
    permit: RoomPermit,
    _running: Counted,
    is_owner: bool,
    /// The meeting, as the journal said it last.
    meeting: Option<MeetingId>,
    /// One while members here were shown what is not stored.
    alone: Counted,
    /// The last owner that was another node.
    former: Option<NodeId>,
    media: RoomMedia,
    takeover: Takeover,
    /// The time of the next look at confirmations and joins.
    look_at: Instant,
    has_begun: bool,
    /// The time at which this node began to leave.
    leaving: Option<Instant>,
    is_sent_away: bool,
    /// True if nobody joined the room here: it is to end.
    is_orphan: bool,
}

/// A member with an outbox here.
struct LocalMember {
    /// Its socket, the last one if it is disconnected.
    connection: ConnectionId,
    /// The room's numbers of the events in its outbox, in order.
    queued: VecDeque<u64>,
}

/// A socket that waits for the answer to its join.
struct Joining {
    encoding: Encoding,
    presence: bool,
    answer: oneshot::Sender<Result<OutboxReader, JoinRefusal>>,
}

/// The turn of a room whose owner is gone, among those of this node.
#[derive(Default)]
struct Takeover {
    /// Nodes that are gone, of which the replica is not told yet.
    gone: VecDeque<NodeId>,
    waiting: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<E: Engine> SharedRooms for Cluster<E> {
    fn run(&self, room: StartedRoom, retire: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let cluster = self.clone();
        Box::pin(async move {
            let (sender, messages) = cluster.open(&room.name);
            let restart = cluster.restart(&room.name);
            let mut task = RoomTask::new(cluster.clone(), room, messages);
            let outcome = AssertUnwindSafe(task.restart(restart)).catch_unwind().await;
            cluster.close(&task.name, &sender);
            retire();
            match outcome {
                Ok(()) => task.keep(),
                Err(_) => task.panicked(),
            }
            if task.is_owner {
                cluster.count_owned(false);
            }
            task.inbox.commands.close();
            // A join that is left in the channel would wait for its answer for ever.
            while task.inbox.commands.recv().await.is_some() {}
        })
    }

    fn start_orphans_by(&self, start: Box<dyn Fn(RoomName) + Send + Sync>, grace: Duration) {
        self.start_orphans_with(start, grace);
    }

    fn drain(&self) {
        self.begin_to_leave();
    }

    fn engine_state(&self) -> EngineState {
        self.reach().state()
    }

    fn serve(&self, rooms: Arc<dyn OwnRooms>) {
        // A node has one registry.
        let _ = self.requests().own.set(rooms);
    }

    fn ask(&self, room: RoomName, request: RoomRequest) -> BoxFuture<'static, RoomAnswer> {
        let cluster = self.clone();
        Box::pin(async move { cluster.ask_room(room, request).await })
    }

    fn list(&self) -> BoxFuture<'static, RoomListing> {
        let cluster = self.clone();
        Box::pin(async move { cluster.list_all().await })
    }

    fn node(&self) -> NodeId {
        self.inner.identity.node
    }

    fn tell(&self, notice: Notice) -> BoxFuture<'static, ()> {
        let cluster = self.clone();
        Box::pin(async move { cluster.tell_all(notice).await })
    }
}

impl<E: Engine> RoomTask<E> {
    fn new(cluster: Cluster<E>, room: StartedRoom, peers: mpsc::Receiver<PeerBytes>) -> Self {
        let StartedRoom { name, inbox, permit, deps, is_orphan } = room;
        let settings = RoomSettings { rules: deps.rulebook.get(&name), ..deps.settings.clone() };
        let metrics = &deps.metrics;
        let changes = cluster.changes();
        let seen = *changes.borrow();
        info!(event = "onStart", room = name.as_str());
        Self {
            replica: RoomReplica::new(name.clone(), settings, cluster.node(), cluster.next_link()),
            outgoing: Outgoing::new(cluster.engine().clone(), name.clone(), metrics.clone()),
            fanout: LocalFanout::new(deps.outbox, metrics.clone()),
            history: Counted::new(&metrics.chat_history_bytes, 0),
            alone: Counted::new(&metrics.rooms_alone, 0),
            _running: Counted::new(&metrics.rooms, 1),
            look_at: now() + deps.settings.tick,
            name,
            cluster,
            inbox,
            peers,
            changes,
            seen,
            questions: FuturesUnordered::new(),
            members: HashMap::new(),
            sockets: HashMap::new(),
            joining: HashMap::new(),
            replies: BTreeMap::new(),
            operators: VecDeque::new(),
            posts: VecDeque::new(),
            agents: AgentJobs::default(),
            snapshot: None,
            recorded: RecordedMark::default(),
            deps,
            permit,
            is_owner: false,
            meeting: None,
            former: None,
            media: RoomMedia::default(),
            takeover: Takeover::default(),
            has_begun: false,
            leaving: None,
            is_sent_away: false,
            is_orphan,
        }
    }

    async fn serve(&mut self) {
        let mut feed = Feed::new(self.cluster.engine().clone(), Subject::room(&self.name));
        // First, so that nothing is stored unseen between the first read and the first entry that comes.
        tokio::select! {
            _ = feed.next() => {}
            () = self.deps.force.cancelled() => return,
            () = self.inbox.stop.cancelled() => return,
        }
        // Another node may have changed them a moment ago.
        self.deps.rulebook.refresh(&self.name).await;
        if self.is_orphan {
            self.adopt().await;
        }
        loop {
            let deadline = self.replica.deadline().map_or(self.look_at, |at| self.look_at.min(at.into()));
            tokio::select! {
                // The deadline first: a room that is never idle still ticks.
                biased;
                () = tokio::time::sleep_until(deadline) => self.wake(),
                () = self.deps.force.cancelled() => break,
                () = self.inbox.stop.cancelled(), if self.leaving.is_none() => self.leave(),
                Some(input) = self.questions.next(), if !self.questions.is_empty() => self.input(input),
                (node, result) = self.outgoing.send() => self.cluster.probed(node, result),
                news = feed.next() => self.followed(news),
                Some(peer) = self.peers.recv() => self.peer(peer),
                Ok(()) = self.changes.changed() => self.changed(),
                permit = self.takeover.turn() => self.take_turn(permit),
                news = self.agents.next() => self.agent_reported(news),
                () = self.recorded.moved() => self.events_recorded(),
                command = self.inbox.commands.recv(), if self.replica.has_space() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
            }
            self.carry_out().await;
            if self.is_over() {
                break;
            }
        }
    }

    fn is_over(&self) -> bool {
        if self.leaving.is_some() {
            return self.sockets.is_empty() && self.joining.is_empty() && self.replica.has_left();
        }
        self.has_begun && self.joining.is_empty() && self.replica.is_idle()
    }

    /// Hands an input to the replica.
    fn input(&mut self, input: ReplicaInput) {
        let used = usize::try_from(self.deps.metrics.chat_history_bytes.get()).unwrap_or(0);
        if self.replica.room().is_none()
            && matches!(input, ReplicaInput::Appended { .. } | ReplicaInput::ReadLast { .. })
        {
            // It may be about to own the room.
            self.replica.set_lasting_rules(self.deps.rulebook.get(&self.name));
        }
        if matches!(input, ReplicaInput::Wake) {
            self.replica.set_observers(self.deps.observers.names(&self.name));
        }
        self.replica.set_recording(self.deps.events.recording());
        self.replica.set_chat_exhausted(used >= self.deps.settings.chat.all_bytes);
        let membership = self.cluster.membership();
        let surroundings = Surroundings { now: now().into_std(), at: unix_millis(), membership: &membership };
        self.replica.handle(surroundings, input);
    }

    /// Hands what a socket says to the replica. Its number among the items of the link; none if the link is full.
    fn say(&mut self, command: RemoteCommand, bytes: usize) -> Option<u64> {
        let membership = self.cluster.membership();
        let surroundings = Surroundings { now: now().into_std(), at: unix_millis(), membership: &membership };
        self.replica.command(surroundings, command, bytes).ok()
    }

    fn say_gone(&mut self, connection: ConnectionId) {
        self.say(RemoteCommand::Disconnected(Disconnection { connection, is_page_left: false }), 0);
    }

    fn wake(&mut self) {
        let now = now();
        if self.replica.deadline().is_some_and(|at| at <= now.into_std()) {
            self.input(ReplicaInput::Wake);
        }
        if self.look_at <= now {
            self.has_begun = true;
            self.look();
        }
    }

    /// Looks at what members confirmed, at joins that nobody waits for any more, and at sockets that are not read.
    fn look(&mut self) {
        let given_up = self.joining.extract_if(|_, joining| joining.answer.is_closed());
        let given_up: Vec<ConnectionId> = given_up.map(|(connection, _)| connection).collect();
        given_up.into_iter().for_each(|connection| self.say_gone(connection));
        self.confirm();
        let throttled: Vec<UserId> = self.fanout.take_throttled().cloned().collect();
        for user in throttled {
            if let Some(member) = self.members.get(&user) {
                self.keep_alive(member.connection);
            }
        }
        let waits = !self.joining.is_empty() || self.members.values().any(|member| !member.queued.is_empty());
        let pause = if waits || self.leaving.is_some() { CONFIRMATIONS } else { self.deps.settings.tick };
        self.look_at = now() + pause;
    }

    /// Has the next look soon.
    fn look_soon(&mut self) {
        self.look_at = self.look_at.min(now() + CONFIRMATIONS);
    }

    fn followed(&mut self, news: News) {
        match news {
            News::Begun => self.input(ReplicaInput::Interrupted),
            News::Followed(Followed::Stored(entry)) => match record(&self.name, &entry) {
                Some(record) => self.input(ReplicaInput::Stored(record)),
                None => Metrics::count(&self.deps.metrics.drops, "unreadable_entry"),
            },
            News::Followed(Followed::Broadcast(bytes)) => match Broadcast::decode(&bytes) {
                Ok(broadcast) => self.input(ReplicaInput::Broadcast(broadcast)),
                Err(_) => Metrics::count(&self.deps.metrics.drops, "unknown_message"),
            },
        }
    }

    fn peer(&mut self, peer: PeerBytes) {
        let PeerBytes { from, message } = peer;
        match PeerMessage::decode(&message) {
            Ok(message) => self.input(ReplicaInput::Peer { from, message }),
            Err(_) => Metrics::count(&self.deps.metrics.drops, "unknown_message"),
        }
    }

    /// Looks at changes among the nodes.
    fn changed(&mut self) {
        let changes = *self.changes.borrow_and_update();
        if changes.interruptions != self.seen.interruptions {
            self.input(ReplicaInput::Interrupted);
        }
        if changes.cuts != self.seen.cuts {
            self.input(ReplicaInput::Wake);
        }
        if changes.gone != self.seen.gone {
            let membership = self.cluster.membership();
            let owner = self.replica.journal().position().map(|(_, owner, _)| owner);
            let known = self.replica.journal().state().nodes().into_keys().chain(owner);
            let gone = known.filter(|node| !membership.is_alive(*node));
            self.takeover.gone.extend(gone);
        }
        self.seen = changes;
        let is_urgent = self.replica.room().is_some();
        if is_urgent {
            self.tell_gone();
        } else if !self.takeover.gone.is_empty() && self.takeover.permit.is_none() {
            let turns = self.cluster.takeovers();
            let turn = async move { turns.acquire_owned().await.ok() };
            self.takeover.waiting.get_or_insert_with(|| turn.boxed());
        }
    }

    fn take_turn(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.takeover.permit = permit;
        self.tell_gone();
    }

    fn tell_gone(&mut self) {
        while let Some(node) = self.takeover.gone.pop_front() {
            self.input(ReplicaInput::NodeGone(node));
        }
    }

    /// Begins to leave: the room is handed over, and its sockets are closed.
    fn leave(&mut self) {
        self.leaving = Some(now());
        self.look_soon();
        self.input(ReplicaInput::Leave);
    }

    /// Closes the sockets of a leaving node, once another node may own the room.
    fn send_away(&mut self) {
        let Some(since) = self.leaving.filter(|_| !self.is_sent_away) else { return };
        if self.replica.room().is_none() || now() >= since + HAND_OVER {
            self.is_sent_away = true;
            for user in self.members.keys() {
                self.fanout.send_away(user, Close::ServiceRestart);
            }
        }
    }
}

impl Takeover {
    /// Waits for this room's turn; for ever if it needs none.
    async fn turn(&mut self) -> Option<OwnedSemaphorePermit> {
        let permit = match &mut self.waiting {
            Some(waiting) => waiting.await,
            None => std::future::pending().await,
        };
        self.waiting = None;
        permit
    }
}
