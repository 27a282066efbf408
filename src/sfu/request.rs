//! What the media server is asked for and what it says: plain data between [`super::handle`] and
//! [`super::engine`].

use std::time::Duration;

use serde::Serialize;

use super::description::Description;
use super::error::SfuError;
use crate::calls::api::Caller;
use crate::id::SessionId;
use crate::network::ClientNetwork;

/// A question, already read and checked for its form.
#[derive(Debug)]
pub enum Request {
    /// Opens a session.
    Open {
        /// Whose session it is. One person may have so many.
        owner: Caller,
        /// The network of the client, where it is known. One network may have so many.
        network: Option<ClientNetwork>,
        /// The client's offer, where it has one already.
        offer: Option<Description>,
        /// How the session finds its way.
        ice: Ice,
    },
    /// Publishes tracks.
    Publish {
        /// The publisher.
        session: SessionId,
        /// What is published.
        tracks: Vec<Publish>,
        /// The client's offer. Without one the server makes an offer.
        offer: Option<Description>,
    },
    /// Subscribes to tracks; the server makes an offer.
    Subscribe {
        /// The subscriber.
        session: SessionId,
        /// What is subscribed to.
        tracks: Vec<Subscribe>,
    },
    /// Gives the client's answer to the server's offer.
    Answer {
        /// The session.
        session: SessionId,
        /// The answer.
        answer: Description,
    },
    /// Ends tracks.
    Close {
        /// The session.
        session: SessionId,
        /// The transceivers of the tracks.
        tracks: Vec<Transceiver>,
        /// The client's offer, in which they are stopped; none where they are ended by force.
        offer: Option<Description>,
    },
    /// Changes what transceivers carry.
    Update {
        /// The session.
        session: SessionId,
        /// The changes.
        tracks: Vec<Update>,
    },
    /// Asks for the tracks of a session.
    Tracks {
        /// The session.
        session: SessionId,
    },
    /// Asks for everything that an operator may want to know.
    Report,
    /// Ends all sessions, and tells their peers.
    EndAll,
}

/// How a session finds its way through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ice {
    /// It waits for the client's checks (RFC 8445 section 2.5).
    Lite,
    /// It makes checks of its own: the peer is another server, which may wait for them too.
    Full,
}

/// Sound or picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sound.
    Audio,
    /// A picture.
    Video,
}

/// A track that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Its name in the session.
    pub name: String,
    /// Its section of the offer; needed where the client makes the offer.
    pub mid: Option<String>,
    /// What it is; needed where the server makes the offer.
    pub kind: Option<Kind>,
    /// Whether the server may also send on its transceiver.
    pub way: Way,
}

/// Which ways media go on a transceiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    In,
    /// To the server, and back (`bidirectionalMediaStream`).
    Both,
}

/// A track that is to be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The publisher.
    pub publisher: SessionId,
    /// The track's name there.
    pub name: String,
    /// Which of its layers.
    pub layer: LayerWish,
}

/// Which layer of a simulcast track a subscriber wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerWish {
    /// The `rid` (RFC 8851) of the best layer that it wants; none is the best that there is.
    pub preferred: Option<String>,
    /// Whether the receiver's bandwidth may choose a lower one.
    pub by_bandwidth: Choice,
    /// Whether another layer is sent where the wanted one is not there.
    pub when_missing: Choice,
}

/// Whether the server may choose (`asciibetical`, and where nothing is said) or not (`none`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// It may.
    #[default]
    Free,
    /// It may not.
    Fixed,
}

/// A change of what a transceiver carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The transceiver.
    pub at: Transceiver,
    /// The track that it is to carry; none leaves it as it is.
    pub track: Option<(SessionId, String)>,
    /// Which layer of it.
    pub layer: LayerWish,
}

/// How a transceiver is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transceiver {
    /// By its `mid`.
    Mid(String),
    /// By the name of the track that the session publishes on it (`#{trackName}`).
    Published(String),
    /// By the track that it carries now: its publisher and name.
    Carrying(SessionId, String),
}

impl Transceiver {
    /// A `mid` as the API has it: one of a description, or `#{trackName}`.
    pub fn named(mid: String) -> Self {
        match mid.strip_prefix('#') {
            Some(name) => Self::Published(name.to_owned()),
            None => Self::Mid(mid),
        }
    }

    /// What the API calls it by; none where it has no such name.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Mid(mid) => Some(mid.clone()),
            Self::Published(name) => Some(format!("#{name}")),
            Self::Carrying(..) => None,
        }
    }
}

/// What came of a question.
pub type Outcome = Result<Reply, SfuError>;

