//! A change of a room's settings, as it is asked for.

use serde_json::{Map, Value};

use crate::room::passwords::PasswordError;
use crate::room::registry::Registry;
use crate::room::rules::RulesChange;

/// A change of settings, as clients and operators ask for it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ChangeBody {
    locked: Option<bool>,
    waiting_room: Option<bool>,
    chat: Option<bool>,
    screens: Option<bool>,
    videos: Option<bool>,
    /// `null` makes it as the server's settings say.
    files: Option<Option<bool>>,
    /// `null` makes it as the server's settings say.
    chat_history: Option<Option<bool>>,
    /// `null` removes it.
    pub(super) password: Option<Option<String>>,
}

/// The names of all settings of a room.
const SETTINGS: [&str; 8] =
    ["locked", "waitingRoom", "chat", "screens", "videos", "files", "chatHistory", "password"];

impl ChangeBody {
    /// Parses a body.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn read(body: &str) -> Result<Self, String> {
        let fields: Map<String, Value> = serde_json::from_str(body)
            .map_err(|_| "the body is no change of settings: it is to be a JSON object".to_owned())?;
        let mut change = Self::default();
        for (name, value) in fields {
            let switch = match &value {
                Value::Bool(on) => Ok(*on),
                _ => Err(format!("{name:?} is true or false")),
            };
            let or_null = if value.is_null() { Ok(None) } else { switch.clone().map(Some) };
            let or_null =
                or_null.map_err(|error| format!("{error}, or null for what the server's settings say"));
            match &*name {
                "locked" => change.locked = Some(switch?),
                "waitingRoom" => change.waiting_room = Some(switch?),
                "chat" => change.chat = Some(switch?),
                "screens" => change.screens = Some(switch?),
                "videos" => change.videos = Some(switch?),
                "files" => change.files = Some(or_null?),
                "chatHistory" => change.chat_history = Some(or_null?),
                "password" => match value {
                    Value::Null => change.password = Some(None),
                    Value::String(password) => change.password = Some(Some(password)),
                    _ => return Err("\"password\" is a text, or null for none".to_owned()),
                },
                _ => return Err(unknown_setting(&name)),
            }
        }
        Ok(change)
    }

    /// The change, with the password hashed.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hashed(self, registry: &Registry) -> Result<RulesChange, PasswordError> {
        let Self { locked, waiting_room, chat, screens, videos, files, chat_history, password } = self;
        let password = match password {
            Some(Some(password)) => Some(Some(registry.passwords().hash(password).await?)),
            Some(None) => Some(None),
            None => None,
        };
        Ok(RulesChange { locked, waiting_room, chat, screens, videos, files, chat_history, password })
    }
}

/// The sentence about a name that is no setting's.
fn unknown_setting(name: &str) -> String {
    let shown: String = name.chars().take(32).collect();
    let near = SETTINGS.iter().find(|known| {
        let (known, name) = (known.to_lowercase(), shown.to_lowercase().replace(['_', '-'], ""));
        strsim::damerau_levenshtein(&known, &name) < 3
    });
    let hint = near.map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near:?}?"));
    format!("there is no setting {shown:?} of rooms{hint} There are {}", SETTINGS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_tells_null_from_nothing() {
        assert_eq!(ChangeBody::read("{}"), Ok(ChangeBody::default()));
        let removed = ChangeBody { password: Some(None), ..ChangeBody::default() };
        assert_eq!(ChangeBody::read(r#"{"password":null}"#), Ok(removed));
        let set = ChangeBody {
            waiting_room: Some(true),
            password: Some(Some("p".into())),
            ..ChangeBody::default()
        };
        assert_eq!(ChangeBody::read(r#"{"waitingRoom":true,"password":"p"}"#), Ok(set));
        let left = ChangeBody { chat_history: Some(None), ..ChangeBody::default() };
        assert_eq!(ChangeBody::read(r#"{"chatHistory":null}"#), Ok(left));
    }

    #[test]
    fn wrong_setting_is_named() {
        let all = "There are locked, waitingRoom, chat, screens, videos, files, chatHistory, password";
        for (wrong, sentence) in [
            (
                r#"{"wiatingRoom":true}"#,
                format!(r#"there is no setting "wiatingRoom" of rooms; did you mean "waitingRoom"? {all}"#),
            ),
            (
                r#"{"waiting_room":true}"#,
                format!(r#"there is no setting "waiting_room" of rooms; did you mean "waitingRoom"? {all}"#),
            ),
            (r#"{"colour":true}"#, format!(r#"there is no setting "colour" of rooms. {all}"#)),
            (r#"{"locked":1}"#, r#""locked" is true or false"#.to_owned()),
            (r#"{"locked":null}"#, r#""locked" is true or false"#.to_owned()),
            (
                r#"{"files":1}"#,
                r#""files" is true or false, or null for what the server's settings say"#.to_owned(),
            ),
            (r#"{"password":1}"#, r#""password" is a text, or null for none"#.to_owned()),
            ("[]", "the body is no change of settings: it is to be a JSON object".to_owned()),
            ("", "the body is no change of settings: it is to be a JSON object".to_owned()),
        ] {
            assert_eq!(ChangeBody::read(wrong), Err(sentence));
        }
    }
}
