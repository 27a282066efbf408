//! Requests to the media server and its replies, as plain data: between [`SfuHandle`](crate::SfuHandle) and
//! [`Engine`](crate::engine::Engine).

use serde::Serialize;

pub use super::description::Description;
use super::error::SfuError;
use crate::access::SessionAccess;
use crate::api::Caller;
use crate::id::SessionId;
use crate::network::ClientNetwork;

/// A request, already parsed and checked for its form.
#[derive(Debug)]
pub enum Request {
    /// Opens a session.
    Open {
        /// Owner of the session; the sessions of one owner are limited.
        owner: Caller,
        /// Client network, if known; the sessions of one network are limited.
        network: Option<ClientNetwork>,
        /// The client's offer, if it sent one.
        offer: Option<Description>,
        /// ICE role of the server.
        ice: Ice,
    },
    /// Publishes tracks.
    Publish {
        /// The publisher.
        session: SessionId,
        /// The tracks to publish.
        tracks: Vec<Publish>,
        /// The client's offer. Without one the server makes an offer.
        offer: Option<Description>,
    },
    /// Subscribes to tracks; the server makes an offer.
    Subscribe {
        /// The subscriber.
        session: SessionId,
        /// The tracks to subscribe to.
        tracks: Vec<Subscribe>,
    },
    /// Applies the client's answer to the server's offer.
    Answer {
        /// The session.
        session: SessionId,
        /// The answer.
        answer: Description,
    },
    /// Closes tracks.
    Close {
        /// The session.
        session: SessionId,
        /// The transceivers of the tracks.
        tracks: Vec<Transceiver>,
        /// The client's offer, in which they are stopped; `None` closes them by force.
        offer: Option<Description>,
    },
    /// Changes the track or layer that transceivers carry.
    Update {
        /// The session.
        session: SessionId,
        /// The changes.
        tracks: Vec<Update>,
    },
    /// Lists the tracks of a session.
    Tracks {
        /// The session.
        session: SessionId,
    },
    /// Says what sessions may receive and send from now on; those that have ended are left out.
    SetAccess(Vec<(SessionId, SessionAccess)>),
    /// Requests a report for operators.
    Report,
    /// Ends all sessions, and notifies their peers.
    EndAll,
}

/// ICE role of the server in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ice {
    /// ICE lite: waits for the client's connectivity checks (RFC 8445 section 2.5).
    Lite,
    /// Full ICE: makes connectivity checks of its own, because the peer is another server, which may be ICE lite too.
    Full,
}

/// Media kind of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackKind {
    /// An audio track.
    Audio,
    /// A video track.
    Video,
}

/// A track to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Its name in the session.
    pub name: String,
    /// `mid` of its m-line; required if the client makes the offer.
    pub mid: Option<String>,
    /// Its media kind; required if the server makes the offer.
    pub kind: Option<TrackKind>,
    /// Direction of its transceiver.
    pub way: MediaDirection,
}

/// Direction of media on a transceiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaDirection {
    /// Only to the server.
    In,
    /// To the server and back (`bidirectionalMediaStream`).
    Both,
}

/// A track to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The publisher.
    pub publisher: SessionId,
    /// The track's name in the publisher's session.
    pub name: String,
    /// The wanted layer.
    pub layer: LayerWish,
}

/// Layer of a simulcast track that a subscriber wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerWish {
    /// The `rid` (RFC 8851) of the best layer that it wants; `None` means the best available.
    pub preferred: Option<String>,
    /// Choice of a lower layer for lack of bandwidth.
    pub by_bandwidth: Choice,
    /// Choice of another layer while the preferred one is missing.
    pub when_missing: Choice,
}

/// Permission for the server to choose another layer: `asciibetical` (the default) or `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The server may choose.
    #[default]
    Free,
    /// The server may not choose.
    Fixed,
}

/// A change of the track or layer that a transceiver carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The transceiver.
    pub at: Transceiver,
    /// The new track; `None` keeps the present one.
    pub track: Option<(SessionId, String)>,
    /// The wanted layer of the track.
    pub layer: LayerWish,
}

/// Identifies a transceiver.
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
    /// Parses a `mid` of the API: one of a description, or `#{trackName}`.
    pub fn named(mid: String) -> Self {
        match mid.strip_prefix('#') {
            Some(name) => Self::Published(name.to_owned()),
            None => Self::Mid(mid),
        }
    }

    /// The `mid` by which the API identifies it, if it has one.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Mid(mid) => Some(mid.clone()),
            Self::Published(name) => Some(format!("#{name}")),
            Self::Carrying(..) => None,
        }
    }
}

