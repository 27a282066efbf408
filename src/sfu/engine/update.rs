//! Changes of a transceiver's track while it is open; and the state of a session's tracks.

use std::time::{Duration, Instant};

use str0m::media::Mid;

use super::forwarding::Track;
use super::session::{Subscription, SubscriptionState};
use super::{Engine, SessionKey};
use crate::error::SfuError;
use crate::forward::RtpRewriter;
use crate::id::SessionId;
use crate::request::{
    LayerWish, TrackDone, TrackFailed, TrackKind, TrackState, TrackStatus, Transceiver, Update,
};

/// Time that a new track may go without media before it can no longer be subscribed to.
const COLLECTED_AFTER: Duration = Duration::from_secs(30);

impl Engine {
    /// Changes the track or the layer of one transceiver.
    pub(super) fn update_one(
        &mut self,
        now: Instant,
        key: SessionKey,
        update: Update,
    ) -> Result<TrackDone, TrackFailed> {
        let Update { at, track, layer } = update;
        let named = track.clone();
        let failed = |error| {
            let mid = if let Transceiver::Mid(mid) = &at { Some(mid.clone()) } else { None };
            let (publisher, name) = named.clone().unzip();
            TrackFailed { mid, publisher, name, error }
        };
        let mid = self.transceiver(key, &at).ok_or_else(|| failed(SfuError::NothingToChange))?;
        if let Some((publisher, name)) = &track {
            self.swap(now, key, mid, publisher, name).map_err(failed)?;
        }
        let session = self.sessions.get_mut(key).ok_or_else(|| failed(SfuError::NoSession))?;
        let client_mid = session.client_mid(mid);
        let subscription = session.subscriptions.get_mut(&mid);
        let subscription = subscription.ok_or_else(|| failed(SfuError::NothingToChange))?;
        subscription.wish = layer;
        Ok(TrackDone {
            mid: client_mid,
            publisher: Some(subscription.publisher.clone()),
            name: Some(subscription.name.clone()),
        })
    }

    pub(super) fn transceiver(&self, key: SessionKey, at: &Transceiver) -> Option<Mid> {
        let session = self.sessions.get(key)?;
        match at {
            Transceiver::Mid(mid) => {
                let mid = Mid::from(&**mid);
                let is_ours =
                    session.subscriptions.contains_key(&mid) || session.publications.contains_key(&mid);
                is_ours.then_some(mid)
            }
            Transceiver::Published(name) => {
                Some(self.tracks.get(*self.by_name.get(&(key, name.clone()))?)?.mid)
            }
            Transceiver::Carrying(publisher, name) => {
                let carries = |subscription: &Subscription| {
                    subscription.publisher == *publisher && subscription.name == *name
                };
                session.subscriptions.iter().find(|(_, s)| carries(s)).map(|(mid, _)| *mid)
            }
        }
    }

