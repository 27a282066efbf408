//! Ownership of named things by nodes that may die at any moment, as values without clock and sockets.
//!
//! A *subject* (a room, a durable object) is owned by one node, which its **journal** names: a sequence of entries in an
//! engine that appends an entry only if the last one is the one that the writer expects (compare-and-set). Taking a
//! subject over is such an append. Whoever lost a subject cannot write to it any more, however late it wakes up, so
//! there is no lease, no clock in the ownership, and no second place that could disagree.
//!
//! [`entry`] has the entries and their bytes. [`Journal`] folds them into the subject's state. [`JournalWriter`] is the
//! owner's only way to write. [`Uplink`] and [`Downlink`] are the numbered way from a node with clients to the owner.
//! [`message`] has the bytes of what nodes
//! say to each other. [`Membership`] decides when a node is gone, which decides *when somebody tries*, and never *who is right*.
//!
//! Nothing here knows the engine or a transport: all are told events and times, and return what is to be done.

pub mod compression;
pub mod entry;
pub mod journal;
pub mod link;
pub mod membership;
pub mod message;
mod node;
pub mod successor;
pub mod writer;

pub use journal::Journal;
pub use link::{Downlink, LinkId, Uplink};
pub use membership::Membership;
pub use node::NodeId;
pub use writer::JournalWriter;
