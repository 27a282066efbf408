//! Network I/O of the media server: advertised addresses, and the UDP and TCP sockets.

pub mod addresses;
pub mod batch;
pub mod bind;
pub mod framing;
pub mod tcp;
pub mod udp;

/// Reason that a packet was not sent. Delayed media is useless, so sending is never retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The socket's buffer or the connection's queue is full.
    Full,
    /// The packet is longer than the network allows.
    TooLong,
    /// There is no connection to the address.
    Gone,
    /// The system refused it: no route, or a firewall.
    Refused,
    /// It waited too long in its connection's queue.
    Late,
}

impl Undelivered {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::Full, Self::TooLong, Self::Gone, Self::Refused, Self::Late];

    /// Label of the reason in metrics.
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
