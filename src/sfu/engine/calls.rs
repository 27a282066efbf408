//! The requests of clients, one method each.

mod negotiation;
mod publish;

use std::time::Instant;

use str0m::RtcError;
use str0m::media::{Direction, Mid};
use tracing::debug;

use super::session::{Pending, Session, Subscription, SubscriptionState};
use super::{Engine, SessionKey, TrackKey};
use crate::api::Caller;
use crate::description::{Description, ParsedDescription};
use crate::error::SfuError;
use crate::id::SessionId;
use crate::network::ClientNetwork;
use crate::request::{
    Ice, Reply, Request, RequestResult, Subscribe, TrackDone, TrackFailed, TrackStatus, Transceiver, Update,
};
use negotiation::{Offered, accept_answer, negotiated};

type Done = Result<TrackDone, TrackFailed>;

impl Engine {
    /// Handles a request.
    ///
    /// # Errors
    /// [`SfuError`] if the request failed as a whole. Failures of single tracks are in the reply.
    pub fn handle(&mut self, now: Instant, request: Request) -> RequestResult {
        let outcome = match request {
            Request::Open { owner, network, offer, ice } => self.open(now, owner, network, offer, ice),
            Request::Publish { session, tracks, offer: Some(offer) } => {
                self.session(&session).and_then(|key| self.publish(now, key, tracks, offer))
            }
            Request::Publish { session, tracks, offer: None } => {
                self.session(&session).and_then(|key| self.offer_to_publish(now, key, tracks))
            }
            Request::Subscribe { session, tracks } => {
                self.session(&session).and_then(|key| self.subscribe(now, key, tracks))
            }
            Request::Answer { session, answer } => {
                self.session(&session).and_then(|key| self.answer(now, key, answer))
            }
            Request::Close { session, tracks, offer } => {
                self.session(&session).and_then(|key| self.close(now, key, tracks, offer))
            }
            Request::Update { session, tracks } => {
                self.session(&session).map(|key| self.update(now, key, tracks))
            }
            Request::Tracks { session } => {
                self.session(&session).map(|key| Reply::Session(self.states(now, key)))
            }
            Request::SetAccess(sessions) => {
                for (session, access) in sessions {
                    if let Ok(key) = self.session(&session) {
                        self.set_access(now, key, access);
                    }
                }
                Ok(Reply::Answered(Vec::new()))
            }
            Request::Report => Ok(Reply::Report(Box::new(self.report(now)))),
            Request::EndAll => Ok(Reply::Ended(self.end_all(now))),
        };
        self.settle(now);
        self.count_gauges();
        outcome
    }

    fn session(&self, id: &SessionId) -> Result<SessionKey, SfuError> {
        self.by_id.get(id).copied().ok_or(SfuError::NoSession)
    }

    fn open(
        &mut self,
        now: Instant,
        owner: Caller,
        network: Option<ClientNetwork>,
        offer: Option<Description>,
        ice: Ice,
    ) -> RequestResult {
        self.make_room(now, &owner, network)?;
        let id = new_id(self.settings.session_prefix)?;
        let session = Session::new(id.clone(), owner, network, ice, now);
        let key = self.sessions.insert(session);
        self.by_id.insert(id.clone(), key);
        let description = match offer {
            None => None,
            Some(offer) => match self.accept_offer(now, key, offer) {
                Ok(answer) => Some(answer),
                Err(error) => {
                    self.remove(now, key);
                    return Err(error);
                }
            },
        };
        debug!(event = "mediaSessionOpened", session = %id, ?ice);
        Ok(Reply::Opened { session: id, description })
    }

