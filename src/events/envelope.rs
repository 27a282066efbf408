//! **Pure**: events as JSON, the same for every destination. `docs/events.md` describes them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::value::RawValue;

use super::member::{EventMember, EventTrack};
use crate::id::{EventId, IdentityId, MeetingId, ReportId, RoomName, UserId};
use crate::store::events::NewEvent;

/// An event before it is encoded.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Its id, the same at every destination and in every attempt.
    pub id: EventId,
    /// Its time.
    pub time: SystemTime,
    /// The room, if it is of one.
    pub room: Option<RoomName>,
    /// The meeting and the event's number in it, if it is of one.
    pub meeting: Option<(MeetingId, u64)>,
    /// Its contents.
    pub data: EventData,
}

/// The contents of an event.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum EventData {
    /// A first member joined an empty room.
    MeetingStarted {},
    /// A meeting ended, and with it all memberships and tracks that no event ended before.
    MeetingEnded {
        /// The reason.
        reason: MeetingEnd,
    },
    /// Somebody became a member.
    MemberJoined {
        /// The member.
        member: EventMember,
        /// The authenticated identity.
        identity: String,
    },
    /// A member left or was removed.
    MemberLeft {
        /// The member's last state.
        member: EventMember,
        /// The reason.
        reason: &'static str,
    },
    /// A member's state has changed.
    MemberUpdated {
        /// The member's new state.
        member: EventMember,
    },
    /// A member raised its hand.
    HandRaised {
        /// The member.
        member: EventMember,
    },
    /// A member lowered its hand.
    HandLowered {
        /// The member.
        member: EventMember,
    },
    /// A member published a track.
    TrackPublished {
        /// The member.
        member: EventMember,
        /// The track.
        track: EventTrack,
    },
    /// A member's track is gone.
    TrackUnpublished {
        /// The member.
        member: EventMember,
        /// The track.
        track: EventTrack,
    },
    /// A chat message.
    ChatMessage {
        /// The message's number in the room.
        id: u64,
        /// The author.
        from: ChatAuthor,
        /// The text.
        message: Box<RawValue>,
    },
    /// A moderator acted.
    Moderated {
        /// The action's name.
        action: Cow<'static, str>,
        /// The state that it switched something to; none for an action that is no switch.
        on: Option<bool>,
        /// The member who acted; none for an operator.
        by: Option<UserId>,
        /// The member that it was about, if it was about one.
        target: Option<UserId>,
    },
    /// A user sent a report.
    ReportCreated {
        /// The report.
        report: EventReport,
    },
    /// Events are missing here.
    EventsLost {
        /// Their number, if it is known.
        lost: Option<u64>,
    },
    /// An operator tries a webhook.
    WebhookTest {},
}

/// Reason for the end of a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MeetingEnd {
    /// Nobody is left.
    Empty,
    /// The room failed by a fault of the server.
    Failed,
    /// The server was killed before it had stored the meeting.
    Interrupted,
}

/// The author of a chat message.
#[derive(Clone, Debug, Serialize)]
pub struct ChatAuthor {
    /// Its id in the room.
    pub id: UserId,
    /// Its name at the time of writing.
    pub name: Arc<str>,
}

/// A report in an event.
#[derive(Clone, Debug, Serialize)]
pub struct EventReport {
    /// Its id, by which operators read it.
    pub id: ReportId,
    /// Its kind.
    pub kind: &'static str,
    /// The verified name of the reporter.
    pub name: Arc<str>,
}

impl EventData {
    /// The type of the event.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::MeetingStarted {} => "meeting.started",
            Self::MeetingEnded { .. } => "meeting.ended",
            Self::MemberJoined { .. } => "member.joined",
            Self::MemberLeft { .. } => "member.left",
            Self::MemberUpdated { .. } => "member.updated",
            Self::HandRaised { .. } => "hand.raised",
            Self::HandLowered { .. } => "hand.lowered",
            Self::TrackPublished { .. } => "track.published",
            Self::TrackUnpublished { .. } => "track.unpublished",
            Self::ChatMessage { .. } => "chat.message",
            Self::Moderated { .. } => "moderation.action",
            Self::ReportCreated { .. } => "report.created",
            Self::EventsLost { .. } => "events.lost",
            Self::WebhookTest {} => "webhook.test",
        }
    }

    /// The part of its place in a journal that the event is: several may be told of one.
    pub fn part(&self) -> Cow<'static, str> {
        match self {
            Self::TrackPublished { track, .. } | Self::TrackUnpublished { track, .. } => {
                format!("{} {:?}", self.kind(), track.kind).into()
            }
            _ => self.kind().into(),
        }
    }

    /// The contents of the event for a new member.
    pub fn joined(json: &str, identity: &IdentityId) -> Self {
        Self::MemberJoined { member: EventMember::read(json), identity: identity.to_string() }
    }
}

impl Envelope {
    /// Encodes the event.
    #[expect(clippy::expect_used, reason = "texts, numbers and maps with text keys always serialize")]
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Wire<'e> {
            id: String,
            r#type: &'static str,
            time: String,
            room: Option<&'e RoomName>,
            meeting: Option<MeetingId>,
            seq: Option<u64>,
            data: &'e EventData,
        }
        let wire = Wire {
            id: self.id.to_string(),
            r#type: self.data.kind(),
            time: humantime::format_rfc3339_millis(self.time).to_string(),
            room: self.room.as_ref(),
            meeting: self.meeting.map(|(meeting, _)| meeting),
            seq: self.meeting.map(|(_, number)| number),
            data: &self.data,
        };
        serde_json::to_string(&wire).expect("an event is plain data")
    }
}

