//! The media server's edge to the network: which addresses it tells, and its two kinds of socket.

pub mod addresses;
pub mod batch;
pub mod bind;
pub mod framing;
pub mod tcp;
pub mod udp;

/// Why a packet was not sent. Media that waits is late, so nothing is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The socket's buffer, or the connection's queue, is full.
    Full,
    /// The packet is longer than the network takes.
    TooLong,
    /// There is no connection to the address.
    Gone,
    /// The system refuses: no route, or a firewall.
    Refused,
    /// It waited too long for its connection.
    Late,
}

impl Undelivered {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Full, Self::TooLong, Self::Gone, Self::Refused, Self::Late];

    /// The word by which metrics count it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::TooLong => "too_long",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Late => "late",
        }
    }
}
