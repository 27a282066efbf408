//! Publishing tracks, by the client's offer or by the server's.

use std::time::Instant;

use str0m::media::{Direction, Mid, Pt, Rids};

use super::super::forwarding::{Track, kind_of};
use super::super::{Engine, SessionKey, TrackKey};
use super::Done;
use super::negotiation::Offered;
use crate::description::{Description, SectionState, first_formats};
use crate::error::SfuError;
use crate::request::{MediaDirection, Publish, Reply, RequestResult, TrackDone, TrackFailed, TrackKind};

impl Engine {
    /// Publishes tracks of the client's offer.
    pub(super) fn publish(
        &mut self,
        now: Instant,
        key: SessionKey,
        tracks: Vec<Publish>,
        offer: Description,
    ) -> RequestResult {
        let answer = self.accept_offer(now, key, offer)?;
        let formats = first_formats(&answer.sdp);
        let done = tracks.into_iter().map(|track| {
            let error = match self.register(now, key, &track) {
                Ok((mid, published)) => {
                    let mid = track.mid.unwrap_or_else(|| mid.to_string());
                    let format = formats.get(&*mid).copied().map(Pt::from);
                    if let Some(published) = self.tracks.get_mut(published) {
                        published.answered = format;
                    }
                    return Ok(TrackDone { mid, publisher: None, name: Some(track.name) });
                }
                Err(error) => error,
            };
            Err(TrackFailed { mid: track.mid, publisher: None, name: Some(track.name), error })
        });
        let tracks = done.collect();
        Ok(Reply::Tracks { description: Some(answer), tracks })
    }

    /// Publishes one track of the client's offer.
    fn register(
        &mut self,
        now: Instant,
        key: SessionKey,
        track: &Publish,
    ) -> Result<(Mid, TrackKey), SfuError> {
        let mid = track.mid.as_deref().ok_or(SfuError::InvalidParams("a track of an offer needs its mid"))?;
        let session = self.sessions.get(key).ok_or(SfuError::NoSession)?;
        let section = session.sections.iter().find(|section| section.mid == mid);
        let section = section.ok_or(SfuError::InvalidParams("the offer has no section of this mid"))?;
        if section.state == SectionState::Ended || section.is_idle {
            return Err(SfuError::InvalidParams(
                "the section of this mid ended, or has no codec that is known",
            ));
        }
        let mid = section.alias;
        let media = session.rtc.as_deref().and_then(|rtc| rtc.media(mid));
        let media = media.ok_or(SfuError::InvalidParams("the section of this mid was refused"))?;
        if !media.direction().is_receiving() {
            return Err(SfuError::InvalidParams("the offer sends nothing in the section of this mid"));
        }
        let rids = match media.rids_rx() {
            Rids::Specific(rids) => rids.iter().map(|rid| Some(rid.to_string())).collect(),
            Rids::None | Rids::Any => vec![None],
        };
        let kind = kind_of(media.kind());
        let track = self.add_track(now, key, track.name.clone(), mid, kind, rids)?;
        Ok((mid, track))
    }

    /// Adds a track.
    pub(super) fn add_track(
        &mut self,
        now: Instant,
        key: SessionKey,
        name: String,
        mid: Mid,
        kind: TrackKind,
        rids: Vec<Option<String>>,
    ) -> Result<TrackKey, SfuError> {
        let session = self.sessions.get_mut(key).ok_or(SfuError::NoSession)?;
        if self.by_name.contains_key(&(key, name.clone())) || session.publications.contains_key(&mid) {
            return Err(SfuError::RepeatedTrack);
        }
        if session.tracks() >= self.settings.limits.tracks_per_session {
            return Err(SfuError::TooMany("the session has too many tracks"));
        }
        let track = self.tracks.insert(Track::new(key, name.clone(), mid, kind, rids, now));
        session.publications.insert(mid, track);
        self.by_name.insert((key, name), track);
        Ok(track)
    }

    /// Creates an offer to receive tracks, for a client that makes no offer itself.
    pub(super) fn offer_to_publish(
        &mut self,
        now: Instant,
        key: SessionKey,
        tracks: Vec<Publish>,
    ) -> RequestResult {
        self.ensure_rtc(now, key, false)?;
        self.supersede_pending(now, key)?;
        let mut wanted = Vec::new();
        let mut done: Vec<Done> = Vec::new();
        for track in &tracks {
            let taken = self.by_name.contains_key(&(key, track.name.clone()));
            match track.kind {
                Some(kind) if !taken => wanted.push((kind, track)),
                other => {
                    let missing = SfuError::InvalidParams("a track without an offer needs its kind");
                    let error = if other.is_none() { missing } else { SfuError::RepeatedTrack };
                    let name = Some(track.name.clone());
                    done.push(Err(TrackFailed { mid: track.mid.clone(), publisher: None, name, error }));
                }
            }
        }
        self.check_room(key, wanted.len())?;
        let media: Vec<_> = wanted
            .iter()
            .map(|(kind, track)| {
                let direction = match track.way {
                    MediaDirection::In => Direction::RecvOnly,
                    MediaDirection::Both => Direction::SendRecv,
                };
                Offered { kind: *kind, direction, stream: None, formats: Vec::new() }
            })
            .collect();
        let (offer, mids) = self.make_offer(now, key, &media)?;
        let publications =
            wanted.iter().zip(&mids).map(|((kind, track), mid)| (*mid, track.name.clone(), *kind));
        let publications: Vec<_> = publications.collect();
        for (mid, name, _) in &publications {
            done.push(Ok(TrackDone { mid: mid.to_string(), publisher: None, name: Some(name.clone()) }));
        }
        if let Some(pending) = self.sessions.get_mut(key).and_then(|session| session.pending.as_mut()) {
            pending.publications = publications;
        }
        Ok(Reply::Tracks { description: offer, tracks: done })
    }
}
