//! The id of a node.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A process of the server: random at each start, so that a restarted process is another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(u32);

impl NodeId {
    /// Creates a random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4().as_fields().0)
    }

    /// The id of these bits.
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits of the id.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}
