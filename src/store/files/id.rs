//! Ids of shared files.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::NodeId;

/// Random bytes of an id, and the bytes of the node before them.
const ID_BYTES: usize = 16;
const NODE_BYTES: usize = 4;

/// The id of a file: random, so that nobody finds it who was not told. On one of several nodes it begins with the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId(String);

impl FileId {
    /// A new id of a file at a node, if there are several.
    ///
    /// # Errors
    /// The operating system's, if it has no random bytes.
    pub(super) fn random(node: Option<NodeId>) -> io::Result<Self> {
        let mut bytes = [0; ID_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        let node = node.map(|node| node.bits().to_be_bytes());
        Ok(Self(URL_SAFE_NO_PAD.encode([node.as_ref().map_or(&[][..], |node| node), &bytes].concat())))
    }

    /// Reads an id; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        [ID_BYTES, NODE_BYTES + ID_BYTES].contains(&bytes.len()).then(|| Self(text.to_owned()))
    }

    /// The node that received the file; none for a file of a single one.
    pub fn node(&self) -> Option<NodeId> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).ok()?;
        let node = bytes.first_chunk().filter(|_| bytes.len() > ID_BYTES)?;
        Some(NodeId::new(u32::from_be_bytes(*node)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for FileId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FileId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not the id of a file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_no_paths() {
        for node in [None, Some(NodeId::new(0xfbff_fe7f))] {
            let id = FileId::random(node).unwrap();
            assert_eq!(FileId::parse(id.as_str()).unwrap().node(), node);
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(serde_json::from_str::<FileId>(&json).unwrap(), id);
        }
        for text in
            ["", "..", "../../../../etc/pass", "AAAAAAAAAAAAAAAAAAAA/A", "AAAAAAAAAAAAAAAAAAAAAA.json"]
        {
            assert_eq!(FileId::parse(text), None, "{text}");
            serde_json::from_value::<FileId>(text.into()).unwrap_err();
        }
    }
}
