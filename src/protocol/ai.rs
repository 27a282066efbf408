//! Messages about the AI participant (protocol section 6).

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{InvalidMessage, read};
use crate::id::{SessionId, text_is_valid};

/// Maximum length of a voice's name in characters.
const VOICE_CHARS: usize = 64;

/// Maximum length of instructions in characters; they travel in a URL.
const INSTRUCTIONS_CHARS: usize = 4000;

/// Maximum length of a track's name in characters.
const TRACK_NAME_CHARS: usize = 256;

/// The id of the AI's user object, which no member can have.
pub const AI_ID: &str = "ai";

/// A client's request about the AI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AiMessage {
    /// Adds the AI to the room.
    Enable(AiWish),
    /// Removes the AI from the room.
    Disable,
    /// Makes the AI listen to the sender, on this track.
    RequestControl(TrackReference),
    /// Makes the AI listen to nobody. (The wire spells it `relenquishAiControl`.)
    RelinquishControl,
}

/// Options for an AI session; the model chooses each that is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AiWish {
    /// Name of the AI's voice.
    pub voice: Option<Arc<str>>,
    /// Instructions to the model.
    pub instructions: Option<Arc<str>>,
}

/// Reference to a published track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackReference {
    /// The publisher's session.
    pub session: SessionId,
    /// The track's name within the session.
    pub track_name: Arc<str>,
}

impl AiWish {
    /// Reads the fields of an `enableAi`.
    pub(super) fn read(
        voice: Option<&RawValue>,
        instructions: Option<&RawValue>,
    ) -> Result<Self, InvalidMessage> {
        Ok(Self {
            voice: read_wish("voice", "a text of at most 64 characters, or none", VOICE_CHARS, voice)?,
            instructions: read_wish(
                "instructions",
                "a text of at most 4000 characters, or none",
                INSTRUCTIONS_CHARS,
                instructions,
            )?,
        })
    }
}

impl TrackReference {
    /// Reads the track of a `requestAiControl`.
    pub(super) fn read(track: Option<&RawValue>) -> Result<Self, InvalidMessage> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            session_id: String,
            track_name: String,
        }
        let wrong = InvalidMessage::Field {
            message: "requestAiControl",
            field: "track",
            expected: "an object with the texts \"sessionId\" and \"trackName\"",
        };
        let fields: Option<Fields> = track.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let Fields { session_id, track_name } = fields.ok_or(wrong)?;
        if !text_is_valid(&track_name, TRACK_NAME_CHARS) {
            return Err(wrong);
        }
        let session = SessionId::parse(&session_id).map_err(|_| wrong)?;
        Ok(Self { session, track_name: track_name.into() })
    }
}

/// Reads an optional text; an empty one counts as absent.
fn read_wish(
    field: &'static str,
    expected: &'static str,
    most: usize,
    raw: Option<&RawValue>,
) -> Result<Option<Arc<str>>, InvalidMessage> {
    let Some(raw) = raw else { return Ok(None) };
    let text: String = read("enableAi", field, expected, Some(raw))?;
    if text.chars().count() > most {
        return Err(InvalidMessage::Field { message: "enableAi", field, expected });
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

/// Encodes the AI as a user object, as snapshots list it.
pub fn encode_ai_user(session: &SessionId, track_name: &str) -> String {
    let audio = Value::from(format!("{session}/{track_name}"));
    // A session's id has no character that JSON would escape.
    format!(
        r#"{{"id":"ai","name":"AI","joined":true,"raisedHand":false,"speaking":false,"transceiverSessionId":"{session}","tracks":{{"audioEnabled":true,"audio":{audio},"audioUnavailable":false,"videoEnabled":false,"screenShareEnabled":false}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::{ClientMessage, MessageLimits};
    use crate::protocol::user::User;

    fn parsed(text: &str) -> Result<AiMessage, String> {
        match ClientMessage::parse(text, MessageLimits::default()) {
            Ok(ClientMessage::Ai(message)) => Ok(message),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn enable_options_are_read_and_limited() {
        let wish = |voice: Option<&str>, instructions: Option<&str>| {
            let [voice, instructions] = [voice, instructions].map(|text| text.map(Arc::from));
            Ok(AiMessage::Enable(AiWish { voice, instructions }))
        };
        assert_eq!(parsed(r#"{"type":"enableAi"}"#), wish(None, None));
        assert_eq!(parsed(r#"{"type":"enableAi","voice":null,"instructions":""}"#), wish(None, None));
        assert_eq!(
            parsed(r#"{"type":"enableAi","voice":"alloy","instructions":"Be\nbrief."}"#),
            wish(Some("alloy"), Some("Be\nbrief."))
        );
        let long = "é".repeat(4000);
        let text = format!(r#"{{"type":"enableAi","instructions":"{long}"}}"#);
        assert_eq!(parsed(&text), wish(None, Some(&long)));
        let voice = |voice: &str| parsed(&format!(r#"{{"type":"enableAi","voice":{voice}}}"#)).unwrap_err();
        let wrong = r#"enableAi needs a field "voice" that is a text of at most 64 characters, or none"#;
        assert_eq!(voice("7"), wrong);
        assert_eq!(voice(&format!("{:?}", "x".repeat(65))), wrong);
        assert_eq!(
            parsed(&format!(r#"{{"type":"enableAi","instructions":"{long}é"}}"#)).unwrap_err(),
            r#"enableAi needs a field "instructions" that is a text of at most 4000 characters, or none"#
        );
    }

    #[test]
    fn a_track_is_read_and_checked() {
        let ask = |track: &str| parsed(&format!(r#"{{"type":"requestAiControl","track":{track}}}"#));
        let session = SessionId::parse("s1").unwrap();
        assert_eq!(
            ask(r#"{"sessionId":"s1","trackName":"my mic","mid":"0"}"#),
            Ok(AiMessage::RequestControl(TrackReference { session, track_name: "my mic".into() }))
        );
        for wrong in [
            "null",
            "{}",
            r#"{"sessionId":"s1"}"#,
            r#"{"sessionId":"s1","trackName":7}"#,
            r#"{"sessionId":"s1","trackName":""}"#,
            r#"{"sessionId":"s1","trackName":"a\nb"}"#,
            r#"{"sessionId":"../x","trackName":"a"}"#,
            &format!(r#"{{"sessionId":"s1","trackName":"{}"}}"#, "x".repeat(257)),
        ] {
            assert_eq!(
                ask(wrong).unwrap_err(),
                r#"requestAiControl needs a field "track" that is an object with the texts "sessionId" and "trackName""#,
                "{wrong}"
            );
        }
    }

    #[test]
    fn ai_user_is_encoded_byte_for_byte() {
        let json = encode_ai_user(&SessionId::parse("abc").unwrap(), "a \"voice\"");
        assert_eq!(
            json,
            r#"{"id":"ai","name":"AI","joined":true,"raisedHand":false,"speaking":false,"transceiverSessionId":"abc","tracks":{"audioEnabled":true,"audio":"abc/a \"voice\"","audioUnavailable":false,"videoEnabled":false,"screenShareEnabled":false}}"#
        );
        let user: User = serde_json::from_str(&json).unwrap();
        assert!(user.other.is_empty() && user.tracks.other.is_empty(), "the AI is a user like any other");
    }
}
