//! The user object, in the form that clients send and snapshots list.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::id::{AuthMethod, MediaKind};

/// Maximum nesting of an unknown field. Many clients' parsers recurse and would fail on the whole snapshot.
const MAX_DEPTH: usize = 100;

/// A member as snapshots list it. Unknown fields are kept as text.
///
/// A known field of a wrong type is rejected, because the stock client would break on it for
/// everyone; a missing known field takes the default of a fresh user.
/// Source: protocol section 2.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The id that the client claimed; a value sent by the client is ignored.
    pub id: String,
    /// The name of the identity; a value sent by the client is ignored.
    pub name: String,
    /// The authentication method of the name, if stronger than our own cookie. A value sent by the
    /// client is ignored and not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<AuthMethod>,
    /// The media session of the member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transceiver_session_id: Option<String>,
    /// True while the member's hand is raised.
    pub raised_hand: bool,
    /// True while the member's microphone picks up speech.
    pub speaking: bool,
    /// True once the member has left the lobby.
    pub joined: bool,
    /// The member's published tracks.
    pub tracks: Tracks,
    /// Unknown fields.
    #[serde(flatten)]
    pub other: Unknown,
}

/// A member's published tracks, each named `{session id}/{track name}`.
///
/// Source: protocol section 2.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracks {
    /// The microphone's track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<String>,
    /// True while the microphone is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_enabled: Option<bool>,
    /// True if the member has no usable microphone.
    pub audio_unavailable: bool,
    /// The camera's track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<String>,
    /// True while the camera is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_enabled: Option<bool>,
    /// The screen share's track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screenshare: Option<String>,
    /// True while the screen is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screen_share_enabled: Option<bool>,
    /// Unknown fields.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Tracks {
    /// True if the member says that it sends this kind of media.
    pub fn is_on(&self, kind: MediaKind) -> bool {
        let enabled = match kind {
            MediaKind::Audio => self.audio_enabled,
            MediaKind::Video => self.video_enabled,
            MediaKind::Screen => self.screen_share_enabled,
        };
        enabled == Some(true)
    }

    /// Marks a kind of media as switched off; true if it was on.
    pub fn switch_off(&mut self, kind: MediaKind) -> bool {
        let was_on = self.is_on(kind);
        match kind {
            MediaKind::Audio => self.audio_enabled = Some(false),
            MediaKind::Video => self.video_enabled = Some(false),
            MediaKind::Screen => self.screen_share_enabled = Some(false),
        }
        was_on
    }

    /// Removes the track of a kind that the member may not publish.
    pub fn withdraw(&mut self, kind: MediaKind) {
        self.switch_off(kind);
        match kind {
            MediaKind::Audio => self.audio = None,
            MediaKind::Video => self.video = None,
            MediaKind::Screen => self.screenshare = None,
        }
    }
}

/// Unknown fields, each kept as the JSON text that the client sent.
///
/// A tree of values would take a hundred times the memory of its text.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Unknown(BTreeMap<String, Box<RawValue>>);

impl Unknown {
    /// True if the client sent only known fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes a field, if it is there.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// True if the field `name` is the value `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() == "true")
    }

    /// Stores the value of the field `name`; of a repeated field the last value counts.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: Cow<'de, str>, fields: &mut A) -> Result<(), A::Error> {
        // Owned because the keys are kept; the deserializer of borrowed text yields the raw value unchanged.
        let value: Box<RawValue> = fields.next_value()?;
        if !is_shallow(value.get()) {
            return Err(A::Error::custom("a field is nested too deeply"));
        }
        self.0.insert(name.into_owned(), value);
        Ok(())
    }
}

/// True if valid JSON nests at most [`MAX_DEPTH`] arrays and objects.
fn is_shallow(json: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    json.bytes().all(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth <= MAX_DEPTH
    })
}

/// A field's name, borrowed if it has no escapes.
#[derive(Deserialize)]
struct FieldName<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a known field and rejects a duplicate.
fn once<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    field: &mut Option<T>,
    name: &'static str,
    fields: &mut A,
) -> Result<(), A::Error> {
    if field.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *field = Some(fields.next_value()?);
    Ok(())
}

