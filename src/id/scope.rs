//! The rooms that an identity may enter.

use std::fmt;
use std::sync::Arc;

use super::{InvalidId, RoomName};

/// The rooms that an identity may enter, as a token writes them: a room's name, or the beginning of names and `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomScope {
    /// One room.
    Room(RoomName),
    /// All rooms whose names begin with this text; all rooms, if it is empty.
    Prefix(Arc<str>),
}

impl RoomScope {
    /// All rooms.
    pub fn any() -> Self {
        Self::Prefix("".into())
    }

    /// Parses the text of a token.
    ///
    /// # Errors
    /// [`InvalidId`] if it is neither the beginning of a room's name and `*`, nor a room's name.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match text.strip_suffix('*') {
            Some("") => Ok(Self::any()),
            Some(prefix) => Ok(Self::Prefix(RoomName::parse(prefix)?.0)),
            None => RoomName::parse(text).map(Self::Room),
        }
    }

    /// True if the room is one of them.
    pub fn admits(&self, room: &RoomName) -> bool {
        match self {
            Self::Room(only) => only == room,
            Self::Prefix(prefix) => room.as_str().starts_with(&**prefix),
        }
    }
}

impl fmt::Display for RoomScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(room) => room.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_admits_its_rooms_alone() {
        for (scope, admitted, others) in [
            ("standup", ["standup"].as_slice(), ["standup2", "Standup", "x"].as_slice()),
            ("team-*", &["team-a", "team-"], &["team", "xteam-a"]),
            ("*", &["a", "team-a"], &[]),
        ] {
            let scope = RoomScope::parse(scope).unwrap();
            assert_eq!(RoomScope::parse(&scope.to_string()), Ok(scope.clone()));
            let admits = |name: &&str| scope.admits(&RoomName::parse(name).unwrap());
            assert!(admitted.iter().all(admits) && !others.iter().any(admits), "{scope}");
        }
        // Two spellings of one text.
        let scope = RoomScope::parse("cafe\u{301}*").unwrap();
        assert!(scope.admits(&RoomName::parse("caf\u{e9}-1").unwrap()));
        for text in ["", "\u{7}", "\u{202e}*"] {
            assert_eq!(RoomScope::parse(text), Err(InvalidId::RoomName), "{text:?}");
        }
    }
}
