//! Limits on sessions and subscriptions, and eviction of old sessions for new ones.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::session::{Link, Session};
use super::{Engine, SessionKey, TrackKey};
use crate::api::Caller;
use crate::error::SfuError;
use crate::network::ClientNetwork;
use crate::settings::SfuLimits;

/// A session's worth to its client: the session of the least worth is evicted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    NeverNegotiated,
    NeverConnected,
    /// Connected, with neither publications nor subscriptions.
    Unused,
    Lost,
}

impl Worth {
    /// Returns the worth of a session that may be evicted; none if it is connected and carries a track.
    fn of(session: &Session) -> Option<Self> {
        match session.link {
            Link::New(_) => Some(Self::NeverNegotiated),
            Link::Connecting(_) => Some(Self::NeverConnected),
            Link::Lost(_) => Some(Self::Lost),
            Link::Connected => {
                (session.publications.is_empty() && session.subscriptions.is_empty()).then_some(Self::Unused)
            }
        }
    }
}

impl Engine {
    /// Evicts a session for a new one if the owner, its network or the server is at its limit.
    ///
    /// The oldest session that never negotiated is evicted first, then the oldest that never connected, then the
    /// oldest that carries nothing: reloaded pages leave such sessions behind, and opening them costs nothing. A
    /// session whose connection was lost is evicted only for a session of the same owner.
    ///
    /// # Errors
    /// [`SfuError::TooMany`] if no session may be evicted.
    pub(super) fn make_room(
        &mut self,
        now: Instant,
        owner: &Caller,
        network: Option<ClientNetwork>,
    ) -> Result<(), SfuError> {
        let SfuLimits { sessions, sessions_per_owner, sessions_per_network, .. } = self.settings.limits;
        if matches!(owner, Caller::Person(_)) {
            let full = SfuError::TooMany("you have too many sessions");
            self.evict_from(now, sessions_per_owner, Worth::Lost, full, |session| session.owner == *owner)?;
        }
        if let Some(network) = network.filter(|_| sessions_per_network > 0) {
            let full = SfuError::TooMany("your network has too many sessions");
            let worth = Worth::Unused;
            self.evict_from(now, sessions_per_network, worth, full, |session| {
                session.network == Some(network)
            })?;
        }
        let full = SfuError::TooMany("the media server has too many sessions");
        self.evict_from(now, sessions, Worth::Unused, full, |_| true)
    }

    /// Evicts the session of the least worth, up to `most_worth`, if those that `among` selects are at `limit`.
    fn evict_from(
        &mut self,
        now: Instant,
        limit: usize,
        most_worth: Worth,
        full: SfuError,
        among: impl Fn(&Session) -> bool,
    ) -> Result<(), SfuError> {
        let counted = || self.sessions.iter().filter(|(_, session)| among(session));
        if counted().count() < limit {
            return Ok(());
        }
        let ranked = counted().filter_map(|(key, session)| {
            let worth = Worth::of(session).filter(|worth| *worth <= most_worth)?;
            Some((worth, session.opened, key))
        });
        let (_, _, least) = ranked.min().ok_or(full)?;
        self.remove(now, least);
        Ok(())
    }

    /// Checks that a session's network does not use up a track's subscriptions: new identities cost nothing, so
    /// limits by owner do not suffice.
    ///
    /// # Errors
    /// [`SfuError::TooMany`] if the network is at its limit for this track.
    pub(super) fn check_share(&self, key: SessionKey, track: TrackKey) -> Result<(), SfuError> {
        let limit = self.settings.limits.subscribers_per_track_and_network;
        let network = self.sessions.get(key).and_then(|session| session.network);
        let (Some(network), Some(track)) = (network, self.tracks.get(track)) else { return Ok(()) };
        // Fast path: most tracks have fewer subscribers than the limit.
        if limit == 0 || track.subscribers.len() < limit {
            return Ok(());
        }
        let networks = track.subscribers.iter().filter_map(|(of, _)| self.sessions.get(*of)?.network);
        if networks.filter(|of| *of == network).count() >= limit {
            return Err(SfuError::TooMany("your network subscribes to this track too often"));
        }
        Ok(())
    }

    /// Counts the subscriptions of a session's owner in all of its sessions.
    pub(super) fn subscriptions_of_owner(&self, key: SessionKey) -> OwnedSubscriptions {
        let mut owned = OwnedSubscriptions {
            limits: self.settings.limits,
            is_limited: false,
            in_session: HashSet::new(),
            of_track: HashMap::new(),
            all: 0,
        };
        let Some(own) = self.sessions.get(key) else { return owned };
        owned.in_session = own.subscriptions.values().filter_map(|subscription| subscription.track).collect();
        // A server that calls the API is responsible for its own users.
        if let Caller::Person(_) = own.owner {
            owned.is_limited = true;
            for session in self.sessions.values().filter(|session| session.owner == own.owner) {
                owned.all += session.subscriptions.len();
                for track in session.subscriptions.values().filter_map(|subscription| subscription.track) {
                    *owned.of_track.entry(track).or_default() += 1;
                }
            }
        }
        owned
    }
}

/// The subscriptions of one owner, counted against its limits.
#[derive(Debug)]
pub(super) struct OwnedSubscriptions {
    limits: SfuLimits,
    is_limited: bool,
    /// Tracks that the requesting session subscribes to.
    in_session: HashSet<TrackKey>,
    /// Subscriptions in all of the owner's sessions, by track.
    of_track: HashMap<TrackKey, usize>,
    all: usize,
}

impl OwnedSubscriptions {
    /// Counts one more subscription if the limits permit it.
    ///
    /// # Errors
    /// [`SfuError::RepeatedSubscription`] if the session already subscribes to this track, else [`SfuError::TooMany`]
    /// if a limit is reached.
    pub(super) fn admit(&mut self, track: TrackKey) -> Result<(), SfuError> {
        if self.in_session.contains(&track) {
            return Err(SfuError::RepeatedSubscription);
        }
        if self.is_limited {
            let of_track = self.of_track.entry(track).or_default();
            if *of_track >= self.limits.subscriptions_per_owner_and_track {
                return Err(SfuError::TooMany("you subscribe to this track too often"));
            }
            if self.all >= self.limits.subscriptions_per_owner {
                return Err(SfuError::TooMany("you subscribe to too many tracks"));
            }
            *of_track += 1;
        }
        self.in_session.insert(track);
        self.all += 1;
        Ok(())
    }

    /// As [`Self::admit`], for a subscription that replaces another.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(super) fn admit_in_place(mut self, track: TrackKey) -> Result<(), SfuError> {
        self.all = self.all.saturating_sub(1);
        self.admit(track)
    }
}
