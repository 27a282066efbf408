//! The user object, as clients send it and everyone sees it.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::id::AuthMethod;

/// A member as everyone sees it. Fields that this server does not know are kept.
///
/// A known field of another type than its own is refused, because the stock client would break
/// on it for everyone; a known field that is missing takes its default, as a fresh user has it.
/// Source: protocol section 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// The id that the client claimed. What a client writes here is never believed.
    pub id: String,
    /// The name of the identity. What a client writes here is never believed.
    pub name: String,
    /// The way in which the name was proven, where that is more than our own cookie. What a client
    /// writes here is never believed, nor kept.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "not_believed")]
    pub auth_method: Option<AuthMethod>,
    /// The media session of the member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transceiver_session_id: Option<String>,
    /// Whether the member's hand is up.
    pub raised_hand: bool,
    /// Whether the member's microphone hears somebody.
    pub speaking: bool,
    /// Whether the member has left the lobby.
    pub joined: bool,
    /// What the member sends.
    pub tracks: Tracks,
    /// Everything else that the client sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a member sends; a track is named `{session id}/{track name}`.
///
/// Source: protocol section 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracks {
    /// The microphone's track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<String>,
    /// Whether the microphone is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_enabled: Option<bool>,
    /// Whether the member has no microphone that could be switched on.
    pub audio_unavailable: bool,
    /// The camera's track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<String>,
    /// Whether the camera is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_enabled: Option<bool>,
    /// The shared screen's track.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screenshare: Option<String>,
    /// Whether the screen is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screen_share_enabled: Option<bool>,
    /// Everything else that the client sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn not_believed<'de, D: Deserializer<'de>>(said: D) -> Result<Option<AuthMethod>, D::Error> {
    IgnoredAny::deserialize(said).map(|_| None)
}

impl User {
    /// A member who has just come and said nothing yet.
    pub fn fresh(id: &str, name: &str) -> Self {
        let tracks = Tracks {
            audio_enabled: Some(false),
            video_enabled: Some(false),
            screen_share_enabled: Some(false),
            ..Tracks::default()
        };
        Self { id: id.to_owned(), name: name.to_owned(), tracks, ..Self::default() }
    }

    /// The object as JSON text, as it stands in a snapshot.
    #[expect(clippy::expect_used, reason = "maps with text keys and no foreign types always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a user is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_user_is_encoded_byte_for_byte() {
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
    fn a_known_field_of_another_type_is_refused() {
        for text in [
            r#"{"tracks":"none"}"#,
            r#"{"tracks":null}"#,
            r#"{"raisedHand":"yes"}"#,
            r#"{"tracks":{"audio":7}}"#,
            r#"[]"#,
            r#"{"joined":true,"joined":false}"#,
        ] {
            assert!(serde_json::from_str::<User>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn absent_optional_fields_never_become_null() {
        let user: User =
            serde_json::from_str(r#"{"transceiverSessionId":null,"tracks":{"audio":null}}"#).unwrap();
        assert!(!user.to_json().contains("null"), "{}", user.to_json());
    }
}
