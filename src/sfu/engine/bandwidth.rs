//! Bandwidth estimates of subscribers' connections, and the video layers chosen within them.

use std::time::{Duration, Instant};

use str0m::RtcError;
use str0m::bwe::{Bitrate, BweKind};

use super::peer::FIRST_ESTIMATE;
use super::session::{Session, Subscription, SubscriptionState};
use super::{Engine, SessionKey, Track};
use crate::layers::{Budget, LayerDemand, allocate, desired};
use crate::request::TrackKind;

/// Time for which an estimate may be slightly too low before video is lowered or paused for it: it dips after each
/// moment of queueing, which a keyframe causes, too.
const LOWERED_AFTER: Duration = Duration::from_secs(1);

/// Percent of the sent rate; an estimate below it lowers video at once.
const SEVERE_PERCENT: u64 = 70;

/// Time for which paused video stays paused: video that comes and goes is worse than none.
const RESUMED_AFTER: Duration = Duration::from_secs(3);

/// Minimum desired bitrate, in bits per second, during the first probes.
const FIRST_DESIRED: u64 = 1_500_000;

/// Timeout of a client's first TWCC feedback; after it the client is assumed to send none.
const UNMEASURED: Duration = Duration::from_secs(5);

impl Engine {
    /// Takes a bandwidth estimate (TWCC or REMB) of a session's connection.
    pub(super) fn take_estimate(&mut self, now: Instant, key: SessionKey, estimate: &BweKind) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        match *estimate {
            BweKind::Twcc { estimate, can_probe } if session.wants_twcc => {
                let before = session.twcc;
                session.twcc = can_probe.then_some(estimate.as_u64());
                let is_first = can_probe && estimate == FIRST_ESTIMATE;
                session.unmeasured = is_first.then(|| session.unmeasured.unwrap_or(now));
                // If the estimate suffices for everything before and after, the choice stays the same; the periodic
                // work handles changes of tracks.
                let wanted = session.wanted;
                let has_room = |estimate: Option<u64>| estimate.is_some_and(|estimate| estimate >= wanted);
                if is_first || !has_room(before) || !has_room(session.twcc) {
                    self.choose_layers(now, key);
                }
            }
            BweKind::Remb { estimate, .. } if session.twcc.is_none() => {
                let sent = sent_bits(session, &self.tracks, now);
                let before = session.remb.bits();
                session.remb.report(now, estimate.as_u64(), sent, session.is_lossy(now));
                if session.remb.bits() != before {
                    // TWCC feedback is requested from the session's next negotiation on.
                    session.wants_twcc = true;
                    self.choose_layers(now, key);
                }
            }
            _ => {}
        }
    }

    /// Chooses layers again for sessions with simulcast subscriptions or a limited connection: the rates of layers
    /// change without an event.
    pub(super) fn choose_again(&mut self, now: Instant) {
        let constrained = self.sessions.iter().filter(|(_, session)| session.wants_twcc);
        let constrained: Vec<SessionKey> = constrained.map(|(key, _)| key).collect();
        for key in constrained {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let (demands, held) = demands(session, &self.tracks, now);
            let wanted = desired(demands.iter().map(|(_, demand)| demand), now, held);
            session.remb.raise(now, wanted);
            self.choose_layers(now, key);
        }
    }

    /// Chooses the layer of each video that a session subscribes to, and pauses videos that do not fit.
    pub(super) fn choose_layers(&mut self, now: Instant, of: SessionKey) {
        let Some(session) = self.sessions.get(of) else { return };
        let (demands, held) = demands(session, &self.tracks, now);
        if demands.is_empty() {
            return;
        }
        let (mids, demands): (Vec<_>, Vec<_>) = demands.into_iter().unzip();
        let sent = sent_bits(session, &self.tracks, now);
        let is_first = session.unmeasured.is_some();
        let is_silent =
            session.unmeasured.is_some_and(|since| now.saturating_duration_since(since) > UNMEASURED);
        let estimate = match session.estimate() {
            _ if is_silent => None,
            // Nothing is measured yet: no layer is raised, and nothing that is being sent is lowered.
            Some(first) if is_first => Some(first.max(sent + sent / 10)),
            estimate => estimate,
        };
        let mut budget = Budget { estimate, held, may_lower: true };
        let mut chosen = allocate(&demands, budget, now);
        let is_short = demands.iter().zip(&chosen).any(|(demand, layer)| demand.is_lowered_to(*layer));
        let short_since = is_short.then(|| session.short_since.unwrap_or(now));
        if let (Some(since), Some(estimate)) = (short_since, estimate) {
            let is_severe = estimate < sent / 100 * SEVERE_PERCENT;
            if !is_severe && now.saturating_duration_since(since) < LOWERED_AFTER {
                budget.may_lower = false;
                chosen = allocate(&demands, budget, now);
            }
        }
        let paused: Vec<bool> = demands
            .iter()
            .zip(&chosen)
            .map(|(demand, layer)| estimate.is_some() && layer.is_none() && demand.has_layer(now))
            .collect();
        let wanted = desired(&demands, now, held);
        // str0m's pacer follows only the estimates that str0m makes itself.
        let is_measured = session.twcc.is_some();
        let is_constrained = is_measured && !is_first && estimate.is_some_and(|estimate| estimate < wanted);

        let Some(session) = self.sessions.get_mut(of) else { return };
        session.wanted = if paused.contains(&true) { u64::MAX } else { wanted };
        session.short_since = short_since;
        session.is_constrained = is_constrained;
        let mut changed = false;
        for ((mid, layer), is_paused) in mids.into_iter().zip(chosen).zip(paused) {
            if let Some(subscription) = session.subscriptions.get_mut(&mid) {
                let before = subscription.forward.waits_for();
                subscription.forward.aim(layer);
                subscription.paused = is_paused.then(|| subscription.paused.unwrap_or(now));
                changed |= subscription.forward.waits_for() != before;
            }
        }
        if is_measured {
            // Probes go to twice this rate: on a narrow connection they must not fill its queue.
            let desired = match estimate {
                Some(estimate) if is_constrained => wanted.min(estimate + estimate / 2),
                // The rate of a video that starts is known only later, and the first probes end soon.
                Some(_) if is_first => wanted.max(FIRST_DESIRED),
                _ => wanted,
            };
            self.write(now, of, |rtc| {
                rtc.bwe().set_desired_bitrate(Bitrate::from(desired));
                Ok::<_, RtcError>(())
            });
        }
        if changed {
            self.request_awaited_keyframes(now, of);
        }
    }
}

