//! The task that owns one room: waits for its mailbox or deadline, calls `handle`, carries out the effects.

mod agents;
mod ending;
mod history;
mod membership;
mod publishing;
mod reply;
pub mod time;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::history::HistoryFeed;
use self::membership::Joining;
use self::reply::PendingReply;
use self::time::{unix_millis, unix_seconds};
use super::agent_jobs::AgentJobs;
use super::describing::describe;
use super::ended::EndedMeetings;
use super::events::RoomEvents;
use super::fanout::LocalFanout;
use super::io::{Disconnection, Effect, Input, Reason, RoomEvent};
use super::mailbox::{Command, Inbox, Incoming, Reply};
use super::observers::Observers;
use super::outbox::OutboxLimits;
use super::rulebook::Rulebook;
use super::state::{Denied, Room, RoomSettings};
use crate::ai::AiHandle;
use crate::assistant::AssistantHandle;
use crate::clock::{now, wall_clock};
use crate::id::RoomName;
use crate::limit::ConcurrencyPermit;
use crate::media_access::{MediaAccess, RoomAccess};
use crate::metrics::{Counted, Metrics};
use crate::network::ClientNetwork;
use crate::store::files::Files;
use crate::store::saved::{Persist, SavedRoom};
use crate::store::{Change, StoreHandle};

/// Dependencies of an actor besides its mailbox.
#[derive(Clone, Debug)]
pub struct RoomDeps {
    /// Settings of the rooms.
    pub settings: RoomSettings,
    /// Limits of the members' outboxes.
    pub outbox: OutboxLimits,
    /// The store that persists changes.
    pub store: StoreHandle,
    /// The service that runs AI sessions.
    pub ai: AiHandle,
    /// The directory of who may receive whose media.
    pub media: MediaAccess,
    /// The settings that are set by name.
    pub rulebook: Arc<Rulebook>,
    /// Those whose meeting was ended.
    pub ended: Arc<EndedMeetings>,
    /// Programs that are shown as observers.
    pub observers: Arc<Observers>,
    /// The assistant in the chat, if there is one.
    pub assistant: Option<AssistantHandle>,
    /// The files that members share, if they may.
    pub files: Option<Files>,
    /// The publisher of the rooms' events.
    pub events: RoomEvents,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Ends the wait for sockets at a shutdown.
    pub force: CancellationToken,
}

/// Permit of a room, counted against the server's limit and against that of its starter's network.
#[derive(Debug)]
pub struct RoomPermit {
    /// `None` for a probe.
    pub(super) permit: Option<ConcurrencyPermit>,
    /// The network of the client that started the room, if known.
    pub(super) network: Option<ClientNetwork>,
    /// False for a restored room until a member returns.
    pub(super) is_claimed: bool,
}

impl RoomPermit {
    /// The network of the client that started the room, if known.
    pub fn network(&self) -> Option<ClientNetwork> {
        self.network
    }

    /// Charges a restored room to the network of the first member that returns. It is not a new
    /// room, so no limit refuses it; further rooms of that network may be refused.
    fn claim(&mut self, network: Option<ClientNetwork>) {
        let Some(network) = network.filter(|_| !self.is_claimed) else { return };
        self.is_claimed = true;
        if let Some(permit) = &mut self.permit {
            permit.charge_beyond_limit(network);
        }
        self.network = Some(network);
    }
}

/// The owner of one room.
pub struct Actor {
    name: RoomName,
    room: Room,
    inbox: Inbox,
    fanout: LocalFanout,
    history: HistoryFeed,
    /// The jobs of agents in progress; dropped with the room, and so cancelled.
    agents: AgentJobs,
    /// The members' places in the directory of media.
    media: RoomAccess,
    deps: RoomDeps,
    _running: Counted,
    permit: RoomPermit,
    stopping: bool,
    /// True while events from before a restart may still be in the store.
    restored_events: bool,
}

/// The socket that waits for the answer to its input.
enum Asking {
    /// None: the input has no answer.
    None,
    /// One that joins.
    Join(Joining),
    /// The sender of a message.
    Message(Reply),
    /// Whoever moderates without being a member.
    Operator(oneshot::Sender<Result<(), Denied>>),
}

/// Decision to keep a room's task running or to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Continue,
    Retire,
}

