//! A test client: its requests to the engine and its str0m peer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::media::{Direction, MediaKind, Mid, Rid, SenderFeedback, Simulcast, SimulcastLayer};
use str0m::{Candidate, Rtc};

use super::world::World;
use crate::api::Caller;
use crate::description::Description;
use crate::error::SfuError;
use crate::id::{PersonId, SessionId};
use crate::network::ClientNetwork;
use crate::request::*;

/// One certificate for all clients: generating one takes long.
static CERTIFICATE: LazyLock<DtlsCert> = LazyLock::new(|| {
    str0m::crypto::from_feature_flags().dtls_provider.generate_certificate().expect("a certificate")
});

/// A test client.
pub(crate) struct Peer {
    pub(crate) rtc: Rtc,
    pub(crate) address: SocketAddr,
    pub(crate) session: SessionId,
    pub(crate) connected: bool,
    /// True once it learned that the session ended.
    pub(crate) told: bool,
    /// True if it is switched off: nothing is sent or received.
    pub(crate) gone: bool,
    /// Time of its next timeout.
    pub(super) due_at: Instant,
    /// Downlink bandwidth in bits per second, and the time until which that link is busy.
    pub(crate) capacity: Option<u64>,
    pub(super) busy_until: Instant,
    /// Bytes received through its link since the last REMB report; none if it sends no such reports.
    pub(super) remb: Option<usize>,
    /// Bandwidth in its last REMB report.
    pub(super) reported: u64,
    /// Packets received, by transceiver.
    pub(crate) got: HashMap<Mid, Vec<Got>>,
    /// Sender reports received.
    pub(crate) reports: Vec<SenderFeedback>,
    /// Keyframe requests received, with their times.
    pub(crate) asked: Vec<(Mid, Option<Rid>, Instant)>,
    /// True if it answers keyframe requests with keyframes.
    pub(crate) obliging: bool,
    /// Time that it takes to encode a video frame.
    pub(crate) encoding: Duration,
    pub(super) numbers: HashMap<(Mid, Option<Rid>), u64>,
    /// True if the next frame of a stream is a keyframe.
    pub(super) due: HashMap<(Mid, Option<Rid>), bool>,
}

/// A received packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) seq: u64,
    pub(crate) time: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) at: Instant,
}

impl Got {
    /// The number that the publisher gave a packet of a video frame.
    pub(crate) fn number(&self) -> u64 {
        u64::from_be_bytes(self.payload[5..13].try_into().unwrap())
    }

    /// The layer of a video packet, as the first letter of its rid.
    pub(crate) fn layer(&self) -> u8 {
        self.payload[13]
    }

    /// True if the packet starts a keyframe.
    pub(crate) fn is_keyframe(&self) -> bool {
        self.payload[0] & 0x10 != 0 && self.payload[4] & 1 == 0
    }
}

pub(crate) fn person(name: &str) -> Caller {
    Caller::Person(PersonId::new(name))
}

impl World {
    /// Adds a client with a session.
    pub(crate) fn join(&mut self) -> usize {
        let owner = person(&format!("owner-{}", self.peers.len()));
        self.join_as(owner, Ice::Lite, Ice::Full).unwrap()
    }

    /// Adds a client with a session of this owner; `server` and `client` are the ICE roles.
    pub(crate) fn join_as(&mut self, owner: Caller, server: Ice, client: Ice) -> Result<usize, SfuError> {
        self.join_from(owner, None, server, client)
    }

    /// As [`Self::join_as`], from this network.
    pub(crate) fn join_from(
        &mut self,
        owner: Caller,
        network: Option<ClientNetwork>,
        server: Ice,
        client: Ice,
    ) -> Result<usize, SfuError> {
        let session = match self.ask(Request::Open { owner, network, offer: None, ice: server })? {
            Reply::Opened { session, .. } => session,
            other => panic!("not opened: {other:?}"),
        };
        let number = self.peers.len();
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_ice_lite(client == Ice::Lite)
            .set_dtls_cert(CERTIFICATE.clone())
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_bwe(None)
            .build(self.now);
        let [high, low] = u16::try_from(number + 1).unwrap().to_be_bytes();
        let address = SocketAddr::new(IpAddr::from([10, 0, high, low]), 4000);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        self.by_address.insert(address, number);
        self.peers.push(Peer {
            rtc,
            address,
            session,
            connected: false,
            told: false,
            gone: false,
            due_at: self.now,
            capacity: None,
            busy_until: self.now,
            remb: None,
            reported: 300_000,
            got: HashMap::new(),
            reports: Vec::new(),
            asked: Vec::new(),
            encoding: Duration::ZERO,
            obliging: true,
            numbers: HashMap::new(),
            due: HashMap::new(),
        });
        Ok(number)
    }