type TrackTable = slotmap::SlotMap<super::TrackKey, Track>;

/// Returns the layer demands of a session's video subscriptions, and the bits per second of its audio.
fn demands<'a>(
    session: &'a Session,
    tracks: &'a TrackTable,
    now: Instant,
) -> (Vec<(str0m::media::Mid, LayerDemand<'a>)>, u64) {
    let mut demands = Vec::new();
    let mut held = 0;
    let is_sent =
        |subscription: &&Subscription| subscription.state == SubscriptionState::Open && !subscription.barred;
    for (mid, subscription) in session.subscriptions.iter().filter(|(_, subscription)| is_sent(subscription))
    {
        let Some(track) = subscription.track.and_then(|key| tracks.get(key)) else { continue };
        if subscription.kind == TrackKind::Audio {
            held += track.layers.bits(0, now);
            continue;
        }
        let rests =
            subscription.paused.is_some_and(|since| now.saturating_duration_since(since) < RESUMED_AFTER);
        let current = subscription.forward.current();
        demands.push((*mid, LayerDemand { layers: &track.layers, wish: &subscription.wish, current, rests }));
    }
    (demands, held)
}

/// Bits per second that a session is sent, without bursts.
fn sent_bits(session: &Session, tracks: &TrackTable, now: Instant) -> u64 {
    let bits = session.subscriptions.values().filter_map(|subscription| {
        let layers = &tracks.get(subscription.track?)?.layers;
        let current = subscription.forward.current()?;
        // A keyframe raises the short-term rate, and a new stream distorts the long-term one.
        Some(layers.bits(current, now).min(layers.steady_bits(current, now)))
    });
    bits.sum()
}
