//! The seam between an object and the code of its methods: a call, its outcome, and its failures.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::keys::KeyNumber;
use crate::id::ObjectId;

/// An object's values by key, in order of the keys.
pub type ObjectState = BTreeMap<Arc<str>, Arc<RawValue>>;

/// A call of a method on an object.
#[derive(Clone, Debug)]
pub struct MethodCall {
    /// The object.
    pub object: ObjectId,
    /// The code to call.
    pub target: Target,
    /// The key that pays for the call's time.
    pub payer: Payer,
    /// The caller's parameters; `{}` if there are none.
    pub params: Box<RawValue>,
    /// The object's values before the call.
    pub state: Arc<ObjectState>,
    /// The time at which the object's alarm is due, in milliseconds since 1970.
    pub alarm: Option<u64>,
    /// The number of changes of the object so far.
    pub version: u64,
    /// The time of the call in milliseconds since 1970.
    pub at: u64,
}

/// The one that pays for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Payer {
    /// The holders of a key of access.
    Key(KeyNumber),
    /// All alarms together, which nobody calls.
    Alarms,
}

/// The code that a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A method, as named by the caller, with or without the prefix `method_`.
    Method(String),
    /// The handler of the object's alarm. No caller can name it.
    Alarm,
}

impl Target {
    /// The prefix that a method's name may have.
    pub const PREFIX: &str = "method_";

    /// The name without its prefix; `None` for the alarm.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Method(name) => Some(name.strip_prefix(Self::PREFIX).unwrap_or(name)),
            Self::Alarm => None,
        }
    }
}

/// Everything that a call does, applied as one step or not at all.
#[derive(Clone, Debug)]
pub struct MethodOutcome {
    /// The answer to the caller.
    pub result: Box<RawValue>,
    /// The changes of values, in the order in which they apply.
    pub changes: Vec<Change>,
    /// The messages to the object's sockets, in their order.
    pub updates: Vec<Update>,
    /// The change of the object's alarm.
    pub alarm: Option<AlarmChange>,
}

/// A change of one value.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets the value of a key.
    Put {
        /// The key; of any length, since only the object knows its limits.
        key: Arc<str>,
        /// The value.
        value: Arc<RawValue>,
    },
    /// Removes a key, which may be missing.
    Delete {
        /// The key.
        key: Arc<str>,
    },
}

/// A message to the object's sockets: a key and its value.
///
/// A method may tell the sockets something else than it stores, so this is not a [`Change`].
#[derive(Clone, Debug)]
pub struct Update {
    /// The key.
    pub key: Arc<str>,
    /// The value.
    pub value: Arc<RawValue>,
}

/// A change of an object's alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmChange {
    /// Due at this time, in milliseconds since 1970; a time that has passed is due at once.
    Set(u64),
    /// None.
    Clear,
}

/// A failed call; nothing of it is applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// Nothing has the method.
    #[error("no such method")]
    NotFound,
    /// The parameters are not what the method takes.
    #[error("{0}")]
    Invalid(String),
    /// The method failed; its own message.
    #[error("{0}")]
    Failed(String),
    /// The method was stopped at a limit of time, memory or size.
    #[error("{0}")]
    Limit(String),
    /// No answer in time from code outside of this server.
    #[error("the method did not answer in time")]
    TimedOut,
    /// Code outside of this server cannot be reached, or makes no sense.
    #[error("{0}")]
    Unavailable(String),
    /// Too many calls wait for the code; this one was not made.
    #[error("{0}")]
    Busy(&'static str),
}
