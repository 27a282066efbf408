//! The settings of a room: those of a meeting, and those that are set by name and outlast it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// The settings of a room. The default is a room that is open to everyone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoomRules {
    /// True if nobody new comes in.
    pub locked: bool,
    /// True if a moderator has to let people in.
    pub waiting_room: bool,
    /// True if everyone may write to the chat; moderators always may.
    pub chat: bool,
    /// True if everyone may share a screen; moderators always may.
    pub screens: bool,
    /// True if everyone may share and control videos; moderators always may.
    pub videos: bool,
    /// True if everyone may share files, and false if moderators alone may; as the server's settings say, if it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<bool>,
    /// True if the chat is remembered for those who join later; as the server's settings say, if it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_history: Option<bool>,
    /// The Argon2id hash of the password, in PHC string format, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Arc<str>>,
}

/// A change of a room's settings; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RulesChange {
    /// See [`RoomRules::locked`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// See [`RoomRules::waiting_room`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_room: Option<bool>,
    /// See [`RoomRules::chat`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<bool>,
    /// See [`RoomRules::screens`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screens: Option<bool>,
    /// See [`RoomRules::videos`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub videos: Option<bool>,
    /// See [`RoomRules::files`].
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub files: Option<Option<bool>>,
    /// See [`RoomRules::chat_history`].
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub chat_history: Option<Option<bool>>,
    /// See [`RoomRules::password`].
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub password: Option<Option<Arc<str>>>,
}

/// A field that is there, even if it is `null`.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

impl Default for RoomRules {
    fn default() -> Self {
        Self {
            locked: false,
            waiting_room: false,
            chat: true,
            screens: true,
            videos: true,
            files: None,
            chat_history: None,
            password: None,
        }
    }
}

impl RoomRules {
    /// True if not everyone may come in.
    pub fn is_closed(&self) -> bool {
        self.locked || self.waiting_room || self.password.is_some()
    }

    /// Carries out a change; true if it was one.
    pub fn apply(&mut self, change: &RulesChange) -> bool {
        let before = self.clone();
        let RulesChange { locked, waiting_room, chat, screens, videos, files, chat_history, password } =
            change;
        self.locked = locked.unwrap_or(self.locked);
        self.waiting_room = waiting_room.unwrap_or(self.waiting_room);
        self.chat = chat.unwrap_or(self.chat);
        self.screens = screens.unwrap_or(self.screens);
        self.videos = videos.unwrap_or(self.videos);
        self.files = files.unwrap_or(self.files);
        self.chat_history = chat_history.unwrap_or(self.chat_history);
        if let Some(password) = password {
            self.password.clone_from(password);
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_keeps_what_it_does_not_name() {
        let mut rules = RoomRules { password: Some("hash".into()), ..RoomRules::default() };
        let change = RulesChange { chat: Some(false), ..RulesChange::default() };
        assert!(rules.apply(&change) && !rules.apply(&change));
        assert_eq!(rules, RoomRules { chat: false, password: Some("hash".into()), ..RoomRules::default() });
        assert!(rules.apply(&RulesChange {
            password: Some(None),
            chat: Some(true),
            ..RulesChange::default()
        }));
        assert_eq!(rules, RoomRules::default());
    }

    #[test]
    fn missing_field_is_as_by_default() {
        assert_eq!(serde_json::from_str::<RoomRules>("{}").unwrap(), RoomRules::default());
        let rules = RoomRules { locked: true, screens: false, ..RoomRules::default() };
        let json = serde_json::to_string(&rules).unwrap();
        assert_eq!(json, r#"{"locked":true,"waitingRoom":false,"chat":true,"screens":false,"videos":true}"#);
        assert_eq!(serde_json::from_str::<RoomRules>(&json).unwrap(), rules);
        let rules = RoomRules { chat_history: Some(false), ..RoomRules::default() };
        let json = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<RoomRules>(&json).unwrap(), rules);
    }
}