    /// Connects all clients.
    #[track_caller]
    pub(crate) fn connect(&mut self) {
        self.until("all are connected", |world| world.peers.iter().all(|peer| peer.connected || peer.gone));
        self.pass(Duration::from_millis(20));
    }

    /// Connects one client, independently of the others.
    #[track_caller]
    pub(crate) fn connect_one(&mut self, peer: usize) {
        let others: Vec<bool> = self.peers.iter().map(|peer| peer.gone).collect();
        for (number, other) in self.peers.iter_mut().enumerate() {
            other.gone |= number != peer;
        }
        self.connect();
        for (other, gone) in self.peers.iter_mut().zip(others) {
            other.gone = gone;
        }
    }

    pub(crate) fn session(&self, peer: usize) -> SessionId {
        self.peers[peer].session.clone()
    }

    /// Publishes tracks, given by name, kind and rids.
    #[track_caller]
    pub(crate) fn push(&mut self, peer: usize, tracks: &[(&str, TrackKind, &[&str])]) -> Vec<Mid> {
        let done = self.try_to_push(peer, tracks);
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        done.into_iter().flatten().collect()
    }

    /// Publishes tracks; returns each track's mid, or the reason for its failure.
    #[track_caller]
    pub(crate) fn try_to_push(
        &mut self,
        peer: usize,
        tracks: &[(&str, TrackKind, &[&str])],
    ) -> Vec<Result<Mid, SfuError>> {
        let rtc = &mut self.peers[peer].rtc;
        let mut api = rtc.sdp_api();
        let mids: Vec<Mid> = tracks
            .iter()
            .map(|(_, kind, rids)| {
                let send = rids.iter().map(|rid| SimulcastLayer::new(rid)).collect();
                let simulcast = (!rids.is_empty()).then(|| Simulcast { send, recv: Vec::new() });
                api.add_media(media(*kind), Direction::SendOnly, None, None, simulcast)
            })
            .collect();
        let (offer, pending) = api.apply().unwrap();
        let named = tracks.iter().zip(&mids);
        let named = named.map(|((name, ..), mid)| Publish {
            name: (*name).to_owned(),
            mid: Some(mid.to_string()),
            kind: None,
            way: MediaDirection::In,
        });
        let request = Request::Publish {
            session: self.session(peer),
            tracks: named.collect(),
            offer: Some(read(DescriptionType::Offer, &offer.to_sdp_string())),
        };
        match self.ask(request).unwrap() {
            Reply::Tracks { description: Some(told), tracks } => {
                self.take_answer(peer, pending, &told);
                mids_of(tracks)
            }
            other => panic!("not published: {other:?}"),
        }
    }