impl Actor {
    /// An actor for an empty room, or for a restored one.
    pub fn new(
        name: RoomName,
        saved: Option<SavedRoom>,
        inbox: Inbox,
        permit: RoomPermit,
        deps: RoomDeps,
    ) -> Self {
        let now = now();
        let settings = RoomSettings { rules: deps.rulebook.get(&name), ..deps.settings.clone() };
        let metrics = deps.metrics.clone();
        let mut fanout = LocalFanout::new(deps.outbox, metrics.clone());
        let mut restored_events = false;
        let mut room = match saved {
            None => Room::new(settings, now.into_std()),
            Some(saved) => {
                let mut room = Room::restore(settings, now.into_std(), &saved);
                room.restore_chat(now.into_std(), unix_millis(), &saved);
                let members = room.members().map(|member| member.user);
                fanout.restore(now, unix_seconds(), members, &saved.unconfirmed);
                restored_events = !saved.unconfirmed.is_empty();
                room
            }
        };
        room.set_observers(deps.observers.names(&name));
        let mut media = deps.media.room();
        for effect in room.place_all_media() {
            if let Effect::PlaceMedia { user, identity, place } = effect {
                media.set(&user, &identity, place);
            }
        }
        let running = Counted::new(&metrics.rooms, 1);
        let history = HistoryFeed::new(&metrics, &room);
        let actor = Self {
            name,
            room,
            inbox,
            fanout,
            history,
            agents: AgentJobs::default(),
            media,
            deps,
            _running: running,
            permit,
            stopping: false,
            restored_events,
        };
        info!(
            event = "onStart",
            room = actor.name.as_str(),
            meeting_id = meeting(&actor.room),
            members = actor.fanout.len()
        );
        actor
    }

    /// Runs until the room retires, stops or panics; then `retire` removes it from the registry,
    /// and only then are late joins dropped, so that their callers ask again.
    pub async fn run(mut self, retire: impl FnOnce()) {
        let outcome = AssertUnwindSafe(self.serve()).catch_unwind().await;
        retire();
        if outcome.is_err() {
            let RoomDeps { metrics, store, ai, events, .. } = &self.deps;
            metrics.room_panics.inc();
            error!(event = "roomPanicked", room = self.name.as_str(), meeting_id = meeting(&self.room));
            if let Some(meeting) = self.room.meeting() {
                store.quarantine(self.name.clone(), meeting);
                self.end_files(meeting);
                events.publish(&self.name, Some(meeting), RoomEvent::RoomFailed);
            }
            if let Some(session) = self.room.ai().session() {
                ai.agents().close(session.clone());
            }
        }
        self.inbox.commands.close();
        // Drains commands still being sent, too: a join left in the channel would wait for its
        // answer forever.
        while self.inbox.commands.recv().await.is_some() {}
    }

