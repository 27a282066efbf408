//! Offers and answers of the client and of the server.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, Mid};
use str0m::{Rtc, RtcError};

use super::super::credentials::with_credentials;
use super::super::forwarding::media_kind;
use super::super::session::{Link, Pending};
use super::super::{Engine, SessionKey};
use crate::description::{
    Description, MLine, ParsedDescription, SectionState, for_client, nothing_goes_on, refuse_unknown,
};
use crate::error::SfuError;
use crate::request::{DescriptionType, SessionDescription, TrackKind};

/// Maximum number of tries to find distinct mids for an offer: one in five fails with as many as a session may have.
const MAX_TRIES: usize = 50;

/// Time for which an unanswered offer blocks another: a client that never received it could not continue otherwise.
const UNANSWERED: Duration = Duration::from_secs(5);

/// A new m-line of an offer.
pub(super) struct Offered {
    pub(super) kind: TrackKind,
    pub(super) direction: Direction,
    /// The id of its media stream.
    pub(super) stream: Option<String>,
    /// Its payload types; all if empty.
    pub(super) formats: Vec<u8>,
}

impl Engine {
    /// Creates the session's peer for its first description; `has_layers` if that has simulcast.
    pub(super) fn ensure_rtc(
        &mut self,
        now: Instant,
        key: SessionKey,
        has_layers: bool,
    ) -> Result<(), SfuError> {
        let session = self.sessions.get(key).ok_or(SfuError::NoSession)?;
        if session.rtc.is_some() {
            return Ok(());
        }
        let credentials = self.settings.secret.credentials()?;
        let ufrag = credentials.ufrag.clone();
        // str0m estimates bandwidth from the start or never, and that costs as much as a fifth of forwarding.
        let is_measurable = has_layers || self.tracks.values().any(|track| track.layers.len() > 1);
        let rtc = Box::new(self.new_rtc(now, session.ice, credentials, is_measurable));
        if let Some(session) = self.sessions.get_mut(key) {
            session.is_measurable = is_measurable;
            session.rtc = Some(rtc);
            self.by_ufrag.remove(&session.ufrag);
            session.ufrag.clone_from(&ufrag);
            session.link = Link::Connecting(now);
        }
        self.by_ufrag.insert(ufrag, key);
        Ok(())
    }

    /// Applies a client's offer and returns the answer.
    pub(super) fn accept_offer(
        &mut self,
        now: Instant,
        key: SessionKey,
        offer: Description,
    ) -> Result<SessionDescription, SfuError> {
        let Description { parsed, mut sections, has_layers, is_bundled, .. } = offer;
        if let Some(ParsedDescription::Answer(_)) = parsed {
            return Err(SfuError::Description("an offer is due".into()));
        }
        self.ensure_rtc(now, key, has_layers)?;
        self.void_pending(key);
        self.end_sections(now, key, &sections);
        let session = self.sessions.get_mut(key).ok_or(SfuError::Internal)?;
        session.is_unbundled = !is_bundled;
        let Some(ParsedDescription::Offer(parsed)) = parsed else {
            session.sections = sections;
            return Ok(nothing_goes_on(&session.sections, &session.terms()));
        };
        let fresh = self.settings.secret.credentials()?;
        let accepted = self.with_rtc(now, key, |rtc| {
            let before = rtc.direct_api().local_ice_credentials();
            let answer = rtc.sdp_api().accept_offer(parsed)?.to_sdp_string();
            let after = rtc.direct_api().local_ice_credentials();
            if after == before {
                return Ok((answer, None));
            }
            // The client restarted ICE (RFC 8445 section 9). The credentials that str0m generated can be predicted.
            rtc.direct_api().set_local_ice_credentials(fresh.clone());
            Ok::<_, RtcError>((with_credentials(&answer, &after, &fresh), Some(fresh.ufrag)))
        });
        let (text, ufrag) = negotiated(accepted)?;
        let before = self.sessions.get(key).map_or(&[][..], |session| &session.sections);
        for mid in refuse_unknown(&text, &mut sections, before) {
            self.end_media(now, key, mid);
        }
        let session = self.sessions.get_mut(key).ok_or(SfuError::Internal)?;
        session.sections = sections;
        if let Some(ufrag) = ufrag {
            self.by_ufrag.remove(&session.ufrag);
            session.ufrag.clone_from(&ufrag);
            self.by_ufrag.insert(ufrag, key);
        }
        session.accept_again();
        let terms = session.terms();
        Ok(for_client(DescriptionType::Answer, &text, &session.sections, &self.candidate_lines, &terms))
    }

