//! What the engine counts: plain numbers, which [`super::measures`] makes metrics of.

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// It came from an address that no session knows, and was no check of one.
    UnknownSource,
    /// An address that no session knows sent more than it may before one does.
    UnknownTooMany,
    /// It cannot be read, or its session refused it.
    Malformed,
    /// It is media that would not fit into a packet for its subscribers.
    TooLong,
    /// It is media of a stream that no track has.
    UnknownStream,
    /// Its subscriber waits for a keyframe.
    NoKeyframe,
    /// Its subscriber gets another layer of the track, or none.
    LayerNotWanted,
    /// It is older than what its subscriber gets.
    Late,
    /// Its subscriber negotiated no codec for it.
    NoCodec,
    /// The subscriber's session refused it.
    Refused,
    /// Its session ended by a panic.
    Panic,
}

impl Drop {
    /// Every reason, in the order of [`Counters::drops`].
    pub const ALL: [Self; 11] = [
        Self::UnknownSource,
        Self::UnknownTooMany,
        Self::Malformed,
        Self::TooLong,
        Self::UnknownStream,
        Self::NoKeyframe,
        Self::LayerNotWanted,
        Self::Late,
        Self::NoCodec,
        Self::Refused,
        Self::Panic,
    ];

    /// The word by which metrics count it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownSource => "unknown_source",
            Self::UnknownTooMany => "unknown_too_many",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::UnknownStream => "unknown_stream",
            Self::NoKeyframe => "no_keyframe",
            Self::LayerNotWanted => "layer_not_wanted",
            Self::Late => "late",
            Self::NoCodec => "no_codec",
            Self::Refused => "refused",
            Self::Panic => "panic",
        }
    }
}

/// What an engine did since its start, and what it has now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that arrived, of media and all else.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets of media that were handed on, once for each subscriber.
    pub forwarded_packets: u64,
    /// Their bytes.
    pub forwarded_bytes: u64,
    /// Requests of subscribers to send a packet again.
    pub nacks_received: u64,
    /// Requests to publishers to send a packet again.
    pub nacks_sent: u64,
    /// Requests of subscribers for a keyframe.
    pub keyframe_requests_received: u64,
    /// Requests to publishers for a keyframe.
    pub keyframe_requests_sent: u64,
    /// Packets that went no further, by reason; [`Self::dropped`] counts.
    pub drops: [u64; Drop::ALL.len()],
    /// Sessions now.
    pub sessions: usize,
    /// Sessions whose connection is up now.
    pub connected: usize,
    /// Published tracks now.
    pub tracks: usize,
    /// Subscriptions now.
    pub subscriptions: usize,
}

impl Counters {
    /// Counts a packet that went no further.
    pub fn dropped(&mut self, why: Drop) {
        self.drops[why as usize] += 1;
    }

    /// How many packets went no further for this reason.
    pub fn drops_by(&self, why: Drop) -> u64 {
        self.drops[why as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_its_own_word() {
        for (place, why) in Drop::ALL.into_iter().enumerate() {
            let mut counters = Counters::default();
            counters.dropped(why);
            assert_eq!(counters.drops[place], 1, "{why:?}");
            assert_eq!(Drop::ALL.iter().filter(|other| other.label() == why.label()).count(), 1, "{why:?}");
        }
    }
}
