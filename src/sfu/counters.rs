//! Counters of the engine, as plain numbers; [`super::measures`] exports them as metrics.

/// Reason that a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It came from an address that no session knows, and was not a connectivity check for one (RFC 8445).
    UnknownSource,
    /// An address that no session knows sent more packets than it may.
    UnknownTooMany,
    /// It cannot be parsed, or its session rejected it.
    Malformed,
    /// It is media that would be too long for its subscribers once forwarded.
    TooLong,
    /// It is media of a stream that belongs to no track.
    UnknownStream,
    /// Its subscriber waits for a keyframe.
    NoKeyframe,
    /// Its subscriber gets another layer of the track, or none.
    LayerNotWanted,
    /// It is older than the layer that its subscriber gets.
    Late,
    /// Its subscriber negotiated no codec for it.
    NoCodec,
    /// The subscriber's session rejected it.
    Refused,
    /// A panic ended its session.
    Panic,
}

impl DropReason {
    /// All reasons, in the order of [`Counters::drops`].
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

    /// Label of the reason in metrics.
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

/// Counts of an engine since its start, and its current sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received, media and others.
    pub received_packets: u64,
    /// Bytes of the packets received.
    pub received_bytes: u64,
    /// Media packets forwarded, counted once per subscriber.
    pub forwarded_packets: u64,
    /// Bytes of the packets forwarded.
    pub forwarded_bytes: u64,
    /// Retransmission requests (NACK) from subscribers.
    pub nacks_received: u64,
    /// Retransmission requests (NACK) to publishers.
    pub nacks_sent: u64,
    /// Keyframe requests from subscribers.
    pub keyframe_requests_received: u64,
    /// Keyframe requests to publishers.
    pub keyframe_requests_sent: u64,
    /// Packets dropped, in the order of [`DropReason::ALL`]; see [`Self::drops_by`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Current sessions.
    pub sessions: usize,
    /// Current sessions that are connected.
    pub connected: usize,
    /// Published tracks at present.
    pub tracks: usize,
    /// Subscriptions at present.
    pub subscriptions: usize,
}

impl Counters {
    /// Counts a dropped packet.
    pub(crate) fn dropped(&mut self, why: DropReason) {
        self.drops[why as usize] += 1;
    }

    /// Packets dropped for this reason.
    pub fn drops_by(&self, why: DropReason) -> u64 {
        self.drops[why as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_reasons_have_distinct_slots_and_labels() {
        for (place, why) in DropReason::ALL.into_iter().enumerate() {
            let mut counters = Counters::default();
            counters.dropped(why);
            assert_eq!(counters.drops[place], 1, "{why:?}");
            assert_eq!(
                DropReason::ALL.iter().filter(|other| other.label() == why.label()).count(),
                1,
                "{why:?}"
            );
        }
    }
}
