//! The room as its members see it.

use std::sync::Arc;

use super::Room;
use crate::id::UserId;
use crate::protocol::ai::AI_ID;
use crate::protocol::server::encode_room_state;
use crate::protocol::watch::Watching;
use crate::room::member::Member;

impl Room {
    /// Encodes the newest state as a `roomState` message.
    pub fn encode_snapshot(&self) -> String {
        let users = self.shown().map(|(_, member)| member.json()).chain(self.ai.user_json());
        let moderators = self.shown().map(|(user, _)| user).filter(|user| self.is_moderator(user));
        let rules = self.moderation.view(moderators.map(UserId::as_str), &self.observers);
        let watch = self.watch.video().map(Watching::to_json);
        let users = users.map(|json| &**json);
        encode_room_state(self.meeting, users, &self.ai.state(), rules.as_deref(), watch.as_deref())
    }

    /// Shows programs as observers, instead of those before.
    pub fn set_observers(&mut self, names: Vec<Arc<str>>) {
        if names != self.observers {
            self.observers = names;
            self.changed = true;
        }
    }

    /// The members that others see.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&UserId, &Member)> + Clone {
        self.members.iter().filter(|(_, member)| !member.grants.hidden)
    }

    /// Everyone in a snapshot, the AI too, as id and user object, in the order of their ids.
    pub fn users(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        let members = || self.shown().map(|(user, member)| (user.as_str(), member.json()));
        let ai = self.ai.user_json().map(|json| (AI_ID, json));
        members()
            .take_while(|(id, _)| *id < AI_ID)
            .chain(ai)
            .chain(members().skip_while(|(id, _)| *id < AI_ID))
    }
}
