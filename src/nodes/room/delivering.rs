//! A room's task changes the outboxes of the members on this node.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Joining, LocalMember, RoomTask};
use crate::clock::now;
use crate::id::{ConnectionId, UserId};
use crate::metrics::Metrics;
use crate::nodes::engine::Engine;
use crate::protocol::ai::AI_ID;
use crate::protocol::client::ClientMessage;
use crate::protocol::close::Close;
use crate::protocol::server::{MessageKind, encode_chat_history};
use crate::room::actor::time::{unix_millis, unix_seconds};
use crate::room::codec::RemoteCommand;
use crate::room::fanout::{Broadcast, JoiningSocket};
use crate::room::io::Recipients;
use crate::room::message::SharedMessage;
use crate::room::replica::{Delivery, ReplicaInput};
use crate::store::ended::{EndedMeeting, REMEMBERED};

impl<E: Engine> RoomTask<E> {
    pub(super) async fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Admit { user, connection, owed } => self.admit(user, connection, owed),
            Delivery::Event { to, number, json } => self.event(to, number, &json).await,
            Delivery::Remove { user, close } => self.remove(&user, close),
            Delivery::KeepOut(users) => {
                let ended = EndedMeeting {
                    room: self.name.clone(),
                    at: UNIX_EPOCH + Duration::from_millis(unix_millis()),
                    users,
                };
                self.deps.ended.remember(now().into_std() + REMEMBERED, &ended);
            }
        }
    }

    /// Attaches a socket to its member's outbox, and answers its join.
    fn admit(&mut self, user: UserId, connection: ConnectionId, owed: Vec<(u64, Arc<str>)>) {
        if self.fanout.get(&user).is_none() {
            let events: Vec<_> = owed.iter().map(|(_, json)| (user.clone(), json.clone())).collect();
            self.fanout.restore(now(), unix_seconds(), [user.clone()].into_iter(), &events);
        }
        let queued = owed.iter().map(|(number, _)| *number);
        match self.members.get_mut(&user) {
            Some(member) => {
                self.sockets.remove(&member.connection);
                member.connection = connection;
            }
            None => {
                let member = LocalMember { connection, queued: queued.collect() };
                self.members.insert(user.clone(), member);
            }
        }
        self.look_soon();
        let Some(Joining { encoding, presence, answer }) = self.joining.remove(&connection) else {
            return self.say_gone(connection);
        };
        let snapshot = self.newest_snapshot();
        let users = if presence { users(&snapshot) } else { Vec::new() };
        let socket = JoiningSocket { connection, encoding, presence };
        let users = || users.iter().map(|(id, json)| (id.as_str(), json));
        let reader = self.fanout.attach(now(), unix_seconds, &user, socket, users);
        self.sockets.insert(connection, user.clone());
        self.put_history(&user);
        if presence {
            self.fanout.put_first(&user, || snapshot.to_string());
        } else {
            self.fanout.put_snapshot(&user, snapshot.to_string());
        }
        if self.leaving.is_some() && self.is_sent_away {
            self.fanout.send_away(&user, Close::ServiceRestart);
        }
        if answer.send(Ok(reader)).is_err() {
            self.disconnected(connection);
            self.say_gone(connection);
        }
    }

    /// Queues the chat's history, if there is one, for a member that joins.
    fn put_history(&self, user: &UserId) {
        let chat = self.replica.journal().state().chat();
        if chat.len() > 0 {
            let history = encode_chat_history(chat);
            let history = SharedMessage::new(MessageKind::ChatHistory, history, &self.deps.metrics);
            self.fanout.put_history(user, &history, false);
        }
    }

    async fn event(&mut self, to: Recipients, number: u64, json: &Arc<str>) {
        let Some(kind) = MessageKind::of_message(json) else {
            return Metrics::count(&self.deps.metrics.drops, "unknown_event");
        };
        for (_, member) in self.members.iter_mut().filter(|(user, _)| to.include(user)) {
            member.queued.push_back(number);
        }
        self.look_soon();
        let slow = self.fanout.send(now(), &to, kind, json.to_string(), None).await;
        slow.into_iter().for_each(|user| self.too_slow(user));
    }

    fn remove(&mut self, user: &UserId, close: Close) {
        if let Some(member) = self.members.remove(user) {
            self.sockets.remove(&member.connection);
        }
        self.fanout.remove(user, close);
    }

    /// Gives up the outbox of a member that reads too slowly.
    fn too_slow(&mut self, user: UserId) {
        let Some(member) = self.members.get(&user) else { return };
        let connection = member.connection;
        self.remove(&user, Close::TooSlow);
        self.say(RemoteCommand::TooSlow { user, connection }, 0);
    }

    /// Queues a snapshot for all members here.
    pub(super) async fn show(&mut self, json: Arc<str>) {
        let users = if self.fanout.has_presences() { users(&json) } else { Vec::new() };
        let is_ai_online = users.iter().any(|(id, _)| id == AI_ID);
        let all = users.iter().map(|(id, json)| (id.as_str(), json));
        let sent = self.fanout.broadcast(unix_seconds, json.to_string(), all, is_ai_online).await;
        let Broadcast { slow, window } = sent;
        self.throttle_snapshots(window);
        self.snapshot = Some(json);
        slow.into_iter().for_each(|user| self.too_slow(user));
    }

    /// Tells the owner the events that members confirmed since the last time.
    pub(super) fn confirm(&mut self) {
        let mut confirmed = Vec::new();
        for (user, member) in &mut self.members {
            let left = self.fanout.get(user).map_or(0, |own| own.unconfirmed_events());
            let gone = member.queued.len().saturating_sub(left);
            if let Some(number) = member.queued.drain(..gone).next_back() {
                confirmed.push((user.clone(), number));
            }
        }
        for (user, number) in confirmed {
            self.input(ReplicaInput::Confirmed { user, number });
        }
    }

    /// Detaches a socket that is gone; its member's events wait for the next one.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        self.joining.remove(&connection);
        if let Some(user) = self.sockets.remove(&connection) {
            self.fanout.detach(&user, connection);
        }
    }

    /// Tells the owner that a member is alive, although its socket is not read.
    pub(super) fn keep_alive(&mut self, connection: ConnectionId) {
        if self.replica.has_space() {
            let message = Ok(ClientMessage::Heartbeat);
            self.say(RemoteCommand::Message { connection, message, bytes: 0 }, 0);
        }
    }
}

