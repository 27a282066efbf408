//! The answer to the sender of a message.

use crate::id::UserId;
use crate::protocol::server::Event;
use crate::room::io::{Input, Recipients};
use crate::room::mailbox::{NO_MEMBER, Reply};
use crate::room::state::Room;

/// A reply that is due once its message has been handled.
pub(super) struct PendingReply {
    reply: Reply,
    sender: Option<UserId>,
    /// The sentence of the error event that the message causes for its sender.
    error: Option<String>,
}

impl PendingReply {
    /// The reply to a message that is about to be handled.
    pub(super) fn new(reply: Reply, room: &Room, input: &Input) -> Self {
        let sender = match input {
            Input::Message { connection, .. } | Input::Rejected { connection, .. } => {
                room.user_at(*connection)
            }
            _ => None,
        };
        Self { reply, sender, error: None }
    }

    /// Takes notice of an event that the message causes.
    pub(super) fn notice(&mut self, to: &Recipients, event: &Event) {
        let Recipients::One(to) = to else { return };
        if self.sender.as_ref() != Some(to) {
            return;
        }
        if let Some(why) = event.failure() {
            self.error = Some(why.to_owned());
        }
    }

    /// Sends the reply. The session may be gone by now.
    pub(super) fn send(self) {
        let result = match (self.sender, self.error) {
            (None, _) => Err(NO_MEMBER.to_owned()),
            (Some(_), Some(error)) => Err(error),
            (Some(_), None) => Ok(()),
        };
        let _ = self.reply.send(result);
    }
}
