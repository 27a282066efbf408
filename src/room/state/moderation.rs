//! Actions of members on other members.

use super::Room;
use crate::id::{Grants, UserId};
use crate::protocol::server::Event;
use crate::room::io::{Effect, Recipients};

/// Decides if a member with these grants may mute a member.
fn may_mute(grants: Grants, from: &UserId, target: &UserId) -> bool {
    grants.moderate || from == target
}

impl Room {
    /// Mutes a member at the request of another.
    pub(super) fn mute(&mut self, from: &UserId, target: UserId, effects: &mut Vec<Effect>) {
        let grants = self.members.get(from).map(|member| member.grants).unwrap_or_default();
        if !may_mute(grants, from, &target) {
            return self.refuse_message(from, "you may not mute others".to_owned(), effects);
        }
        let Some(member) = self.members.get_mut(&target) else { return };
        member.mute();
        self.changed = true;
        effects.extend(self.persist_member(&target));
        effects.push(Effect::Send { to: Recipients::One(target), event: Event::MuteMic });
    }
}
