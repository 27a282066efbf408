//! Messages of a room's members: lines of text, from two of them in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use satsuma::config::ModeratorDefault;
use satsuma::id::{ConnectionId, Grants, IdentityId, MeetingId, NodeId, UserId};
use satsuma::protocol::client::{ClientMessage, MessageLimits};
use satsuma::room::chat::HistoryLimits;
use satsuma::room::io::{Effect, Input, Join, Liveness};
use satsuma::room::state::{Room, RoomSettings};
use satsuma::store::saved::{Persist, SavedRoom};
use serde::de::IgnoredAny;

const NODE: NodeId = NodeId::new(0);

fn assert_json(text: &str) {
    assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "no JSON: {text}");
}

fn settings() -> RoomSettings {
    RoomSettings {
        tick: Duration::from_secs(15),
        heartbeat_timeout: Duration::from_secs(15),
        restore_grace: Duration::from_secs(30),
        members: 3,
        members_per_identity: 0,
        members_per_network: 0,
        user_bytes: 2048,
        ai_starts_per_minute: 2,
        moderators: ModeratorDefault::First,
        rules: satsuma::room::rules::RoomRules::default(),
        chat: HistoryLimits::default(),
        assistant: None,
        watch: satsuma::room::watch::WatchSettings::default(),
        files: false,
    }
}

/// All messages of the room are JSON, and its persisted state can be restored.
pub fn room(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let now = Instant::now();
    let mut room = Room::new(settings(), now);
    let mut saved = None;
    for (number, id) in (0..).zip(["a", "b"]) {
        let join = Join {
            connection: ConnectionId::new(NODE, number),
            user: UserId::parse(id).expect("an id"),
            identity: IdentityId::new(format!("cookie:{id}")),
            name: Arc::from("\"\\ \u{2028}"),
            grants: Grants::everyone(),
            network: None,
            new_meeting: MeetingId::random(),
            presence: false,
            liveness: Liveness::Heartbeat,
            password: None,
        };
        heed(&room.handle(now, Input::Join(join)), &mut saved);
    }
    for (number, line) in (0..).zip(text.split('\n')) {
        let connection = ConnectionId::new(NODE, number % 2);
        let input = match ClientMessage::parse(line, MessageLimits::default()) {
            Ok(message) => Input::Message { connection, at: number, message },
            Err(why) => Input::Rejected { connection, why: why.to_string() },
        };
        heed(&room.handle(now, input), &mut saved);
        assert_json(&room.encode_snapshot());
    }
    if let (Some(saved), Some(meeting)) = (saved, room.meeting()) {
        let saved = SavedRoom { meeting, ..saved };
        let restored = Room::restore(settings(), now, &saved);
        assert_eq!(restored.members().len(), saved.members.len());
        assert_json(&restored.encode_snapshot());
    }
}

fn heed(effects: &[Effect], saved: &mut Option<SavedRoom>) {
    for effect in effects {
        match effect {
            Effect::Send { event, .. } => assert_json(&event.encode()),
            Effect::Persist { meeting, change } => {
                let saved = saved.get_or_insert_with(|| SavedRoom {
                    room: satsuma::id::RoomName::parse("r").expect("a name"),
                    meeting: *meeting,
                    ai: None,
                    moderation: None,
                    watch: None,
                    chat: Vec::new(),
                    members: Vec::new(),
                    departed: Vec::new(),
                    unconfirmed: Vec::new(),
                    journal: None,
                });
                match change {
                    Persist::Member(seat) => {
                        saved.members.retain(|other| other.user != seat.user);
                        saved.members.push(seat.clone());
                    }
                    Persist::MemberRemoved { user } => saved.members.retain(|seat| seat.user != *user),
                    Persist::Ai { json } => {
                        assert_json(json);
                        saved.ai = Some(json.clone());
                    }
                    Persist::Moderation { json } => {
                        assert_json(json);
                        saved.moderation = Some(json.clone());
                    }
                    Persist::Watch { json } => {
                        assert_json(json);
                        saved.watch = (&**json != "null").then(|| json.clone());
                    }
                    Persist::ChatMessage { id, json, first } => {
                        assert_json(json);
                        saved.chat.push((*id, json.clone()));
                        saved.chat.retain(|(id, _)| id >= first);
                    }
                    Persist::ChatForgotten { first } => saved.chat.retain(|(id, _)| id >= first),
                    Persist::Departed { .. } | Persist::DepartedForgotten { .. } => {}
                    Persist::MeetingStarted
                    | Persist::Peak { .. }
                    | Persist::MeetingEnded
                    | Persist::MovedAway
                    | Persist::Journal(_) => {}
                }
            }
            _ => {}
        }
    }
}