    async fn serve(&mut self) {
        loop {
            let deadline = self.room.deadline();
            let turn = tokio::select! {
                // The deadline first: a room that is never idle still ticks, and still stops.
                biased;
                () = sleep_until(deadline) => self.handle(Input::Wake, Asking::None).await,
                () = self.deps.force.cancelled() => break,
                () = self.inbox.stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.handle(Input::Shutdown, Asking::None).await
                }
                news = self.agents.next() => self.agent_reported(news).await,
                command = self.inbox.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => break,
                },
            };
            if turn == Turn::Retire || (self.stopping && self.room.is_deserted()) {
                break;
            }
        }
        if self.inbox.stop.is_cancelled() {
            self.persist_unconfirmed();
        }
    }

    async fn obey(&mut self, command: Command) -> Turn {
        match command {
            Command::Join { join, encoding, ack } => {
                let joining = Joining { encoding, presence: join.presence, answer: ack };
                self.handle(Input::Join(join), Asking::Join(joining)).await
            }
            // The message's share of the mailbox's bytes is held until it has been handled.
            Command::Message(Incoming { connection, message, permit: _permit, reply, .. }) => {
                let input = match message {
                    Ok(message) => Input::Message { connection, at: unix_millis(), message },
                    Err(why) => Input::Rejected { connection, why },
                };
                self.handle(input, reply.map_or(Asking::None, Asking::Message)).await
            }
            Command::Disconnected(gone) => self.handle(Input::Disconnected(gone), Asking::None).await,
            Command::Moderate { by, action, answer } => {
                self.handle(Input::Moderate { by, action }, Asking::Operator(answer)).await
            }
            Command::MayChange { by, answer } => {
                let _ = answer.send(self.room.may_change_rules(&by));
                Turn::Continue
            }
            Command::LastingRules { change, answer } => {
                self.handle(Input::LastingRules { change }, Asking::Operator(answer)).await
            }
            Command::SetRules { by, change, answer } => {
                self.handle(Input::SetRules { by, change }, Asking::Operator(answer)).await
            }
            Command::Post { post, answer } => {
                let admitted = self.room.admits_post(&post);
                let turn = self.handle(Input::Post(post), Asking::None).await;
                let _ = answer.send(admitted);
                turn
            }
            Command::MeetingOf { identity, answer } => {
                let _ = answer.send(self.room.meeting_of(&identity));
                Turn::Continue
            }
            Command::AdmitsFiles { identity, answer } => {
                let _ = answer.send(self.room.admits_files(&identity));
                Turn::Continue
            }
            // Whoever asked has given up, and removed the file.
            Command::ShareFile { answer, .. } if answer.is_closed() => Turn::Continue,
            Command::ShareFile { file, answer } => {
                let admitted = self.room.admits_file(&file);
                let turn = self.handle(Input::ShareFile(file), Asking::None).await;
                let _ = answer.send(admitted);
                turn
            }
            Command::Observed => self.handle(Input::Wake, Asking::None).await,
            Command::Describe(answer) => {
                let _ = answer.send(describe(&self.room, &self.fanout));
                Turn::Continue
            }
            #[cfg(test)]
            Command::Panic => panic!("by a test"),
        }
    }

    async fn handle(&mut self, input: Input, asking: Asking) -> Turn {
        let now = now();
        let (mut joining, mut reply, mut operator) = (None, None, None);
        match asking {
            Asking::None => {}
            Asking::Join(asking) => joining = Some(asking),
            Asking::Message(asking) => reply = Some(PendingReply::new(asking, &self.room, &input)),
            Asking::Operator(asking) => operator = Some(asking),
        }
        let sender = match &input {
            Input::Message { connection, .. } => self.room.user_at(*connection),
            _ => None,
        };
        let joins_from = if let Input::Join(join) = &input { join.network } else { None };
        let is_tick_due = self.room.is_tick_due(now.into_std());
        // A wake may be news of an observer; a full mailbox loses it until the next tick.
        if is_tick_due || matches!(input, Input::Wake) {
            self.room.set_observers(self.deps.observers.names(&self.name));
        }
        let mut inputs = VecDeque::from([input]);
        self.check_chat_memory();
        // Members time out only at a tick or a join.
        if is_tick_due || matches!(inputs[0], Input::Join(_)) {
            for user in self.fanout.take_throttled() {
                self.room.keep_alive(now.into_std(), user);
            }
        }
        let mut turn = Turn::Continue;
        while let Some(input) = inputs.pop_front() {
            let effects = self.room.handle(now.into_std(), input);
            // Before a snapshot tells clients of its track.
            self.media.set_agent(self.room.ai().session().map(|agent| &agent.session));
            for effect in effects {
                match effect {
                    Effect::Admit { connection, user } => {
                        self.permit.claim(joins_from);
                        if !self.admit(now, connection, &user, joining.take()) {
                            inputs.push_back(Input::Disconnected(Disconnection {
                                connection,
                                is_page_left: false,
                            }));
                        }
                    }
                    Effect::Refuse { connection: _, refusal } => {
                        if let Some(joining) = joining.take() {
                            let _ = joining.answer.send(Err(refusal));
                        }
                    }
                    Effect::Detach { connection, user } => {
                        self.fanout.detach(&user, connection);
                    }
                    Effect::Send { to, event } => {
                        if let Some(reply) = &mut reply {
                            reply.notice(&to, &event);
                        }
                        self.publish_chat(&event);
                        let (kind, json) = (event.kind(), event.encode());
                        let slow = self.fanout.send(now, &to, kind, json, sender.as_ref()).await;
                        inputs.extend(slow.into_iter().map(|user| Input::TooSlow { user }));
                    }
                    Effect::SendTransient(event) => {
                        self.fanout.send_transient(event.kind(), event.encode()).await;
                    }
                    Effect::Snapshot => {
                        let slow = self.broadcast(now).await;
                        inputs.extend(slow.into_iter().map(|user| Input::TooSlow { user }));
                    }
                    Effect::Remove { user, close } => {
                        self.media.leave(now.into_std(), &user);
                        self.fanout.remove(&user, close);
                    }
                    Effect::SendAway { user, close } => self.fanout.send_away(&user, close),
                    Effect::Persist { meeting, change } => {
                        if change == Persist::MeetingEnded {
                            self.end_files(meeting);
                        }
                        let (at, room) = (wall_clock(), self.name.clone());
                        self.deps.store.persist(Change { at, room, meeting, what: change });
                    }
                    Effect::Publish { meeting, event } => {
                        if let RoomEvent::ErrorHandlingMessage { .. } = event {
                            Metrics::count(&self.deps.metrics.drops, "refused_message");
                        }
                        self.deps.events.publish(&self.name, meeting, event);
                    }
                    Effect::PlaceMedia { user, identity, place } => self.media.set(&user, &identity, place),
                    Effect::Agent(task) => inputs.extend(self.run_agent_task(task)),
                    Effect::Moderated(result) => {
                        if let Some(operator) = operator.take() {
                            let _ = operator.send(result);
                        }
                    }
                    Effect::RememberEnded(meeting, users) => self.remember_ended(meeting, users),
                    Effect::Retire => turn = Turn::Retire,
                }
            }
        }
        if let Some(reply) = reply {
            reply.send();
        }
        self.count_chat_memory(is_tick_due);
        if self.restored_events && self.fanout.is_confirmed() {
            // All are confirmed by now; a crash must not send them again.
            self.persist_unconfirmed();
            self.restored_events = false;
        }
        turn
    }
}

fn meeting(room: &Room) -> Option<String> {
    room.meeting().map(|meeting| meeting.to_string())
}

async fn sleep_until(deadline: Option<(std::time::Instant, Reason)>) {
    match deadline {
        Some((at, _)) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