// Written by hand because a derived `flatten` first reads the unknown fields into trees of values.
impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = User;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a user object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<User, A::Error> {
                let (mut id, mut name, mut session, mut tracks) = (None, None, None, None);
                let (mut raised_hand, mut speaking, mut joined) = (None, None, None);
                let mut other = Unknown::default();
                while let Some(FieldName(field)) = fields.next_key()? {
                    match &*field {
                        "id" => once(&mut id, "id", &mut fields)?,
                        "name" => once(&mut name, "name", &mut fields)?,
                        "authMethod" => drop(fields.next_value::<IgnoredAny>()?),
                        "transceiverSessionId" => once(&mut session, "transceiverSessionId", &mut fields)?,
                        "raisedHand" => once(&mut raised_hand, "raisedHand", &mut fields)?,
                        "speaking" => once(&mut speaking, "speaking", &mut fields)?,
                        "joined" => once(&mut joined, "joined", &mut fields)?,
                        "tracks" => once(&mut tracks, "tracks", &mut fields)?,
                        _ => other.take(field, &mut fields)?,
                    }
                }
                Ok(User {
                    id: id.unwrap_or_default(),
                    name: name.unwrap_or_default(),
                    auth_method: None,
                    transceiver_session_id: session.flatten(),
                    raised_hand: raised_hand.unwrap_or_default(),
                    speaking: speaking.unwrap_or_default(),
                    joined: joined.unwrap_or_default(),
                    tracks: tracks.unwrap_or_default(),
                    other,
                })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Tracks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Tracks;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tracks")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tracks, A::Error> {
                let (mut audio, mut audio_enabled, mut audio_unavailable) = (None, None, None);
                let (mut video, mut video_enabled) = (None, None);
                let (mut screenshare, mut screen_share_enabled) = (None, None);
                let mut other = Unknown::default();
                while let Some(FieldName(field)) = fields.next_key()? {
                    match &*field {
                        "audio" => once(&mut audio, "audio", &mut fields)?,
                        "audioEnabled" => once(&mut audio_enabled, "audioEnabled", &mut fields)?,
                        "audioUnavailable" => once(&mut audio_unavailable, "audioUnavailable", &mut fields)?,
                        "video" => once(&mut video, "video", &mut fields)?,
                        "videoEnabled" => once(&mut video_enabled, "videoEnabled", &mut fields)?,
                        "screenshare" => once(&mut screenshare, "screenshare", &mut fields)?,
                        "screenShareEnabled" => {
                            once(&mut screen_share_enabled, "screenShareEnabled", &mut fields)?;
                        }
                        _ => other.take(field, &mut fields)?,
                    }
                }
                Ok(Tracks {
                    audio: audio.flatten(),
                    audio_enabled: audio_enabled.flatten(),
                    audio_unavailable: audio_unavailable.unwrap_or_default(),
                    video: video.flatten(),
                    video_enabled: video_enabled.flatten(),
                    screenshare: screenshare.flatten(),
                    screen_share_enabled: screen_share_enabled.flatten(),
                    other,
                })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl User {
    /// The user object of a member that has sent nothing yet.
    pub fn fresh(id: &str, name: &str) -> Self {
        let tracks = Tracks {
            audio_enabled: Some(false),
            video_enabled: Some(false),
            screen_share_enabled: Some(false),
            ..Tracks::default()
        };
        Self { id: id.to_owned(), name: name.to_owned(), tracks, ..Self::default() }
    }

    /// Encodes the object as JSON text for a snapshot.
    #[expect(clippy::expect_used, reason = "maps with text keys and no foreign types always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a user is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_user_is_encoded_byte_for_byte() {
        assert_eq!(
            User::fresh("a-1", "Ada \"A\"").to_json(),
            r#"{"id":"a-1","name":"Ada \"A\"","raisedHand":false,"speaking":false,"joined":false,"tracks":{"audioEnabled":false,"audioUnavailable":false,"videoEnabled":false,"screenShareEnabled":false}}"#
        );
    }

    #[test]
    fn unknown_fields_are_kept_at_both_levels() {
        let text = r#"{"id":"a","name":"A","raisedHand":true,"speaking":false,"joined":true,"tracks":{"audioUnavailable":false,"hd":[1,2.5]},"extra":{"k":[1,{"z":null}]}}"#;
        let user: User = serde_json::from_str(text).unwrap();
        assert_eq!(user.to_json(), text);
    }

    #[test]
    fn known_field_of_wrong_type_is_refused() {
        for text in [
            r#"{"tracks":"none"}"#,
            r#"{"tracks":null}"#,
            r#"{"raisedHand":"yes"}"#,
            r#"{"tracks":{"audio":7}}"#,
            r#"[]"#,
            r#"{"joined":true,"joined":false}"#,
            r#"{"tracks":{"audio":"a","audio":"b"}}"#,
        ] {
            assert!(serde_json::from_str::<User>(text).is_err(), "{text}");
        }
    }

    /// As a tree, such a field took a hundred times the memory of its text, before any limit applied.
    #[test]
    fn unknown_field_keeps_its_text() {
        let text = r#"{"x":[{"a": 0}, 1e2,"\u0041\ud800"]}"#;
        let user: User = serde_json::from_str(text).unwrap();
        assert!(user.to_json().ends_with(r#""x":[{"a": 0}, 1e2,"\u0041\ud800"]}"#), "{}", user.to_json());
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            serde_json::from_str::<User>(&format!(r#"{{"x":{open}"[[\\\"[["{close},"tracks":{{"y":1}}}}"#))
        };
        assert!(nested(MAX_DEPTH).is_ok());
        assert!(nested(MAX_DEPTH + 1).is_err());
        assert!(nested(100_000).is_err());
    }

    #[test]
    fn absent_optional_field_is_not_encoded() {
        let user: User =
            serde_json::from_str(r#"{"transceiverSessionId":null,"tracks":{"audio":null}}"#).unwrap();
        assert!(!user.to_json().contains("null"), "{}", user.to_json());
    }
}
