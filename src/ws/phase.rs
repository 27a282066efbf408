//! How far a connection is: what its socket is read for, and how that ends.

use crate::protocol::close::Close;

/// How a connection ended, as metrics and logs count it.
pub(super) type EndLabel = &'static str;

/// What the socket is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// For messages.
    Open,
    /// For nothing: the member left, and the room will close.
    Left,
    /// For the client's close frame, which answers ours.
    Closing(Close),
    /// For the end of the stream: the client broke a rule, and is told so.
    Draining(Close),
    /// The client closed; what answers it is written.
    Answering,
}

impl Phase {
    pub(super) fn is_before_close(self) -> bool {
        matches!(self, Self::Open | Self::Left)
    }

    /// At a restart, what the client sent before it saw our close frame is not to be lost: it
    /// believes that it was heard. After every other close nobody would be the one who said it.
    pub(super) fn heeds_messages(self) -> bool {
        matches!(self, Self::Open | Self::Closing(Close::ServiceRestart))
    }

    pub(super) fn label(self) -> EndLabel {
        match self {
            Self::Closing(close) | Self::Draining(close) => close.label(),
            Self::Answering => "closed_by_client",
            Self::Open | Self::Left => "connection_lost",
        }
    }
}