    /// Ends the track or the subscription of a transceiver; true if there was one.
    fn end_track(&mut self, key: SessionKey, mid: Mid) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let published = session.publications.remove(&mid);
        let subscribed = session.subscriptions.remove(&mid);
        if let Some(track) = published {
            session.streams.retain(|_, (of, _)| *of != track);
            self.unpublish(track);
        }
        let carried = published.is_some() || subscribed.is_some();
        if let Some(subscription) = subscribed {
            self.unlink(key, mid, subscription.track);
        }
        carried
    }

    fn check_room(&self, key: SessionKey, more: usize) -> Result<(), SfuError> {
        let session = self.sessions.get(key).ok_or(SfuError::NoSession)?;
        if session.tracks() + more > self.settings.limits.tracks_per_session {
            return Err(SfuError::TooMany("the session has too many tracks"));
        }
        Ok(())
    }

    fn subscribe(&mut self, now: Instant, key: SessionKey, tracks: Vec<Subscribe>) -> RequestResult {
        self.ensure_rtc(now, key, false)?;
        self.supersede_pending(now, key)?;
        let mut owned = self.subscriptions_of_owner(key);
        let find = |track: &Subscribe| {
            let found = self.find(now, &track.publisher, &track.name)?;
            self.check_share(key, found)?;
            owned.admit(found)?;
            Ok(found)
        };
        let found: Vec<_> = tracks.iter().map(find).collect();
        self.check_room(key, found.iter().filter(|found| found.is_ok()).count())?;
        let media: Vec<_> = tracks
            .iter()
            .zip(&found)
            .filter_map(|(track, found)| {
                // Browsers synchronize tracks of the same stream.
                let stream = Some(track.publisher.as_str().to_owned());
                let found = *found.as_ref().ok()?;
                let (kind, formats) = (self.tracks.get(found)?.kind, self.formats_for(key, found));
                Some(Offered { kind, direction: Direction::SendOnly, stream, formats })
            })
            .collect();
        if let Some(session) = self.sessions.get_mut(key) {
            let found = found.iter().flatten().filter_map(|track| self.tracks.get(*track));
            session.wants_twcc |= found.into_iter().any(|track| track.layers.len() > 1);
        }
        let (offer, mids) = self.make_offer(now, key, &media)?;
        let mut mids = mids.into_iter();
        let mut done = Vec::with_capacity(tracks.len());
        for (track, found) in tracks.into_iter().zip(found) {
            let Subscribe { publisher, name, layer } = track;
            let opened = found.and_then(|found| Ok((found, mids.next().ok_or(SfuError::Internal)?)));
            let (found, mid) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    let (publisher, name) = (Some(publisher), Some(name));
                    done.push(Err(TrackFailed { mid: None, publisher, name, error }));
                    continue;
                }
            };
            let formats = self.formats_for(key, found);
            let barred = !self.may_forward(found, key);
            let (Some(session), Some(source)) = (self.sessions.get_mut(key), self.tracks.get_mut(found))
            else {
                return Err(SfuError::Internal);
            };
            source.subscribers.push((key, mid));
            let mut subscription = Subscription::new(publisher.clone(), name.clone(), source.kind)?;
            subscription.track = Some(found);
            subscription.wish = layer;
            subscription.formats = formats;
            subscription.bar(barred);
            session.subscriptions.insert(mid, subscription);
            if let Some(pending) = &mut session.pending {
                pending.subscriptions.push(mid);
            }
            done.push(Ok(TrackDone { mid: mid.to_string(), publisher: Some(publisher), name: Some(name) }));
        }
        Ok(Reply::Tracks { description: offer, tracks: done })
    }

    /// Returns a track that can be subscribed to.
    pub(super) fn find(&self, now: Instant, publisher: &SessionId, name: &str) -> Result<TrackKey, SfuError> {
        let session = self.by_id.get(publisher).ok_or(SfuError::NoTrack)?;
        let key = *self.by_name.get(&(*session, name.to_owned())).ok_or(SfuError::NoTrack)?;
        let track = self.tracks.get(key).ok_or(SfuError::NoTrack)?;
        if self.status(now, track) == TrackStatus::Inactive {
            return Err(SfuError::NoTrack);
        }
        if track.subscribers.len() >= self.settings.limits.subscribers_per_track {
            return Err(SfuError::TooMany("the track has too many subscribers"));
        }
        Ok(key)
    }

    fn answer(&mut self, now: Instant, key: SessionKey, mut answer: Description) -> RequestResult {
        let session = self.sessions.get_mut(key).ok_or(SfuError::NoSession)?;
        let parsed = match answer.parsed.take() {
            Some(ParsedDescription::Answer(parsed)) => parsed,
            Some(ParsedDescription::Offer(_)) => {
                return Err(SfuError::Description("an answer is due".into()));
            }
            None => {
                self.void_pending(key);
                return Err(SfuError::Description("it takes nothing of what was offered".into()));
            }
        };
        let pending = session.pending.take().ok_or(SfuError::NoOffer)?;
        let Pending { offer, publications, subscriptions, .. } = pending;
        let offered = publications.iter().map(|(mid, ..)| *mid).chain(subscriptions.iter().copied());
        let refused: Vec<Mid> = offered.filter(|mid| !answer.is_live(*mid)).collect();
        let parsed = if refused.is_empty() { Ok(parsed) } else { answer.refusing(&refused) };
        let accepted = parsed
            .and_then(|parsed| negotiated(self.with_rtc(now, key, |rtc| accept_answer(rtc, offer, parsed))));
        if let Err(error) = accepted {
            for mid in subscriptions {
                self.end_track(key, mid);
            }
            return Err(error);
        }
        for (mid, name, kind) in publications.into_iter().filter(|(mid, ..)| !refused.contains(mid)) {
            // The name may have been taken before the client answered.
            let _ = self.add_track(now, key, name, mid, kind, vec![None]);
        }
        // M-lines that the client stopped with its answer end here: no later offer says so.
        self.end_sections(now, key, &answer.sections);
        let session = self.sessions.get_mut(key).ok_or(SfuError::Internal)?;
        for section in &mut answer.sections {
            section.is_idle = session.sections.iter().any(|s| s.alias == section.alias && s.is_idle);
        }
        session.sections = answer.sections;
        let mut failed = Vec::new();
        for mid in subscriptions {
            let is_accepted = session.accepts(mid);
            let Some(subscription) = session.subscriptions.get_mut(&mid) else { continue };
            subscription.state =
                if is_accepted { SubscriptionState::Open } else { SubscriptionState::Refused };
            if !is_accepted {
                let (publisher, name) =
                    (Some(subscription.publisher.clone()), Some(subscription.name.clone()));
                let error = SfuError::NotAccepted;
                failed.push(TrackFailed { mid: Some(mid.to_string()), publisher, name, error });
            }
        }
        for mid in refused {
            self.end_media(now, key, mid);
        }
        self.choose_layers(now, key);
        self.request_awaited_keyframes(now, key);
        Ok(Reply::Answered(failed))
    }

    fn close(
        &mut self,
        now: Instant,
        key: SessionKey,
        tracks: Vec<Transceiver>,
        offer: Option<Description>,
    ) -> RequestResult {
        let mut ended: Vec<Mid> = Vec::new();
        let closed = tracks.into_iter().map(|at| match self.transceiver(key, &at) {
            Some(mid) if self.end_track(key, mid) => {
                ended.push(mid);
                let mid = self.sessions.get(key).map_or_else(|| mid.to_string(), |s| s.client_mid(mid));
                Ok(TrackDone { mid, publisher: None, name: None })
            }
            _ => {
                let error = SfuError::NothingToClose;
                Err(TrackFailed { mid: at.name(), publisher: None, name: None, error })
            }
        });
        let closed: Vec<Done> = closed.collect();
        // An offer whose tracks are all closed will not be answered.
        if let Some(session) = self.sessions.get(key)
            && session.pending.as_ref().is_some_and(|pending| {
                let is_open = |mid: &Mid| session.subscriptions.contains_key(mid);
                pending.publications.is_empty() && !pending.subscriptions.iter().any(is_open)
            })
        {
            self.void_pending(key);
        }
        let description = match offer {
            None => None,
            Some(offer) => {
                // The library partytracks stops one transceiver of several; the others must end, too.
                self.with_rtc(now, key, |rtc| {
                    let mut api = rtc.sdp_api();
                    for mid in ended {
                        api.set_direction(mid, Direction::Inactive);
                    }
                    Ok::<_, RtcError>(())
                });
                Some(self.accept_offer(now, key, offer)?)
            }
        };
        Ok(Reply::Tracks { description, tracks: closed })
    }

    fn update(&mut self, now: Instant, key: SessionKey, tracks: Vec<Update>) -> Reply {
        let tracks = tracks.into_iter().map(|update| self.update_one(now, key, update)).collect();
        self.choose_layers(now, key);
        self.request_awaited_keyframes(now, key);
        Reply::Tracks { description: None, tracks }
    }
}

/// A random id; with a prefix it has 96 random bits, which cannot be guessed either.
fn new_id(prefix: Option<u32>) -> Result<SessionId, SfuError> {
    use std::fmt::Write;
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| SfuError::Internal)?;
    if let (Some(prefix), Some(first)) = (prefix, bytes.first_chunk_mut()) {
        *first = prefix.to_be_bytes();
    }
    let text = bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Formatting into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    SessionId::parse(&text).map_err(|_| SfuError::Internal)
}
