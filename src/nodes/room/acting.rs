//! A room's task carries out the actions of its replica.

use satsuma_cluster::journal::Life;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::RoomTask;
use super::asking::{ask, read_all};
use super::sending::Message;
use crate::clock::now;
use crate::metrics::Metrics;
use crate::nodes::engine::{Engine, Subject};
use crate::nodes::status;
use crate::protocol::server::MessageKind;
use crate::room::agent_jobs::{AgentJobs, AgentNews, JobRoom};
use crate::room::event_queue::{JournalPlace, RecordedMark};
use crate::room::io::{CannotPost, Effect, Input, RoomEvent};
use crate::room::replica::{Action, ReplicaInput};
use crate::room::state::CannotShareFile;
use crate::store::saved::Persist;

/// Whoever waits until something is in the journal.
pub(super) enum Written {
    /// A program with a message.
    Post(oneshot::Sender<Result<(), CannotPost>>),
    /// Somebody who shares a file.
    File(oneshot::Sender<Result<(), CannotShareFile>>),
}

impl<E: Engine> RoomTask<E> {
    /// Carries out what is to be done, and what follows from that.
    pub(super) async fn carry_out(&mut self) {
        if self.replica.room().is_some() != self.is_owner {
            // What it says is of a journal that another node may have gone on with differently.
            self.recorded = RecordedMark::default();
        }
        self.see_to_media().await;
        loop {
            let actions = self.replica.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.act(action).await;
            }
        }
        // Whoever owned it when it ended tells of it.
        self.see_meeting().await;
        let is_owner = self.replica.room().is_some();
        let owner = self.replica.journal().position().map(|(_, owner, _)| owner);
        if let Some(other) = owner.filter(|owner| *owner != self.cluster.node()) {
            self.former = Some(other);
        }
        if is_owner != self.is_owner {
            self.is_owner = is_owner;
            self.cluster.count_owned(is_owner);
            self.cluster.set_owned(&self.name, is_owner);
            self.count_change(is_owner);
            if let (Some(room), Some(meeting)) = (self.replica.room(), self.meeting) {
                self.record(meeting, Some(room.members().len()));
            }
            let event = if is_owner { "roomOwned" } else { "roomGivenUp" };
            info!(event, room = self.name.as_str(), epoch = self.replica.journal().epoch());
        }
        self.count_alone();
        if !is_owner {
            self.agents = AgentJobs::default();
            self.operators.clear();
            self.posts.clear();
        }
        self.answer_posts();
        if self.replica.is_settled() {
            self.takeover.permit = None;
        }
        let history = self.replica.room().map_or(0, |room| room.chat().bytes());
        if i64::try_from(history) != Ok(self.history.count()) {
            self.history.set(history);
        }
        self.send_away();
    }

    /// Answers those whose messages are in the journal: nobody is told of one that the next owner would not know.
    fn answer_posts(&mut self) {
        let stored = self.replica.last_stored().unwrap_or_default();
        while let Some((_, written)) = self.posts.pop_front_if(|(entry, _)| *entry <= stored) {
            match written {
                Written::Post(answer) => drop(answer.send(Ok(()))),
                Written::File(answer) => drop(answer.send(Ok(()))),
            }
        }
    }

    /// Has somebody answered once everything so far is stored.
    pub(super) fn answer_once_stored(&mut self, written: Written) {
        // Dropped, it is no answer.
        if let Some(entry) = self.replica.last_written() {
            self.posts.push_back((entry, written));
        }
    }

    /// Tells that the room goes on alone, or that this is over.
    fn count_alone(&mut self) {
        let (is_alone, was_alone) = (self.replica.is_alone(), self.alone.count() > 0);
        if is_alone == was_alone {
            return;
        }
        self.alone.set(usize::from(is_alone));
        let room = self.name.as_str();
        if is_alone {
            warn!(
                event = "roomAlone",
                room, "it goes on without the engine, and would not survive this node"
            );
        } else if self.replica.room().is_some() {
            info!(
                event = "roomStoredAgain",
                room, "what its members were shown without the engine is stored"
            );
        } else {
            warn!(event = "roomTakenBack", room, "another node has it; its members here begin anew");
        }
    }

    /// Counts that the room was taken over, or lost to a node that took this one for dead.
    fn count_change(&mut self, is_owner: bool) {
        let (metrics, journal) = (&self.deps.metrics, self.replica.journal());
        match self.former.take_if(|_| is_owner) {
            Some(former) if journal.state().meeting().is_some() => {
                let is_alive = self.cluster.membership().is_alive(former);
                let reason = if is_alive { status::HANDED_OVER } else { status::DIED };
                Metrics::count(&metrics.takeovers, reason);
            }
            _ if !is_owner && matches!(journal.life(), Life::Owned(_)) => {
                warn!(event = "roomFenced", room = self.name.as_str(), epoch = journal.epoch());
                metrics.rooms_fenced.inc();
            }
            _ => {}
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Request { writer, request } => {
                self.questions.push(ask(self.cluster.engine(), &self.name, writer, request));
            }
            Action::ReadAll { question } => {
                self.deps.metrics.journal_reads.inc();
                self.questions.push(read_all(self.cluster.engine(), &self.name, question));
            }
            Action::Purge { below } => self.outgoing.push(Message::Purge(below)),
            Action::PurgeEnded { below } => self.cluster.purge_later(Subject::room(&self.name), below),
            Action::RepeatSnapshot => {
                if let Some(snapshot) = self.snapshot.clone() {
                    self.show(snapshot).await;
                }
            }
            Action::SendAway(close) => {
                self.members.keys().for_each(|user| self.fanout.send_away(user, close))
            }
            Action::Send { to, message } => self.outgoing.push(Message::ToNode(to, message)),
            Action::Broadcast(broadcast) => self.outgoing.push(Message::ToAll(broadcast)),
            Action::Deliver(delivery) => self.deliver(delivery).await,
            Action::Refuse { connection, refusal } => {
                if let Some(joining) = self.joining.remove(&connection) {
                    let _ = joining.answer.send(Err(refusal));
                }
            }
            Action::Failed { item, why } => {
                if let Some(reply) = self.replies.remove(&item) {
                    let _ = reply.send(Err(why));
                }
            }
            Action::Answered { through } => {
                while let Some(first) = self.replies.first_entry().filter(|first| *first.key() <= through) {
                    let _ = first.remove().send(Ok(()));
                }
            }
            Action::Snapshot(json) => {
                // Before clients are told of tracks.
                self.tell_places();
                self.show(json).await;
            }
            Action::Transient(json) => {
                if let Some(kind) = MessageKind::of_message(&json) {
                    self.fanout.send_transient(kind, json.to_string()).await;
                }
            }
            Action::Publish { meeting, event, seq } => {
                let (first, last, mark) = (event.number, event.number, self.recorded.clone());
                let place = JournalPlace { epoch: event.epoch, first, last, seq, mark };
                self.deps.events.publish_journaled(&self.name, meeting, &event, place);
            }
            Action::Effect(effect) => self.effect(effect),
        }
    }

    /// Carries out an effect of the room, which this node owns.
    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Publish { meeting, event } => {
                match &event {
                    RoomEvent::ChatMessage { .. } if !self.deps.events.wants_chat() => return,
                    RoomEvent::ErrorHandlingMessage { .. } => {
                        Metrics::count(&self.deps.metrics.drops, "refused_message");
                    }
                    _ => {}
                }
                self.deps.events.publish(&self.name, meeting, event);
            }
            Effect::Agent(task) => {
                let members = self.replica.room().map_or(0, |room| room.members().len());
                let room = JobRoom { name: &self.name, network: self.permit.network(), members };
                // The node of the agent's session checks it, which has the sessions of the members, too.
                let news = self.agents.run(&self.deps, room, |_| true, task);
                if let Some(news) = news {
                    self.input(ReplicaInput::Room(Box::new(news)));
                }
            }
            Effect::Moderated(result) => {
                if let Some(operator) = self.operators.pop_front() {
                    let _ = operator.send(result);
                }
            }
            Effect::PlaceMedia { .. } => self.tell_places(),
            Effect::SendAway { user, close } => self.fanout.send_away(&user, close),
            Effect::Persist { meeting, change } => match change {
                Persist::Peak { members } => self.record(meeting, Some(members)),
                Persist::MeetingEnded => self.record(meeting, None),
                _ => {}
            },
            // The replica turns these into lines of the journal and into deliveries.
            Effect::Admit { .. }
            | Effect::Refuse { .. }
            | Effect::Detach { .. }
            | Effect::Send { .. }
            | Effect::SendTransient(_)
            | Effect::Snapshot
            | Effect::Remove { .. }
            | Effect::RememberEnded(..)
            | Effect::Retire => {}
        }
    }

    /// Tells the owner how far this node has recorded its events.
    pub(super) fn events_recorded(&mut self) {
        if let Some((meeting, recorded)) = self.recorded.take() {
            self.input(ReplicaInput::Recorded(meeting, recorded));
        }
    }

    /// Hands the news of a job to the room.
    pub(super) fn agent_reported(&mut self, news: AgentNews) {
        let Some((input, opened)) = self.agents.take(news) else { return };
        self.room_input(input);
        if let Some(opened) = opened {
            opened.hand_over();
        }
    }

    pub(super) fn room_input(&mut self, input: Input) {
        self.input(ReplicaInput::Room(Box::new(input)));
    }

    /// The room's newest state, as far as this node knows it.
    pub(super) fn newest_snapshot(&self) -> std::sync::Arc<str> {
        match (self.replica.room(), &self.snapshot) {
            (Some(room), _) => room.encode_snapshot().into(),
            (None, Some(snapshot)) => snapshot.clone(),
            (None, None) => self.replica.journal().state().encode_snapshot().into(),
        }
    }

    pub(super) fn throttle_snapshots(&mut self, window: std::time::Duration) {
        self.replica.throttle_snapshots(now().into_std(), window);
    }
}
