//! An owner goes on alone while the engine is away, if all members of the room are on its node.
//!
//! Nobody else can see what its members are told, so nothing is lost by showing it at once. The entries are stored in their
//! order when the engine is back. If another node has claimed the room by then, which was only this node's outage,
//! its members have seen what never was, and begin anew.

use std::time::{Duration, Instant};

use satsuma_cluster::Journal;

use super::super::{Role, RoomReplica, Surroundings};
use super::Owner;
use crate::id::UserId;
use crate::protocol::close::Close;
use crate::room::codec::RemoteCommand;

/// Time without the engine after which the room goes on alone.
const ALONE_AFTER: Duration = Duration::from_secs(2);

impl Owner {
    /// Notes if the engine is away, and takes no member for silent meanwhile: heartbeats of other nodes cannot arrive, and
    /// those of this one wait behind what is not stored. When it is back, all have the whole time again.
    pub(super) fn look_at_engine(&mut self, surroundings: Surroundings<'_>) {
        let now = surroundings.now;
        let is_away = surroundings.membership.is_cut_off() || self.writer.is_in_doubt();
        if (is_away && self.room.is_tick_due(now)) || (self.away_since.is_some() && !is_away) {
            let members: Vec<UserId> = self.room.members().map(|member| member.user).collect();
            members.iter().for_each(|user| self.room.keep_alive(now, user));
        }
        self.looked_at = now;
        self.away_since = self.away_since.or(Some(now)).filter(|_| is_away);
        let is_long = self.away_since.is_some_and(|since| since + ALONE_AFTER <= now);
        let own = surroundings.membership.own();
        self.is_alone = is_long
            && !self.is_ending
            && self.writer.can_release()
            && self.admitted.values().all(|connection| connection.node() == own)
            && self.downlinks.keys().all(|link| link.node == own);
    }

    /// The time at which the room may go on alone, or has something to show if it does.
    pub(super) fn alone_deadline(&self) -> Option<Instant> {
        let since = self.away_since?;
        if self.is_alone {
            self.writer.lines_due()
        } else {
            Some(since + ALONE_AFTER).filter(|at| *at > self.looked_at)
        }
    }
}

impl RoomReplica {
    /// True if members were shown what is not stored.
    pub fn is_alone(&self) -> bool {
        matches!(&self.role, Role::Owner(owner) if owner.writer.has_released())
    }

    /// Shows what is not stored, if the room goes on alone.
    pub(super) fn go_on_alone(&mut self, surroundings: Surroundings<'_>) {
        let Role::Owner(owner) = &mut self.role else { return };
        if !owner.is_alone {
            return;
        }
        for record in owner.writer.release(surroundings.now) {
            self.take(surroundings, &record);
            self.entry_stored(surroundings, &record);
        }
    }

    /// Sends everybody away who was shown what is not stored, and forgets it.
    pub(in crate::room::replica) fn take_back(&mut self) {
        if !self.is_alone() {
            return;
        }
        let mut deliveries = Vec::new();
        self.sockets.remove_all(Close::RoomFailed, &mut deliveries);
        self.delivered(deliveries, Vec::new());
        // Those that wait to join saw nothing.
        self.uplink.clear();
        for join in self.sockets.joins() {
            let _ = self.uplink.push(RemoteCommand::Join(join), 0);
        }
        self.gone.clear();
        self.journal = Journal::default();
    }
}
