//! Subscriptions that are barred while their track is forwarded to others, and opened again.

use std::time::Instant;

use super::session::Subscription;
use super::{Engine, SessionKey, TrackKey};
use crate::access::SessionAccess;

impl Engine {
    /// Sets what a session may receive and send. Subscriptions stay; nothing is forwarded on those that are barred.
    pub(super) fn set_access(&mut self, now: Instant, key: SessionKey, access: SessionAccess) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.access = Some(access);
        let own = session.subscriptions.iter().map(|(mid, subscription)| (key, *mid, subscription.track));
        let mut concerned: Vec<_> = own.collect();
        for track in session.publications.values() {
            let subscribers = self.tracks.get(*track).into_iter().flat_map(|track| &track.subscribers);
            concerned.extend(subscribers.map(|(subscriber, mid)| (*subscriber, *mid, Some(*track))));
        }
        for (subscriber, mid, track) in concerned {
            let Some(track) = track else { continue };
            let barred = !self.may_forward(track, subscriber);
            let session = self.sessions.get_mut(subscriber);
            let subscription = session.and_then(|session| session.subscriptions.get_mut(&mid));
            if let Some(subscription) = subscription.filter(|subscription| subscription.barred != barred) {
                subscription.bar(barred);
                self.choose_layers(now, subscriber);
                self.request_awaited_keyframes(now, subscriber);
            }
        }
    }

    /// True if a session may receive a track. Owners may receive their own.
    pub(super) fn may_forward(&self, track: TrackKey, to: SessionKey) -> bool {
        let (Some(track), Some(to)) = (self.tracks.get(track), self.sessions.get(to)) else { return false };
        let Some(publisher) = self.sessions.get(track.publisher) else { return false };
        match (&publisher.access, &to.access) {
            (Some(from), Some(access)) => {
                publisher.owner == to.owner || from.may_send(track.kind, &track.name, access)
            }
            _ => true,
        }
    }
}

impl Subscription {
    /// Stops forwarding, or starts it: with the next keyframe, if it is a video.
    pub(super) fn bar(&mut self, barred: bool) {
        self.barred = barred;
        self.forward.aim((!barred).then_some(0));
    }
}
