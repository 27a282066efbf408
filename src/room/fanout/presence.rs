//! Presences of a room's members, published with its snapshots to the members that are sent them.

use std::sync::Arc;

use uuid::Uuid;

use super::{LocalFanout, MemberOutbox};
use crate::id::UserId;
use crate::metrics::Metrics;
use crate::protocol::server::MessageKind;
use crate::room::message::SharedMessage;
use crate::room::outbox::TooSlow;
use crate::room::presence::Presences;
use crate::room::snapshot_throttle::{Audience, Fanout};

/// The presences that were published last. It exists only while the room has a member that is sent them.
#[derive(Debug)]
pub(super) struct PresenceFeed {
    presences: Presences,
    /// The members that are sent them, disconnected ones too.
    members: usize,
    /// Their state, once a member needed it since the last change.
    state: Option<SharedMessage>,
}

/// Result of publishing presences.
#[derive(Debug, Default)]
pub(super) struct PresenceBroadcast {
    /// The members that are too slow for it.
    pub(super) slow: Vec<UserId>,
    /// The messages that were sent.
    pub(super) costs: Vec<Fanout>,
}

impl PresenceFeed {
    fn state(&mut self, metrics: &Metrics) -> &SharedMessage {
        let Self { presences, state, .. } = self;
        state
            .get_or_insert_with(|| SharedMessage::new(MessageKind::PresenceState, presences.state(), metrics))
    }
}

impl LocalFanout {
    /// Counts a member that is sent presences from now on, or no longer.
    pub(super) fn count_presence_member<'a, U>(
        &mut self,
        before: bool,
        now: bool,
        at: fn() -> u64,
        users: impl FnOnce() -> U,
    ) where
        U: Iterator<Item = (&'a str, &'a Arc<str>)>,
    {
        if before || !now {
            return self.forget_presence_member(before && !now);
        }
        let feed = self.presence.get_or_insert_with(|| PresenceFeed {
            presences: Presences::new(Uuid::new_v4().as_u64_pair().0),
            members: 0,
            state: None,
        });
        feed.members += 1;
        if feed.members == 1 {
            drop(self.update_presences(at, users()));
        }
    }

    /// Counts a member that is gone, if it was sent presences.
    pub(super) fn forget_presence_member(&mut self, had_presence: bool) {
        let Some(feed) = self.presence.as_mut().filter(|_| had_presence) else { return };
        feed.members -= 1;
        if feed.members == 0 {
            self.presence = None;
        }
    }

    /// Queues the presences and the newest snapshot for a member that joins, ahead of everything that waits for it.
    ///
    /// The presences are those that were published last, perhaps without the member itself, so that the next
    /// difference applies to them as for everyone.
    pub fn put_first(&mut self, user: &UserId, snapshot: impl FnOnce() -> String) {
        let metrics = &self.metrics;
        let (Some(feed), Some(member)) = (&mut self.presence, self.outboxes.get(user)) else { return };
        let snapshot = SharedMessage::new(MessageKind::RoomState, snapshot(), metrics);
        member.outbox.put_first(feed.state(metrics), &snapshot);
    }

    /// Queues the change of the presences for the members that are sent them. One that has not taken its last
    /// presence message is sent the whole state in place of it.
    pub(super) async fn broadcast_presences<'a>(
        &mut self,
        at: fn() -> u64,
        users: impl Iterator<Item = (&'a str, &'a Arc<str>)>,
        is_ai_online: bool,
    ) -> PresenceBroadcast {
        if is_ai_online != self.ai_online_at.is_some() {
            self.ai_online_at = is_ai_online.then(at);
        }
        let Some(diff) = self.update_presences(at, users) else { return PresenceBroadcast::default() };
        let audience: Audience = self.presence_members().filter_map(|(_, member)| member.encoding).collect();
        let diff = self.message(MessageKind::PresenceDiff, diff, audience.deflated > 0).await;
        let mut costs = vec![Fanout { bytes: diff.json().len(), audience }];
        let is_behind = |member: &MemberOutbox| !member.outbox.put_presence_diff(&diff);
        let behind: Vec<UserId> = self
            .presence_members()
            .filter(|(_, member)| is_behind(member))
            .map(|(user, _)| user.clone())
            .collect();
        let mut slow = Vec::new();
        if let (false, Some(feed)) = (behind.is_empty(), &mut self.presence) {
            let state = feed.state(&self.metrics).clone();
            let laggards = || behind.iter().filter_map(|user| self.outboxes.get_key_value(user));
            let audience: Audience = laggards().filter_map(|(_, member)| member.encoding).collect();
            let state = if audience.deflated > 1 { self.compress(state).await } else { state };
            costs.push(Fanout { bytes: state.json().len(), audience });
            let is_slow = |member: &MemberOutbox| member.outbox.put_presence_state(&state) == Err(TooSlow);
            slow.extend(laggards().filter(|(_, member)| is_slow(member)).map(|(user, _)| user.clone()));
        }
        PresenceBroadcast { slow, costs }
    }

    /// Publishes the room's users, and returns the difference as a payload.
    fn update_presences<'a>(
        &mut self,
        at: fn() -> u64,
        users: impl Iterator<Item = (&'a str, &'a Arc<str>)>,
    ) -> Option<String> {
        let feed = self.presence.as_mut()?;
        let (outboxes, ai_online_at) = (&self.outboxes, self.ai_online_at);
        let online_at = |id: &str| {
            let member = outboxes.get(id).map(|member| member.online_at);
            member.or(ai_online_at).unwrap_or_else(at)
        };
        let diff = feed.presences.update(users, online_at);
        if diff.is_some() {
            feed.state = None;
        }
        diff
    }

    fn presence_members(&self) -> impl Iterator<Item = (&UserId, &MemberOutbox)> {
        self.outboxes.iter().filter(|(_, member)| member.presence)
    }
}
