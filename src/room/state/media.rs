//! The media that members may send and receive, and what they announce of it.

use super::Room;
use crate::id::{IdentityId, MediaKind, UserId};
use crate::media_access::{MediaPlace, MediaRights};
use crate::protocol::user::Tracks;
use crate::room::announced::Restraint;
use crate::room::io::Effect;
use crate::room::member::Member;

impl Room {
    /// The rights of a member, without what moderators stopped for now.
    fn granted_media(member: &Member) -> MediaRights {
        let publish = member.grants.publish;
        MediaRights {
            subscribe: member.grants.subscribe,
            audio: publish.audio || publish.screen,
            video: publish.video,
            screen: publish.screen,
        }
    }

    fn media_rights(&self, member: &Member) -> MediaRights {
        let granted = Self::granted_media(member);
        let goes_on = |kind| !self.moderation.is_stopped(&member.identity, kind);
        MediaRights {
            subscribe: granted.subscribe,
            audio: granted.audio && goes_on(MediaKind::Audio),
            video: granted.video && goes_on(MediaKind::Video),
            screen: granted.screen && goes_on(MediaKind::Screen) && self.may_share(member),
        }
    }

    /// True if the room lets a member share a screen.
    pub(super) fn may_share(&self, member: &Member) -> bool {
        self.moderation.rules().screens || self.moderation.is_moderator(&member.identity, member.grants)
    }

    /// Sets the member's place in the directory of media, if it has another one.
    pub(super) fn place_media(&mut self, user: &UserId) -> Option<Effect> {
        let rights = self.media_rights(self.members.get(user)?);
        let member = self.members.get_mut(user)?;
        let place = member.place(rights)?;
        Some(Effect::PlaceMedia { user: user.clone(), identity: member.identity.clone(), place })
    }

    /// The places of all members that changed; those of all, of a room that was restored.
    pub fn place_all_media(&mut self) -> Vec<Effect> {
        let users: Vec<UserId> = self.members.iter().map(|(user, _)| user.clone()).collect();
        users.iter().filter_map(|user| self.place_media(user)).collect()
    }

    /// The places of all members.
    pub fn media_places(&self) -> Vec<(UserId, IdentityId, MediaPlace)> {
        let place = |(user, member): (&UserId, &Member)| {
            (user.clone(), member.identity.clone(), member.media_place(self.media_rights(member)))
        };
        self.members.iter().map(place).collect()
    }

    /// Sees to it that a member announces only the media that it may send. One that moderators stopped is shown as
    /// switched off until its owner switches it on.
    pub(super) fn restraint(&self, from: &UserId, tracks: &Tracks) -> Restraint {
        let mut restraint = Restraint::default();
        let Some(member) = self.members.get(from) else { return restraint };
        let publish = member.grants.publish;
        let granted = [
            (MediaKind::Audio, publish.audio),
            (MediaKind::Video, publish.video),
            (MediaKind::Screen, publish.screen && self.may_share(member)),
        ];
        for (kind, is_granted) in granted {
            if !is_granted {
                restraint.withdraw(kind);
            } else if self.moderation.stays_off(from, &member.identity, kind, tracks.is_on(kind)) {
                restraint.switch_off(kind);
            }
        }
        restraint
    }

    /// Ends the stops of kinds that their owner switched on.
    pub(super) fn switched(
        &mut self,
        from: &UserId,
        is_on: [(MediaKind, bool); 3],
        effects: &mut Vec<Effect>,
    ) {
        if self.moderation.stopped() == 0 {
            return;
        }
        let Some(identity) = self.members.get(from).map(|member| member.identity.clone()) else { return };
        let stopped = self.moderation.stopped();
        let changes = is_on.map(|(kind, is_on)| self.moderation.switched(from, &identity, kind, is_on));
        if changes.contains(&true) {
            effects.extend(self.persist_moderation());
        }
        if self.moderation.stopped() != stopped {
            effects.extend(self.place_media_of(&identity));
        }
    }

    /// Sets the places of all members of an identity.
    pub(super) fn place_media_of(&mut self, identity: &IdentityId) -> Vec<Effect> {
        let own = self.members.iter().filter(|(_, member)| member.identity == *identity);
        let users: Vec<UserId> = own.map(|(user, _)| user.clone()).collect();
        users.iter().filter_map(|user| self.place_media(user)).collect()
    }
}

#[cfg(test)]
mod tests;
