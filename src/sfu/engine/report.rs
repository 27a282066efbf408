//! The report for operators.

use std::time::Instant;

use super::Engine;
use crate::api::Caller;
use crate::request::{LayerReport, SessionReport, SfuReport, SubscriberReport, TrackReport};

impl Engine {
    /// Returns all sessions and tracks as of `now`.
    pub(super) fn report(&self, now: Instant) -> SfuReport {
        let sessions = self.sessions.values().map(|session| SessionReport {
            id: session.id.to_string(),
            owner: match &session.owner {
                Caller::Person(identity) => identity.to_string(),
                Caller::Ai => "ai".to_owned(),
                Caller::Server => "api".to_owned(),
            },
            state: session.link.label(),
            age_seconds: now.saturating_duration_since(session.opened).as_secs(),
            publishes: session.publications.len(),
            subscribes: session.subscriptions.len(),
            sections: session.sections.len(),
            estimate_bits: session.estimate(),
            received_bytes: session.received_bytes,
            sent_bytes: session.sent_bytes,
            lost_packets: session.lost_packets(),
        });
        let tracks = self.tracks.values().map(|track| {
            let layers = (0..track.layers.len()).map(|layer| LayerReport {
                rid: track.layers.rid(layer).map(str::to_owned),
                bits: track.layers.bits(layer, now),
                live: track.layers.is_live(layer, now),
            });
            let subscribers = track.subscribers.iter().filter_map(|(key, mid)| {
                let session = self.sessions.get(*key)?;
                let subscription = session.subscriptions.get(mid)?;
                let layer = subscription.forward.current();
                Some(SubscriberReport {
                    session: session.id.to_string(),
                    mid: mid.to_string(),
                    rid: layer.and_then(|layer| track.layers.rid(layer)).map(str::to_owned),
                    paused: subscription.paused.is_some(),
                    packets: subscription.packets,
                })
            });
            TrackReport {
                session: self.sessions.get(track.publisher).map(|s| s.id.to_string()).unwrap_or_default(),
                name: track.name.clone(),
                kind: track.kind,
                codec: track.codec(),
                layers: layers.collect(),
                subscribers: subscribers.collect(),
            }
        });
        SfuReport { sessions: sessions.collect(), tracks: tracks.collect() }
    }
}
