//! Phases of a connection: the purpose of reading its socket, and the label of its end.

use crate::protocol::close::Close;

/// Label of a connection's end in metrics and logs.
pub(super) type EndLabel = &'static str;

/// Purpose of reading the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Reads messages.
    Open,
    /// Reads nothing: the session wants no further message, and is about to close.
    Stopped,
    /// Reads the client's close frame, which answers ours.
    Closing(Close),
    /// Reads until the end of the stream: the client broke a rule, and was sent a close frame.
    Draining(Close),
    /// Reads nothing: the client closed, and the answer to that is being written.
    Answering,
}

impl Phase {
    pub(super) fn is_before_close(self) -> bool {
        matches!(self, Self::Open | Self::Stopped)
    }

    /// At a restart, messages that the client sent before it saw our close frame must not be lost:
    /// it believes that they arrived. After every other close they would have no member as their sender.
    pub(super) fn heeds_messages(self) -> bool {
        matches!(self, Self::Open | Self::Closing(Close::ServiceRestart))
    }

    pub(super) fn label(self) -> EndLabel {
        match self {
            Self::Closing(close) | Self::Draining(close) => close.label(),
            Self::Answering => "closed_by_client",
            Self::Open | Self::Stopped => "connection_lost",
        }
    }
}