/// The event as it is written, for no stream and no destination yet.
impl From<&Envelope> for NewEvent {
    fn from(event: &Envelope) -> Self {
        Self {
            id: event.id,
            time: event.time,
            kind: event.data.kind(),
            room: event.room.clone(),
            meeting: event.meeting.map(|(meeting, _)| meeting),
            body: event.encode().into(),
            place: None,
            destinations: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::Value;

    use super::*;
    use crate::config::EVENT_TYPES;

    /// One of each kind, as in the documentation.
    fn samples() -> Vec<EventData> {
        let json = r#"{"id":"u1","name":"Ada","joined":true,"raisedHand":true,"tracks":{"audio":"9a1/mic","audioEnabled":true}}"#;
        let member = || EventMember::read(json);
        let track = || member().published().next().unwrap();
        let from = ChatAuthor { id: UserId::parse("u1").unwrap(), name: "Ada".into() };
        let message = RawValue::from_string(r#""Hello""#.to_owned()).unwrap();
        let id = ReportId::parse("5f0c3a4e-6a0e-4d0e-9a55-0d3d3c7f9f10").unwrap();
        vec![
            EventData::MeetingStarted {},
            EventData::MeetingEnded { reason: MeetingEnd::Empty },
            EventData::joined(json, &IdentityId::new("cookie:7c1e")),
            EventData::MemberLeft { member: member(), reason: "user_left" },
            EventData::MemberUpdated { member: member() },
            EventData::HandRaised { member: member() },
            EventData::HandLowered { member: member() },
            EventData::TrackPublished { member: member(), track: track() },
            EventData::TrackUnpublished { member: member(), track: track() },
            EventData::ChatMessage { id: 1, from, message },
            EventData::Moderated {
                action: "remove".into(),
                on: None,
                by: None,
                target: UserId::parse("u2").ok(),
            },
            EventData::ReportCreated { report: EventReport { id, kind: "bug", name: "Ada".into() } },
            EventData::EventsLost { lost: Some(3) },
            EventData::WebhookTest {},
        ]
    }

    fn envelope(data: EventData) -> Envelope {
        Envelope {
            id: EventId::parse("evt_2f1c3a4e-6a0e-4d0e-9a55-0d3d3c7f9f10").unwrap(),
            time: UNIX_EPOCH + Duration::from_millis(1_780_000_000_123),
            room: Some(RoomName::parse("standup").unwrap()),
            meeting: Some((MeetingId::parse("0b9a1a52-8f0f-4c39-8e7b-3c1f1d8f2b11").unwrap(), 7)),
            data,
        }
    }

    #[test]
    fn event_is_encoded_byte_for_byte() {
        let json = envelope(EventData::MeetingEnded { reason: MeetingEnd::Interrupted }).encode();
        assert_eq!(
            json,
            r#"{"id":"evt_2f1c3a4e-6a0e-4d0e-9a55-0d3d3c7f9f10","type":"meeting.ended","time":"2026-05-28T20:26:40.123Z","room":"standup","meeting":"0b9a1a52-8f0f-4c39-8e7b-3c1f1d8f2b11","seq":7,"data":{"reason":"interrupted"}}"#
        );
        let outside = Envelope { room: None, meeting: None, ..envelope(EventData::WebhookTest {}) };
        assert!(outside.encode().ends_with(r#""room":null,"meeting":null,"seq":null,"data":{}}"#));
    }

    #[test]
    fn every_type_can_be_chosen() {
        let special = BTreeSet::from(["events.lost", "webhook.test"]);
        let kinds: BTreeSet<_> = samples().iter().map(EventData::kind).collect();
        let chosen: BTreeSet<_> = EVENT_TYPES.into();
        assert_eq!(kinds.difference(&special).copied().collect::<BTreeSet<_>>(), chosen);
    }

    /// The JSON schema in the documentation, as far as it is used there.
    fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str() {
            let target = root.pointer(name.strip_prefix('#').unwrap()).ok_or(name)?;
            return check(root, target, value);
        }
        let is = |kind: &str| match kind {
            "object" => value.is_object(),
            "string" => value.is_string(),
            "integer" => value.is_u64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{other} is no type"),
        };
        let is_valid = match &schema["type"] {
            Value::String(kind) => is(kind),
            Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
            _ => panic!("{schema} has no type"),
        };
        let is_listed = schema["enum"].as_array().is_none_or(|values| values.contains(value));
        if !is_valid || !is_listed {
            return Err(format!("{value} is not {schema}"));
        }
        let (Some(object), Some(known)) = (value.as_object(), schema["properties"].as_object()) else {
            return Ok(());
        };
        for (name, schema) in known {
            check(root, schema, object.get(name).ok_or_else(|| format!("{value} lacks {name}"))?)?;
        }
        let unknown = object.keys().find(|name| !known.contains_key(*name));
        unknown.map_or(Ok(()), |name| Err(format!("{name} is not documented")))
    }

    #[test]
    fn events_match_the_documented_schema() {
        let page = include_str!("../../docs/events.md");
        let schema = page.split("```json schema\n").nth(1).unwrap().split("\n```").next().unwrap();
        let schema: Value = serde_json::from_str(schema).unwrap();
        for data in samples() {
            let kind = data.kind();
            let event: Value = serde_json::from_str(&envelope(data).encode()).unwrap();
            check(&schema, &schema["$defs"]["event"], &event)
                .and_then(|()| check(&schema, &schema["$defs"][kind], &event["data"]))
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        assert_eq!(
            schema["$defs"]["event"]["properties"]["type"]["enum"].as_array().unwrap().len(),
            samples().len()
        );
    }
}