    /// Discards an unanswered offer for a new one, once it is older than [`UNANSWERED`].
    pub(super) fn supersede_pending(&mut self, now: Instant, key: SessionKey) -> Result<(), SfuError> {
        let pending = self.sessions.get(key).and_then(|session| session.pending.as_ref());
        if pending.is_some_and(|pending| now.saturating_duration_since(pending.made) < UNANSWERED) {
            return Err(SfuError::OfferPending);
        }
        self.void_pending(key);
        Ok(())
    }

    /// Discards an offer that will not be answered any more, and the subscriptions that it would have opened.
    pub(super) fn void_pending(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(pending) = session.pending.take() else { return };
        let void = pending.subscriptions.into_iter();
        let void: Vec<_> = void.filter_map(|mid| Some((mid, session.subscriptions.remove(&mid)?))).collect();
        for (mid, subscription) in void {
            self.unlink(key, mid, subscription.track);
        }
    }

    /// Ends the m-lines that the client ended, so that other tracks can use them.
    pub(super) fn end_sections(&mut self, now: Instant, key: SessionKey, sections: &[MLine]) {
        let Some(session) = self.sessions.get(key) else { return };
        let is_live = |mid: &str| {
            sections.iter().any(|section| section.state == SectionState::Live && section.mid == mid)
        };
        let before = session.sections.iter().filter(|section| section.state == SectionState::Live);
        let ended: Vec<Mid> =
            before.filter(|section| !is_live(&section.mid)).map(|section| section.alias).collect();
        for mid in ended {
            self.end_media(now, key, mid);
        }
    }

    /// Ends an m-line and its track or subscription.
    pub(super) fn end_media(&mut self, now: Instant, key: SessionKey, mid: Mid) {
        self.end_track(key, mid);
        if let Some(session) = self.sessions.get_mut(key) {
            session.forget(mid);
        }
        self.with_rtc(now, key, |rtc| {
            rtc.direct_api().remove_media(mid);
            Ok::<_, RtcError>(())
        });
    }

    /// Creates an offer with new m-lines; none if `media` is empty.
    pub(super) fn make_offer(
        &mut self,
        now: Instant,
        key: SessionKey,
        media: &[Offered],
    ) -> Result<(Option<SessionDescription>, Vec<Mid>), SfuError> {
        if media.is_empty() {
            return Ok((None, Vec::new()));
        }
        let sections = self.sessions.get(key).map_or(&[][..], |session| &session.sections);
        let taken: HashSet<Mid> = sections.iter().map(|section| section.alias).collect();
        let offered = self.with_rtc(now, key, |rtc| {
            // str0m generates mids of three letters, which may repeat each other or those of ended m-lines.
            for _ in 0..MAX_TRIES {
                let mut api = rtc.sdp_api();
                let add = |Offered { kind, direction, stream, .. }: &Offered| {
                    // A distinct track id: Chromium refuses a second m-line with the same (stream, track).
                    api.add_media(media_kind(*kind), *direction, stream.clone(), None, None)
                };
                let mids: Vec<Mid> = media.iter().map(add).collect();
                let mut all = taken.clone();
                if mids.iter().all(|mid| all.insert(*mid)) {
                    let applied = api.apply().ok_or("nothing to offer")?;
                    return Ok((applied.0, applied.1, mids));
                }
            }
            Err("no mids are free")
        });
        let (offer, pending, mids) = negotiated(offered)?;
        let session = self.sessions.get_mut(key).ok_or(SfuError::Internal)?;
        session.pending =
            Some(Pending { offer: pending, made: now, publications: Vec::new(), subscriptions: Vec::new() });
        let text = offer.to_sdp_string();
        let mut terms = session.terms();
        let formats = mids.iter().zip(media).filter(|(_, media)| !media.formats.is_empty());
        terms.formats.extend(formats.map(|(mid, media)| (mid.to_string(), media.formats.clone())));
        let offer =
            for_client(DescriptionType::Offer, &text, &session.sections, &self.candidate_lines, &terms);
        Ok((Some(offer), mids))
    }
}

/// A named function, because a closure with these types is hard to read.
pub(super) fn accept_answer(
    rtc: &mut Rtc,
    offer: SdpPendingOffer,
    answer: SdpAnswer,
) -> Result<(), RtcError> {
    rtc.sdp_api().accept_answer(offer, answer)
}

/// Converts the result of a negotiation: str0m's error message tells the flaw of a description.
pub(super) fn negotiated<T, E: std::fmt::Display>(done: Option<Result<T, E>>) -> Result<T, SfuError> {
    done.ok_or(SfuError::Internal)?.map_err(|error| SfuError::Description(error.to_string()))
}
