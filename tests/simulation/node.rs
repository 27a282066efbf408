//! A node: what a process would have around the replica of a room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use satsuma::config::ModeratorDefault;
use satsuma::id::{ConnectionId, NodeId, RoomName, UserId};
use satsuma::metrics::Metrics;
use satsuma::protocol::close::Close;
use satsuma::protocol::deflate::Encoding;
use satsuma::protocol::server::MessageKind;
use satsuma::room::chat::HistoryLimits;
use satsuma::room::fanout::{JoiningSocket, LocalFanout};
use satsuma::room::io::Recipients;
use satsuma::room::outbox::{OutboxLimits, OutboxReader};
use satsuma::room::replica::journaled::Recording;
use satsuma::room::replica::{Delivery, RoomReplica};
use satsuma::room::rules::RoomRules;
use satsuma::room::state::RoomSettings;
use satsuma_cluster::Membership;

use crate::engine::Engine;

/// A process.
pub struct Node {
    pub id: NodeId,
    pub life: u64,
    pub is_alive: bool,
    pub is_draining: bool,
    pub frozen_until: u64,
    pub cut_until: u64,
    pub membership: Membership,
    pub replica: Option<RoomReplica>,
    fanout: LocalFanout,
    /// The numbers of the events in each outbox, in order.
    queued: BTreeMap<UserId, Vec<u64>>,
    /// True if its members were shown what is not stored.
    pub was_alone: bool,
    /// The time at which it has recorded all events for programs outside so far.
    pub recorded_at: u64,
    pub links: u64,
    pub connections: u64,
    /// Messages of sockets that were not read yet.
    pub unread: Vec<(ConnectionId, String)>,
    pub wakes_at: u64,
    /// The difference of its wall clock, in milliseconds.
    pub skew: i64,
}

pub fn settings() -> RoomSettings {
    RoomSettings {
        tick: Duration::from_secs(3),
        heartbeat_timeout: Duration::from_secs(15),
        restore_grace: Duration::from_secs(15),
        members: 100,
        members_per_identity: 0,
        members_per_network: 0,
        user_bytes: 8192,
        ai_starts_per_minute: 0,
        moderators: ModeratorDefault::First,
        rules: RoomRules::default(),
        watch: satsuma::room::watch::WatchSettings::default(),
        files: false,
        chat: HistoryLimits { messages: 20, ..HistoryLimits::default() },
        assistant: None,
    }
}

impl Node {
    pub fn new(now: Instant, id: NodeId, life: u64, skew: i64) -> Self {
        let limits = OutboxLimits {
            member_bytes: 8 << 20,
            all_bytes: 512 << 20,
            write_stall: Duration::from_secs(60),
        };
        Self {
            id,
            life,
            is_alive: true,
            is_draining: false,
            frozen_until: 0,
            cut_until: 0,
            membership: Membership::new(now, id),
            replica: None,
            fanout: LocalFanout::new(limits, Metrics::new()),
            queued: BTreeMap::new(),
            was_alone: false,
            recorded_at: 0,
            links: 0,
            connections: 0,
            unread: Vec::new(),
            wakes_at: u64::MAX,
            skew,
        }
    }

    pub fn replica(&mut self) -> &mut RoomReplica {
        if self.replica.is_none() {
            self.links += 1;
            let name = RoomName::parse("room").unwrap();
            let replica = self.replica.insert(RoomReplica::new(name, settings(), self.id, self.links));
            replica.set_recording(Recording { events: true, chat: true });
        }
        self.replica.as_mut().unwrap()
    }

    /// The number of the event that an outbox's number stands for.
    pub fn event_number(&self, user: &UserId, number: u64) -> Option<u64> {
        self.queued.get(user)?.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }

    pub fn detach(&mut self, user: &UserId, connection: ConnectionId) {
        self.fanout.detach(user, connection);
    }

    /// Carries out a delivery; returns the reader of an admitted socket. Fails if something is shown that is not stored,
    /// unless the room goes on without the engine.
    pub fn deliver(
        &mut self,
        now: Instant,
        delivery: Delivery,
        engine: Option<&Engine>,
    ) -> Result<Option<(UserId, ConnectionId, OutboxReader)>, String> {
        match delivery {
            Delivery::Admit { user, connection, owed } => {
                if engine.is_some_and(|engine| !engine.has_admitted(connection)) {
                    return Err(format!("I6: {connection} of {user} is admitted, but that is not stored"));
                }
                if !self.queued.contains_key(&user) {
                    let texts: Vec<(UserId, Arc<str>)> =
                        owed.iter().map(|(_, json)| (user.clone(), json.clone())).collect();
                    self.fanout.restore(now.into(), 0, std::iter::once(user.clone()), &texts);
                    self.queued.insert(user.clone(), owed.iter().map(|(number, _)| *number).collect());
                }
                let socket = JoiningSocket { connection, encoding: Encoding::Identity, presence: false };
                let reader = self.fanout.attach(now.into(), || 0, &user, socket, std::iter::empty);
                Ok(Some((user, connection, reader)))
            }
            Delivery::Event { to, number, json } => {
                if engine.is_some_and(|engine| engine.place(&json).is_none()) {
                    return Err(format!("I3: shown, but not stored: {json}"));
                }
                for (user, queued) in &mut self.queued {
                    if to.include(user) {
                        queued.push(number);
                    }
                }
                self.event(now, &to, &json);
                Ok(None)
            }
            Delivery::Remove { user, close } => {
                self.queued.remove(&user);
                self.fanout.remove(&user, close);
                Ok(None)
            }
            Delivery::KeepOut(_) => Ok(None),
        }
    }

    fn event(&self, now: Instant, to: &Recipients, json: &str) {
        let kind = MessageKind::of_message(json).expect("the message of an event");
        let sent = self.fanout.send(now.into(), to, kind, json.to_owned(), None).now_or_never();
        assert!(sent.expect("a short message is compressed at once").is_empty());
    }

    pub fn send_away(&mut self, close: Close) {
        self.queued.keys().for_each(|user| self.fanout.send_away(user, close));
    }

    pub fn snapshot(&mut self, json: &str) {
        let sent = self.fanout.broadcast(|| 0, json.to_owned(), std::iter::empty(), false).now_or_never();
        assert!(sent.expect("a short message is compressed at once").slow.is_empty());
    }

    pub fn transient(&mut self, json: &str) {
        if let Some(kind) = MessageKind::of_message(json) {
            self.fanout.send_transient(kind, json.to_owned()).now_or_never();
        }
    }
}
