//! Identifiers: newtypes whose constructors validate, so that an invalid one cannot exist.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A session of the media API: 1 to 64 of `[A-Za-z0-9_-]`, not `new`. Cloudflare's are 32 hex digits.
///
/// It becomes a part of paths and of a cookie's name, hence the restricted characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Validates an id from a client or the media API.
    ///
    /// # Errors
    /// [`InvalidSessionId`] if it is empty, too long, the path `new`, or contains another character.
    pub fn parse(id: &str) -> Result<Self, InvalidSessionId> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let is_valid = (1..=64).contains(&id.len()) && id.bytes().all(is_allowed) && id != "new";
        if is_valid { Ok(Self(id.into())) } else { Err(InvalidSessionId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An invalid [`SessionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id has 1 to 64 of the characters A-Z, a-z, 0-9, _ and -, and is not \"new\"")]
pub struct InvalidSessionId;

/// The id of a person, as the embedding server authenticated it. Limits per owner belong to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PersonId(Arc<str>);

impl PersonId {
    /// Wraps an authenticated id.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! show_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )*};
}
show_as_text!(SessionId, PersonId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_accepts_tokens_only() {
        for good in ["a", "0123456789abcdef0123456789abcdef", "New", "_-", &"x".repeat(64)] {
            assert_eq!(SessionId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "new", "a/b", "a.b", "é", "a b", &"x".repeat(65)] {
            assert_eq!(SessionId::parse(bad), Err(InvalidSessionId), "{bad:?}");
        }
    }
}
