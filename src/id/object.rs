//! Ids of durable objects.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// An object's id: 1 to 128 characters, without `/` and control characters.
///
/// Source: durable objects API section 7.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ObjectId(Arc<str>);

impl ObjectId {
    /// Maximum length in characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 128;

    /// Validates `id`, which is already percent-decoded.
    ///
    /// # Errors
    /// [`InvalidObjectId`] if it is empty, too long, or contains a `/` or a control character.
    pub fn parse(id: &str) -> Result<Self, InvalidObjectId> {
        let is_short = id.len() <= 4 * Self::MAX_CHARS && id.chars().count() <= Self::MAX_CHARS;
        let is_plain = |char: char| char != '/' && !char.is_control();
        let is_valid = !id.is_empty() && is_short && id.chars().all(is_plain);
        if is_valid { Ok(Self(id.into())) } else { Err(InvalidObjectId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// An invalid id of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object's id has 1 to 128 characters and no slash or control characters")]
pub struct InvalidObjectId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_id_is_validated() {
        for good in ["a", "__proto__", "a b", "room:1", "%2F", &"🍊".repeat(128)] {
            assert_eq!(ObjectId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a\u{0}b", "a\u{85}b", "\n", &"a".repeat(129)] {
            assert_eq!(ObjectId::parse(bad), Err(InvalidObjectId), "{bad:?}");
        }
    }
}