/// Result of a request.
pub type RequestResult = Result<Reply, SfuError>;

/// Reply to a request.
#[derive(Debug)]
pub enum Reply {
    /// The session was opened.
    Opened {
        /// Its id.
        session: SessionId,
        /// The answer, if the client sent an offer.
        description: Option<SessionDescription>,
    },
    /// Some or all of the tracks were published, subscribed to, closed or changed.
    Tracks {
        /// The description for the client to apply, if any.
        description: Option<SessionDescription>,
        /// Result for each track, in the order of the request.
        tracks: Vec<Result<TrackDone, TrackFailed>>,
    },
    /// The answer was applied; it rejects these tracks.
    Answered(Vec<TrackFailed>),
    /// The tracks of a session.
    Session(Vec<TrackState>),
    /// The report for operators.
    Report(Box<SfuReport>),
    /// All sessions ended; their number.
    Ended(usize),
}

/// A session description to send to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    /// Its type; an offer needs an answer from the client.
    pub r#type: DescriptionType,
    /// Its text (RFC 8866).
    pub sdp: String,
}

/// Type of a session description (RFC 3264).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DescriptionType {
    /// An offer.
    Offer,
    /// An answer.
    Answer,
}

/// A track for which the request succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackDone {
    /// Its transceiver.
    pub mid: String,
    /// Its publisher, if that is another session.
    pub publisher: Option<SessionId>,
    /// Its name; `None` in a reply to closing.
    pub name: Option<String>,
}

/// A track for which the request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackFailed {
    /// Its transceiver, as in the request.
    pub mid: Option<String>,
    /// Its publisher, as in the request.
    pub publisher: Option<SessionId>,
    /// Its name, as in the request.
    pub name: Option<String>,
    /// Reason of the failure.
    pub error: SfuError,
}

/// A track of a session, as the API lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackState {
    /// Its transceiver.
    pub mid: String,
    /// Its publisher, if that is another session.
    pub publisher: Option<SessionId>,
    /// Its name.
    pub name: String,
    /// State of its media.
    pub status: TrackStatus,
}

/// State of a track's media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackStatus {
    /// Packets arrived recently.
    Active,
    /// No packets recently, or none although it was published some time ago.
    Inactive,
    /// Published recently, and no packet yet.
    Initializing,
}

/// Report on all sessions and tracks, for operators.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SfuReport {
    /// All sessions.
    pub sessions: Vec<SessionReport>,
    /// All published tracks.
    pub tracks: Vec<TrackReport>,
}

/// A session in the report for operators.
#[derive(Clone, Debug, Serialize)]
pub struct SessionReport {
    /// Its id.
    pub id: String,
    /// Its owner.
    pub owner: String,
    /// State of its connection.
    pub state: &'static str,
    /// Its age in seconds.
    pub age_seconds: u64,
    /// Number of tracks that it publishes.
    pub publishes: usize,
    /// Number of tracks that it subscribes to.
    pub subscribes: usize,
    /// Number of m-lines in its session description, including ended ones that can be reused.
    pub sections: usize,
    /// Estimated bandwidth of its connection, in bits a second; `None` while no shortage is known.
    pub estimate_bits: Option<u64>,
    /// Bytes of media received from it.
    pub received_bytes: u64,
    /// Bytes of media sent to it.
    pub sent_bytes: u64,
    /// Packets sent to it that it reported as lost.
    pub lost_packets: u64,
}

/// A published track in the report for operators.
#[derive(Clone, Debug, Serialize)]
pub struct TrackReport {
    /// Its publisher.
    pub session: String,
    /// Its name.
    pub name: String,
    /// Its media kind.
    pub kind: TrackKind,
    /// Its codec, known from the first packet on.
    pub codec: Option<String>,
    /// Its layers; a single one without `rid` if it has no simulcast.
    pub layers: Vec<LayerReport>,
    /// Its subscribers.
    pub subscribers: Vec<SubscriberReport>,
}

/// A layer of a track in the report for operators.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its `rid`.
    pub rid: Option<String>,
    /// Its recent bitrate, in bits a second.
    pub bits: u64,
    /// True if packets of it arrive.
    pub live: bool,
}

/// A subscriber of a track in the report for operators.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriberReport {
    /// Its session.
    pub session: String,
    /// Its transceiver.
    pub mid: String,
    /// `rid` of the layer that it gets.
    pub rid: Option<String>,
    /// True if it gets no layer because its connection has no bandwidth for one.
    pub paused: bool,
    /// Packets forwarded to it.
    pub packets: u64,
}