    /// Switches a transceiver to another track.
    fn swap(
        &mut self,
        now: Instant,
        key: SessionKey,
        mid: Mid,
        publisher: &SessionId,
        name: &str,
    ) -> Result<(), SfuError> {
        let new = self.find(now, publisher, name)?;
        let carried = self.sessions.get(key).and_then(|session| session.subscriptions.get(&mid)?.track);
        if carried == Some(new) {
            // Clients also name the track if they only ask for another of its layers.
            return Ok(());
        }
        let formats = self.formats_for(key, new);
        let barred = !self.may_forward(new, key);
        self.check_share(key, new)?;
        let mut owned = self.subscriptions_of_owner(key);
        let session = self.sessions.get_mut(key).ok_or(SfuError::NoSession)?;
        let kind = match (session.subscriptions.get(&mid), session.publications.get(&mid)) {
            (Some(subscription), _) => subscription.kind,
            (None, Some(own)) => {
                let sends = session.rtc.as_deref().and_then(|rtc| rtc.media(mid));
                if !sends.is_some_and(|media| media.direction().is_sending()) {
                    return Err(SfuError::NothingToChange);
                }
                self.tracks.get(*own).ok_or(SfuError::NoTrack)?.kind
            }
            (None, None) => return Err(SfuError::NothingToChange),
        };
        if session.subscriptions.contains_key(&mid) { owned.admit_in_place(new) } else { owned.admit(new) }?;
        let source = self.tracks.get_mut(new).ok_or(SfuError::NoTrack)?;
        if source.kind != kind {
            return Err(SfuError::InvalidParams("the transceiver carries another kind"));
        }
        let negotiated = session.subscriptions.get(&mid).map_or(&[][..], |before| &before.formats);
        let knows = |format: &u8| negotiated.is_empty() || negotiated.contains(format);
        if !formats.is_empty() && !formats.iter().any(knows) {
            return Err(SfuError::InvalidParams("the transceiver was negotiated for another codec"));
        }
        source.subscribers.push((key, mid));
        // The client sends TWCC feedback from the next negotiation on.
        session.wants_twcc |= source.layers.len() > 1;
        let before = match session.subscriptions.get_mut(&mid) {
            Some(subscription) => {
                subscription.forward.source_changed();
                // Another publisher may use the same payload type for another codec.
                subscription.payload_types.clear();
                subscription.publisher = publisher.clone();
                subscription.name = name.to_owned();
                if subscription.barred != barred {
                    subscription.bar(barred);
                }
                subscription.track.replace(new)
            }
            None => {
                let mut subscription = Subscription::new(publisher.clone(), name.to_owned(), kind)?;
                subscription.track = Some(new);
                subscription.state = SubscriptionState::Open;
                subscription.bar(barred);
                session.subscriptions.insert(mid, subscription);
                None
            }
        };
        if before.is_some() {
            self.unlink(key, mid, before);
        }
        Ok(())
    }

    /// Returns the state of all tracks that a session publishes or subscribes to.
    pub(super) fn states(&self, now: Instant, key: SessionKey) -> Vec<TrackState> {
        let Some(session) = self.sessions.get(key) else { return Vec::new() };
        let own = session.publications.iter().filter_map(|(mid, track)| {
            let track = self.tracks.get(*track)?;
            let status = self.status(now, track);
            Some(TrackState {
                mid: session.client_mid(*mid),
                publisher: None,
                name: track.name.clone(),
                status,
            })
        });
        let others = session.subscriptions.iter().map(|(mid, subscription)| {
            let track = subscription.track.and_then(|track| self.tracks.get(track));
            // The publisher may be sending, but nothing is forwarded to this session.
            let is_refused = subscription.state == SubscriptionState::Refused;
            let is_paused = subscription.paused.is_some() || subscription.barred;
            let track = track.filter(|_| !is_paused && !is_refused);
            TrackState {
                mid: session.client_mid(*mid),
                publisher: Some(subscription.publisher.clone()),
                name: subscription.name.clone(),
                status: track.map_or(TrackStatus::Inactive, |track| self.status(now, track)),
            }
        });
        let mut all: Vec<_> = own.chain(others).collect();
        all.sort_by(|one, other| one.mid.cmp(&other.mid));
        all
    }

    /// Returns the status of a track: media flow, did not flow yet, or stopped.
    pub(super) fn status(&self, now: Instant, track: &Track) -> TrackStatus {
        if track.layers.is_active(now) {
            TrackStatus::Active
        } else if !track.layers.ever() && now.saturating_duration_since(track.published) < COLLECTED_AFTER {
            TrackStatus::Initializing
        } else {
            TrackStatus::Inactive
        }
    }
}

impl Subscription {
    /// Creates a subscription that was not offered yet.
    pub(super) fn new(publisher: SessionId, name: String, kind: TrackKind) -> Result<Self, SfuError> {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|_| SfuError::Internal)?;
        // Starting in the lower half leaves many packets before the first wrap of the sequence number.
        let first = u16::from_ne_bytes(random) >> 1;
        Ok(Self {
            track: None,
            publisher,
            name,
            kind,
            wish: LayerWish::default(),
            state: SubscriptionState::Offered,
            forward: RtpRewriter::new(first),
            paused: None,
            barred: false,
            payload_types: Vec::new(),
            ssrc: None,
            formats: Vec::new(),
            packets: 0,
        })
    }
}