/// The users of a snapshot, as id and user object, in the order of their ids.
fn users(snapshot: &str) -> Vec<(String, Arc<str>)> {
    #[derive(Deserialize)]
    struct Snapshot<'a> {
        #[serde(borrow)]
        state: State<'a>,
    }
    #[derive(Deserialize)]
    struct State<'a> {
        #[serde(borrow)]
        users: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Known<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let snapshot: Option<Snapshot<'_>> = serde_json::from_str(snapshot).ok();
    let all = snapshot.map(|snapshot| snapshot.state.users).unwrap_or_default();
    let user = |json: &&RawValue| {
        let Known { id } = serde_json::from_str(json.get()).ok()?;
        Some((id.into_owned(), json.get().into()))
    };
    let mut users: Vec<(String, Arc<str>)> = all.iter().filter_map(user).collect();
    users.sort_by(|one, other| one.0.cmp(&other.0));
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_snapshot_are_in_the_order_of_ids() {
        let snapshot = r#"{"type":"roomState","state":{"meetingId":"m","users":[{"id":"b","x":[1, 2]},{"id":"\u0061"}],"ai":{}}}"#;
        let expected: Vec<(String, Arc<str>)> = vec![
            ("a".to_owned(), r#"{"id":"\u0061"}"#.into()),
            ("b".to_owned(), r#"{"id":"b","x":[1, 2]}"#.into()),
        ];
        assert_eq!(users(snapshot), expected);
        assert_eq!(users("{}"), []);
    }
}