/// An answer.
#[derive(Debug)]
pub enum Reply {
    /// The session is open.
    Opened {
        /// Its id.
        session: SessionId,
        /// The answer to the offer, if there was one.
        description: Option<Told>,
    },
    /// The tracks were published, subscribed to, ended or changed, each or some of them.
    Tracks {
        /// The description that the client applies.
        description: Option<Told>,
        /// What became of each track, in the order of the question.
        tracks: Vec<Result<TrackDone, TrackFailed>>,
    },
    /// The answer was taken, and refuses these tracks.
    Answered(Vec<TrackFailed>),
    /// The tracks of a session.
    Session(Vec<TrackState>),
    /// Everything that an operator may want to know.
    Report(Box<Report>),
    /// All sessions ended: their number.
    Ended(usize),
}

/// A session description for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether the client has to answer.
    pub r#type: DescriptionType,
    /// The text (RFC 8866).
    pub sdp: String,
}

/// What a session description is for (RFC 3264).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DescriptionType {
    /// It wants an answer.
    Offer,
    /// It is one.
    Answer,
}

/// A track with which all went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackDone {
    /// Its transceiver.
    pub mid: String,
    /// Its publisher, where that is another session.
    pub publisher: Option<SessionId>,
    /// Its name; closing tells none.
    pub name: Option<String>,
}

/// A track with which it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackFailed {
    /// As it was named in the question.
    pub mid: Option<String>,
    /// As it was named in the question.
    pub publisher: Option<SessionId>,
    /// As it was named in the question.
    pub name: Option<String>,
    /// What went wrong.
    pub error: SfuError,
}

/// A track of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackState {
    /// Its transceiver.
    pub mid: String,
    /// Its publisher, where that is another session.
    pub publisher: Option<SessionId>,
    /// Its name.
    pub name: String,
    /// Whether media flow.
    pub status: TrackStatus,
}

/// Whether media flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackStatus {
    /// They do.
    Active,
    /// They did.
    Inactive,
    /// They did not yet.
    Initializing,
}

/// Everything that an operator may want to know.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Every session.
    pub sessions: Vec<SessionReport>,
    /// Every published track.
    pub tracks: Vec<TrackReport>,
}

/// A session, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct SessionReport {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// How its connection is.
    pub state: &'static str,
    /// How long it has been there, in seconds.
    pub age_seconds: u64,
    /// How many tracks it publishes.
    pub publishes: usize,
    /// How many tracks it subscribes to.
    pub subscribes: usize,
    /// How many sections its session description has, ended ones that wait to be used again included.
    pub sections: usize,
    /// What its connection is estimated to take, in bits a second; none where nothing is known to be short.
    pub estimate_bits: Option<u64>,
    /// Bytes of media that came from it.
    pub received_bytes: u64,
    /// Bytes of media that went to it.
    pub sent_bytes: u64,
    /// Packets that it said were lost on the way to it.
    pub lost_packets: u64,
}

/// A published track, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct TrackReport {
    /// Its publisher.
    pub session: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The codec, once a packet has told.
    pub codec: Option<String>,
    /// Its layers; one without a name where there is no simulcast.
    pub layers: Vec<LayerReport>,
    /// Who receives it.
    pub subscribers: Vec<SubscriberReport>,
}

/// A layer of a track, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its `rid`.
    pub rid: Option<String>,
    /// Its bits a second, lately.
    pub bits: u64,
    /// Whether packets come.
    pub live: bool,
}

/// A subscriber of a track, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriberReport {
    /// Its session.
    pub session: String,
    /// Its transceiver.
    pub mid: String,
    /// The layer that it gets.
    pub rid: Option<String>,
    /// Whether it gets none because its connection takes no more.
    pub paused: bool,
    /// Packets that were forwarded to it.
    pub packets: u64,
}

/// What one session, and the whole media server, may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions in all.
    pub sessions: usize,
    /// Sessions of one owner.
    pub sessions_per_owner: usize,
    /// Sessions that clients of one network opened; 0 is no limit.
    pub sessions_per_network: usize,
    /// Subscriptions of one owner.
    pub subscriptions_per_owner: usize,
    /// Subscriptions of one owner to one track, in several sessions.
    pub subscriptions_per_owner_and_track: usize,
    /// Tracks that one session publishes and subscribes to, together.
    pub tracks_per_session: usize,
    /// Subscribers of one track.
    pub subscribers_per_track: usize,
    /// Subscribers of one track from one network; 0 is no limit.
    pub subscribers_per_track_and_network: usize,
    /// How long a session may take to connect, and how long one that lost its connection is kept.
    pub connect: Duration,
    /// How long a session is kept that negotiated nothing yet.
    pub idle: Duration,
}
