//! Settings that all nodes of a cluster share, and that outlast each of them: those of rooms by name, and revoked tokens.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::rules::RoomRules;
use crate::id::RoomName;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SharedSetting {
    /// The settings of a room by its name; the default for none.
    Rules {
        /// The room.
        room: RoomName,
        /// Its settings.
        rules: RoomRules,
    },
    /// Revoked tokens. The empty text stands for all identities, or all keys.
    Revoked {
        /// The tokens' subject.
        identity: String,
        /// The id of the tokens' key.
        key: String,
        /// The last second of issue, since 1970, of the tokens that it ends.
        at: i64,
    },
}

/// The engine did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine between the nodes does not answer; try again")]
pub struct EngineSilent;

/// Makes the next setting of the one that there is; none if it is to stay. It may be called several times.
pub type Update = Box<dyn Fn(Option<&SharedSetting>) -> Option<SharedSetting> + Send + Sync>;

/// The settings that all nodes share.
pub trait SharedSettings: Debug + Send + Sync {
    /// Changes the setting with a key, and tells all nodes; the one that is in force then.
    fn update(
        &self,
        key: String,
        update: Update,
    ) -> BoxFuture<'static, Result<Option<SharedSetting>, EngineSilent>>;

    /// Reads the setting with a key.
    fn read(&self, key: String) -> BoxFuture<'static, Result<Option<SharedSetting>, EngineSilent>>;

    /// Reads all of them.
    fn all(&self) -> BoxFuture<'static, Result<Vec<SharedSetting>, EngineSilent>>;
}

/// The settings of this node, which follow those of all.
pub trait OwnSettings: Send + Sync {
    /// Takes a setting that is in force.
    fn take(&self, setting: SharedSetting) -> BoxFuture<'static, ()>;

    /// The settings that are stored here.
    fn stored(&self) -> BoxFuture<'static, Vec<SharedSetting>>;
}

impl SharedSetting {
    /// The key of a room's settings.
    pub fn key_of_rules(room: &RoomName) -> String {
        format!("rules {}", room.as_str())
    }

    /// The key under which there is one of these.
    pub fn key(&self) -> String {
        match self {
            Self::Rules { room, .. } => Self::key_of_rules(room),
            // A key's id has no blank.
            Self::Revoked { identity, key, .. } => format!("revoked {key} {identity}"),
        }
    }

    /// The setting in place of another one with its key, if it is to replace that: tokens that are revoked stay so.
    pub fn replacing(self, other: Option<&Self>) -> Option<Self> {
        match (&self, other) {
            (Self::Revoked { at, .. }, Some(Self::Revoked { at: known, .. })) if known >= at => None,
            (_, Some(other)) if *other == self => None,
            _ => Some(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recorded_settings_are_read_and_written() {
        for (recorded, key) in [
            (
                json!({"rules": {"room": "a b", "rules":
                    {"locked": true, "waitingRoom": false, "chat": true, "screens": true, "videos": true}}}),
                "rules a b",
            ),
            (json!({"revoked": {"identity": "ada", "key": "app", "at": 7}}), "revoked app ada"),
        ] {
            let setting: SharedSetting = serde_json::from_value(recorded.clone()).unwrap();
            assert_eq!((serde_json::to_value(&setting).unwrap(), &*setting.key()), (recorded, key));
        }
    }

    #[test]
    fn revocation_is_never_taken_back() {
        let revoked = |at| SharedSetting::Revoked { identity: "ada".into(), key: String::new(), at };
        assert_eq!(revoked(2).replacing(None), Some(revoked(2)));
        assert_eq!(revoked(2).replacing(Some(&revoked(1))), Some(revoked(2)));
        assert_eq!(revoked(2).replacing(Some(&revoked(2))), None);
        assert_eq!(revoked(2).replacing(Some(&revoked(3))), None);
    }
}