    /// Asks the server to offer to receive tracks; returns its offer.
    pub(crate) fn ask_to_push(
        &mut self,
        peer: usize,
        tracks: &[(&str, Option<TrackKind>, MediaDirection)],
    ) -> (Vec<Result<Mid, SfuError>>, Option<SessionDescription>) {
        let tracks = tracks.iter().map(|(name, kind, way)| Publish {
            name: (*name).to_owned(),
            mid: None,
            kind: *kind,
            way: *way,
        });
        let request = Request::Publish { session: self.session(peer), tracks: tracks.collect(), offer: None };
        match self.ask(request).unwrap() {
            Reply::Tracks { description, tracks } => (mids_of(tracks), description),
            other => panic!("not offered: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn take_answer(&mut self, peer: usize, pending: SdpPendingOffer, told: &SessionDescription) {
        assert_eq!(told.r#type, DescriptionType::Answer);
        let mut ports =
            told.sdp.lines().filter(|line| line.starts_with("m=")).map(|line| line.split(' ').nth(1));
        if ports.all(|port| port == Some("0")) {
            // str0m rejects an answer without active m-lines; browsers accept it.
            return;
        }
        let answer = SdpAnswer::from_sdp_string(&told.sdp).unwrap();
        self.peers[peer].rtc.sdp_api().accept_answer(pending, answer).unwrap();
        self.poll(peer);
    }

    /// Subscribes; returns each subscription's mid, or the reason for its failure.
    #[track_caller]
    pub(crate) fn pull(
        &mut self,
        peer: usize,
        tracks: &[(usize, &str, LayerWish)],
    ) -> Vec<Result<Mid, SfuError>> {
        let (done, told) = self.ask_to_pull(peer, tracks);
        if let Some(told) = told {
            self.answer(peer, &told).unwrap();
        }
        done
    }

    /// Subscribes to one existing track.
    #[track_caller]
    pub(crate) fn pull_one(&mut self, peer: usize, publisher: usize, name: &str) -> Mid {
        self.pull(peer, &[(publisher, name, LayerWish::default())]).remove(0).unwrap()
    }

    /// Subscribes without answering the server's offer yet.
    #[track_caller]
    pub(crate) fn ask_to_pull(
        &mut self,
        peer: usize,
        tracks: &[(usize, &str, LayerWish)],
    ) -> (Vec<Result<Mid, SfuError>>, Option<SessionDescription>) {
        let tracks = tracks.iter().map(|(publisher, name, layer)| Subscribe {
            publisher: self.session(*publisher),
            name: (*name).to_owned(),
            layer: layer.clone(),
        });
        let request = Request::Subscribe { session: self.session(peer), tracks: tracks.collect() };
        match self.ask(request).unwrap() {
            Reply::Tracks { description, tracks } => (mids_of(tracks), description),
            other => panic!("no offer: {other:?}"),
        }
    }

    /// Answers the server's offer.
    pub(crate) fn answer(&mut self, peer: usize, told: &SessionDescription) -> RequestResult {
        let text = self.think(peer, told);
        let session = self.session(peer);
        self.ask(Request::Answer { session, answer: read(DescriptionType::Answer, &text) })
    }

    /// Returns the client's answer to the server's offer, without sending it.
    #[track_caller]
    pub(crate) fn think(&mut self, peer: usize, told: &SessionDescription) -> String {
        assert_eq!(told.r#type, DescriptionType::Offer);
        let offer = SdpOffer::from_sdp_string(&told.sdp).unwrap();
        let answer = self.peers[peer].rtc.sdp_api().accept_offer(offer).unwrap();
        self.poll(peer);
        answer.to_sdp_string()
    }

    /// Stops transceivers and closes them at the server.
    #[track_caller]
    pub(crate) fn close(&mut self, peer: usize, mids: &[Mid]) {
        let done = self.close_having_stopped(peer, mids, mids);
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }

    /// Closes transceivers at the server, of which only some were stopped.
    #[track_caller]
    pub(crate) fn close_having_stopped(
        &mut self,
        peer: usize,
        mids: &[Mid],
        stopped: &[Mid],
    ) -> Vec<Result<Mid, SfuError>> {
        let mut api = self.peers[peer].rtc.sdp_api();
        for mid in stopped {
            api.stop_media(*mid);
        }
        let (offer, pending) = api.apply().unwrap();
        let request = Request::Close {
            session: self.session(peer),
            tracks: mids.iter().map(|mid| Transceiver::Mid(mid.to_string())).collect(),
            offer: Some(read(DescriptionType::Offer, &offer.to_sdp_string())),
        };
        match self.ask(request).unwrap() {
            Reply::Tracks { description: Some(told), tracks } => {
                self.take_answer(peer, pending, &told);
                mids_of(tracks)
            }
            other => panic!("not closed: {other:?}"),
        }
    }

    /// Changes the track or the layer of a transceiver.
    pub(crate) fn update(
        &mut self,
        peer: usize,
        at: Transceiver,
        track: Option<(usize, &str)>,
        layer: LayerWish,
    ) -> Result<TrackDone, TrackFailed> {
        let track = track.map(|(publisher, name)| (self.session(publisher), name.to_owned()));
        let request =
            Request::Update { session: self.session(peer), tracks: vec![Update { at, track, layer }] };
        match self.ask(request).unwrap() {
            Reply::Tracks { description: None, mut tracks } => tracks.remove(0),
            other => panic!("not changed: {other:?}"),
        }
    }

    /// Returns the state of a session's tracks.
    pub(crate) fn states(&mut self, peer: usize) -> Vec<TrackState> {
        match self.ask(Request::Tracks { session: self.session(peer) }).unwrap() {
            Reply::Session(tracks) => tracks,
            other => panic!("no tracks: {other:?}"),
        }
    }

    /// Returns the packets received on a transceiver, ordered by sequence number and without duplicates.
    #[track_caller]
    pub(crate) fn got(&self, peer: usize, mid: Mid) -> Vec<Got> {
        let mut got = self.peers[peer].got.get(&mid).cloned().unwrap_or_default();
        got.sort_by_key(|got| got.seq);
        got.dedup_by_key(|got| got.seq);
        got
    }
}

pub(crate) fn read(r#type: DescriptionType, text: &str) -> Description {
    Description::parse(r#type, text).unwrap()
}

fn mids_of(tracks: Vec<Result<TrackDone, TrackFailed>>) -> Vec<Result<Mid, SfuError>> {
    let mid = |track: Result<TrackDone, TrackFailed>| match track {
        Ok(done) => Ok(Mid::from(&*done.mid)),
        Err(failed) => Err(failed.error),
    };
    tracks.into_iter().map(mid).collect()
}

fn media(kind: TrackKind) -> MediaKind {
    match kind {
        TrackKind::Audio => MediaKind::Audio,
        TrackKind::Video => MediaKind::Video,
    }
}
