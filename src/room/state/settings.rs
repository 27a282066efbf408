//! The settings of the room, names that moderators give, and the end of a meeting for all.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Room;
use super::moderation::{Denied, Moderator};
use crate::id::{MediaKind, UserId};
use crate::protocol::close::Close;
use crate::protocol::moderation::{ModerationAction, ModerationNotice};
use crate::protocol::server::Event;
use crate::room::io::{Effect, Recipients};
use crate::room::member::Member;
use crate::room::rules::RulesChange;

impl Room {
    /// Decides if the settings may be changed.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may_change_rules(&self, by: &Moderator) -> Result<(), Denied> {
        // They are as far-reaching as a lock.
        self.authorize(by, &ModerationAction::Lock { on: true })
    }

    /// Changes the settings with which meetings begin, and those of the meeting that runs.
    pub(super) fn set_lasting_rules(&mut self, change: &RulesChange, effects: &mut Vec<Effect>) {
        self.settings.rules.apply(change);
        if self.meeting.is_none() {
            self.begin_rules();
        } else if let Err(denied) = self.set_rules(&Moderator::Operator, change, effects) {
            // Only a meeting that has none denies an operator anything.
            tracing::error!(%denied, "the settings of a room reached its meeting not");
        }
    }

    /// Changes the settings of the meeting.
    ///
    /// # Errors
    /// [`Denied`]; nothing is changed then.
    pub(super) fn set_rules(
        &mut self,
        by: &Moderator,
        change: &RulesChange,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        self.may_change_rules(by)?;
        let waiting = self.moderation.waiting();
        self.change_rules(change, effects);
        self.told(by, ("settings", None), None, waiting, effects);
        Ok(())
    }

    /// Changes the settings; ends the shares of screens that they no longer allow.
    pub(super) fn change_rules(&mut self, change: &RulesChange, effects: &mut Vec<Effect>) {
        self.changed |= self.moderation.change(change);
        if change.chat_history.is_some() {
            self.follow_history_rule(effects);
        }
        if change.screens == Some(false) {
            let shares = |(_, member): &(&UserId, &Member)| member.shares_screen() && !self.may_share(member);
            let sharing: Vec<UserId> =
                self.members.iter().filter(shares).map(|(user, _)| user.clone()).collect();
            for user in sharing {
                self.withdraw_screen(&user, effects);
            }
        }
        if change.screens.is_some() {
            effects.extend(self.place_all_media());
        }
    }

    /// Ends the share of a screen that the room no longer lets its member have.
    fn withdraw_screen(&mut self, user: &UserId, effects: &mut Vec<Effect>) {
        let before = self.shown_json(user);
        let Some(member) = self.members.get_mut(user) else { return };
        member.mute(MediaKind::Screen);
        self.changed = true;
        effects.extend(self.publish_member(user, before, None));
        effects.extend(self.persist_member(user));
        let notice = ModerationNotice::Muted { kind: MediaKind::Screen, by: None };
        self.notify_moderation(user.clone(), notice, effects);
    }

    /// Gives a member and all others of its identity another name.
    pub(super) fn rename(
        &mut self,
        user: &UserId,
        name: Arc<str>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        let identity = self.members.get(user).ok_or(Denied::UnknownMember)?.identity.clone();
        let own = self.members.iter().filter(|(_, member)| member.identity == identity);
        let all: Vec<UserId> = own.map(|(user, _)| user.clone()).collect();
        for user in all {
            let before = self.shown_json(&user);
            if let Some(member) = self.members.get_mut(&user) {
                member.rename(name.clone());
            }
            effects.extend(self.publish_member(&user, before, None));
            effects.extend(self.persist_member(&user));
        }
        self.changed = true;
        self.moderation.rename(identity, name);
        Ok(())
    }

    /// Ends the meeting, and tells everyone. Their ids stay out, and those of whoever waits or may come back, so that their
    /// clients do not start another one.
    pub(super) fn end_for_all(&mut self, by: &Moderator, effects: &mut Vec<Effect>) {
        let notice = ModerationNotice::Ended { by: self.name_of(by) };
        effects.push(Effect::Send { to: Recipients::All, event: Event::Moderation(Box::new(notice)) });
        let all: Vec<UserId> = self.members.iter().map(|(user, _)| user.clone()).collect();
        for user in &all {
            self.remove(user, Close::Ended, effects);
        }
        // Those who were removed just now, too.
        let waiting = self.moderation.knocks().into_iter().map(|knock| knock.id);
        let all = self.members.departed().cloned().chain(waiting).chain(all).collect::<BTreeSet<_>>();
        let all = all.into_iter().collect();
        effects.extend(self.meeting().map(|meeting| Effect::RememberEnded(meeting, all)));
        self.end(effects);
    }
}

#[cfg(test)]
mod tests;
