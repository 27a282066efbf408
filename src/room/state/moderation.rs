//! Moderation: the one place that decides who may act on others, and carries that out.

mod denied;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use self::denied::Denied;
use super::Room;
use crate::config::ModeratorDefault;
use crate::id::{Grants, IdentityId, MAX_NAME_CHARS, MediaKind, UserId, text_is_valid};
use crate::protocol::close::Close;
use crate::protocol::moderation::{ModerationAction, ModerationNotice, ModerationRequest};
use crate::protocol::server::Event;
use crate::room::io::{Effect, Join, JoinRefusal, Recipients, RoomEvent};
use crate::room::member::Member;
use crate::room::rules::RulesChange;
use crate::store::saved::Persist;

/// Whoever asks for an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Moderator {
    /// A member.
    Member(UserId),
    /// An identity that asks over HTTP, whether it is a member or not.
    Identity(IdentityId, Grants),
    /// An operator of the server, or a program with its rights.
    Operator,
}

impl Room {
    /// Decides if an action may be carried out.
    pub(super) fn authorize(&self, by: &Moderator, action: &ModerationAction) -> Result<(), Denied> {
        if self.meeting.is_none() {
            return Err(Denied::NoMeeting);
        }
        if !action.is_valid() {
            return Err(Denied::TooLong);
        }
        if let ModerationAction::Rename { name, .. } = action
            && !text_is_valid(name.trim(), MAX_NAME_CHARS)
        {
            return Err(Denied::InvalidName);
        }
        let by = match by {
            Moderator::Operator => return Ok(()),
            // Whoever was removed could let itself in again.
            Moderator::Identity(identity, grants)
                if self.moderation.is_moderator(identity, *grants)
                    && !self.moderation.is_banned(identity) =>
            {
                return Ok(());
            }
            Moderator::Identity(..) => return Err(Denied::NoModerator),
            Moderator::Member(by) => by,
        };
        let is_own = action.target() == Some(by);
        match action {
            // As everyone may do by its own means.
            ModerationAction::Mute { .. } | ModerationAction::LowerHands { id: Some(_) } if is_own => Ok(()),
            ModerationAction::Remove { .. } if is_own => Err(Denied::Oneself),
            _ if self.is_moderator(by) => Ok(()),
            // As in Orange, where everyone may mute everyone.
            ModerationAction::Mute { .. } | ModerationAction::LowerHands { .. } if self.may_mute(by) => {
                Ok(())
            }
            ModerationAction::Mute { .. } => Err(Denied::NoMute),
            _ => Err(Denied::NoModerator),
        }
    }

    /// Carries out a member's request, and answers it.
    pub(super) fn moderate_as(
        &mut self,
        now: Instant,
        from: &UserId,
        request: ModerationRequest,
        effects: &mut Vec<Effect>,
    ) {
        let ModerationRequest { reference, action } = request;
        let by = Moderator::Member(from.clone());
        if action == ModerationAction::End && self.authorize(&by, &action).is_ok() {
            // Afterwards it is no member any more.
            if let Some(reference) = &reference {
                let notice =
                    ModerationNotice::Moderated { reference: reference.clone(), ok: true, error: None };
                self.notify_moderation(from.clone(), notice, effects);
            }
        }
        let result = self.moderate(now, &by, action, effects);
        let error = result.err().map(|denied| denied.to_string());
        match (reference, error) {
            (Some(reference), error) => {
                let notice = ModerationNotice::Moderated { reference, ok: error.is_none(), error };
                self.notify_moderation(from.clone(), notice, effects);
            }
            (None, Some(error)) => self.refuse_message(from, error, effects),
            (None, None) => {}
        }
    }

    /// Carries out an action.
    ///
    /// # Errors
    /// [`Denied`]; nothing is changed then.
    pub(super) fn moderate(
        &mut self,
        now: Instant,
        by: &Moderator,
        action: ModerationAction,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        self.authorize(by, &action)?;
        let (name, on, target) = (action.name(), action.on(), action.target().cloned());
        let waiting = self.moderation.waiting();
        match action {
            ModerationAction::Mute { id, kind } => self.stop(by, id, kind, effects)?,
            ModerationAction::Remove { id, reason, seconds, network } => {
                let timed = seconds.map(|seconds| (now, seconds));
                self.ban_and_remove(by, &id, reason, (timed, network), effects)?;
            }
            ModerationAction::Unban { id } => {
                self.moderation.unban(&id).then_some(()).ok_or(Denied::NobodyBanned)?;
            }
            ModerationAction::Lock { on } => {
                self.change_rules(&RulesChange { locked: Some(on), ..RulesChange::default() }, effects);
            }
            ModerationAction::WaitingRoom { on } => {
                self.change_rules(&RulesChange { waiting_room: Some(on), ..RulesChange::default() }, effects);
            }
            ModerationAction::Chat { on } => {
                self.change_rules(&RulesChange { chat: Some(on), ..RulesChange::default() }, effects);
            }
            ModerationAction::Screens { on } => {
                self.change_rules(&RulesChange { screens: Some(on), ..RulesChange::default() }, effects);
            }
            ModerationAction::Videos { on } => {
                self.change_rules(&RulesChange { videos: Some(on), ..RulesChange::default() }, effects);
            }
            ModerationAction::StopVideo => self.stop_video(effects),
            ModerationAction::Files { on } => {
                self.change_rules(&RulesChange { files: Some(Some(on)), ..RulesChange::default() }, effects);
            }
            ModerationAction::ChatHistory { on } => {
                let chat_history = Some(Some(on));
                self.change_rules(&RulesChange { chat_history, ..RulesChange::default() }, effects);
            }
            ModerationAction::ClearChat => self.clear_chat(by, effects),
            ModerationAction::Spotlight { id } => {
                if id.as_ref().is_some_and(|user| self.shown_json(user).is_none()) {
                    return Err(Denied::UnknownMember);
                }
                self.changed |= self.moderation.set_spotlight(id);
            }
            ModerationAction::Rename { id, name: new } => self.rename(&id, new.trim().into(), effects)?,
            // Below, after it is told.
            ModerationAction::End => {}
            ModerationAction::Admit { id } => {
                self.moderation.admit(&id).then_some(()).ok_or(Denied::NobodyWaits)?;
            }
            ModerationAction::Refuse { id } => {
                self.moderation.refuse(&id).then_some(()).ok_or(Denied::NobodyWaits)?;
            }
            ModerationAction::LowerHands { id } => self.lower_hands(id.as_ref(), effects)?,
            ModerationAction::GrantModeration { id } => self.set_moderator(&id, true)?,
            ModerationAction::RevokeModeration { id } => {
                self.set_moderator(&id, false)?;
                self.choose_host(effects);
                // A share of its screen ends, if only moderators may have one.
                let screens = Some(self.moderation.rules().screens);
                self.change_rules(&RulesChange { screens, ..RulesChange::default() }, effects);
            }
        }
        self.told(by, (name, on), target, waiting, effects);
        if name == ModerationAction::End.name() {
            self.end_for_all(by, effects);
        }
        Ok(())
    }

    /// Publishes and persists that something was done, and tells moderators if others wait now than before.
    pub(super) fn told(
        &self,
        by: &Moderator,
        action: (&'static str, Option<bool>),
        target: Option<UserId>,
        waiting: usize,
        effects: &mut Vec<Effect>,
    ) {
        let by = match by {
            Moderator::Member(user) => Some(user.clone()),
            Moderator::Identity(..) | Moderator::Operator => None,
        };
        let action = (action.0.into(), action.1);
        effects.push(self.publish(RoomEvent::Moderated { by, action, target }));
        effects.extend(self.persist_moderation());
        if self.moderation.waiting() != waiting {
            self.tell_knocks(effects);
        }
    }

    /// Stops a kind of media, and tells its owner.
    fn stop(
        &mut self,
        by: &Moderator,
        target: UserId,
        kind: MediaKind,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        self.mute(by, &target, kind, effects)?;
        let notice = ModerationNotice::Muted { kind, by: self.name_of(by) };
        self.notify_moderation(target, notice, effects);
        Ok(())
    }

    /// Stops a kind of media of a member and all others of its identity, and shows it as switched off.
    fn mute(
        &mut self,
        by: &Moderator,
        target: &UserId,
        kind: MediaKind,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        let identity = self.members.get(target).ok_or(Denied::UnknownMember)?.identity.clone();
        let own = self.members.iter().filter(|(_, member)| member.identity == identity);
        let all: Vec<UserId> = own.map(|(user, _)| user.clone()).collect();
        let mut unaware = Vec::new();
        for user in all {
            let before = self.shown_json(&user);
            let Some(member) = self.members.get_mut(&user) else { continue };
            let was_on = member.mute(kind);
            if was_on || user == *target {
                self.changed = true;
                effects.extend(self.publish_member(&user, before, None));
                effects.extend(self.persist_member(&user));
                if kind == MediaKind::Audio {
                    let to = Recipients::One(user.clone());
                    effects.push(Effect::Send { to, event: Event::MuteMic });
                }
            }
            if was_on {
                unaware.push(user);
            }
        }
        let is_own = match by {
            Moderator::Member(by) => self.members.get(by).is_some_and(|by| by.identity == identity),
            Moderator::Identity(by, _) => *by == identity,
            Moderator::Operator => false,
        };
        // Whoever switches off its own media needs nobody to keep them off.
        if !is_own {
            self.moderation.stop(identity.clone(), kind, unaware);
        }
        effects.extend(self.place_media_of(&identity));
        Ok(())
    }

    /// The name of a moderator who is a member.
    pub(super) fn name_of(&self, moderator: &Moderator) -> Option<String> {
        match moderator {
            Moderator::Member(user) => {
                let shown = self.members.get(user).filter(|member| !member.grants.hidden);
                shown.map(|member| member.name.to_string())
            }
            Moderator::Identity(..) | Moderator::Operator => None,
        }
    }

    /// Mutes a member at the request of another, as Orange's clients ask for it.
    pub(super) fn mute_as(&mut self, from: &UserId, target: UserId, effects: &mut Vec<Effect>) {
        let action = ModerationAction::Mute { id: target.clone(), kind: MediaKind::Audio };
        let by = Moderator::Member(from.clone());
        let muted =
            self.authorize(&by, &action).and_then(|()| self.mute(&by, &target, MediaKind::Audio, effects));
        match muted {
            Ok(()) => {
                // Orange's clients are sent nothing that its server does not send.
                if target != *from && self.members.get(&target).is_some_and(Member::reads_chat) {
                    let notice = ModerationNotice::Muted { kind: MediaKind::Audio, by: self.name_of(&by) };
                    self.notify_moderation(target, notice, effects);
                }
                effects.extend(self.persist_moderation());
            }
            Err(denied) => self.refuse_message(from, denied.to_string(), effects),
        }
    }

    /// Removes a member and all others of its identity.
    fn ban_and_remove(
        &mut self,
        by: &Moderator,
        target: &UserId,
        reason: Option<String>,
        (timed, bans_network): (Option<(Instant, u32)>, bool),
        effects: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        let member = self.members.get(target).ok_or(Denied::UnknownMember)?;
        let (identity, network) = (member.identity.clone(), member.network.filter(|_| bans_network));
        let by = self.name_of(by);
        let is_own = |(_, member): &(&UserId, &Member)| member.identity == identity;
        let all: Vec<UserId> = self.members.iter().filter(is_own).map(|(user, _)| user.clone()).collect();
        self.moderation.ban(target.clone(), identity, network, timed);
        for user in all {
            let notice = ModerationNotice::Removed { by: by.clone(), reason: reason.clone() };
            self.notify_moderation(user.clone(), notice, effects);
            self.remove_and_notify(&user, Close::Removed, effects);
        }
        Ok(())
    }

    fn lower_hands(&mut self, only: Option<&UserId>, effects: &mut Vec<Effect>) -> Result<(), Denied> {
        let lowered: Vec<UserId> = match only {
            Some(user) if !self.members.contains(user) => return Err(Denied::UnknownMember),
            Some(user) => vec![user.clone()],
            None => self.members.iter().map(|(user, _)| user.clone()).collect(),
        };
        for user in lowered {
            let before = self.shown_json(&user);
            if self.members.get_mut(&user).is_some_and(Member::lower_hand) {
                self.changed = true;
                effects.extend(self.persist_member(&user));
                effects.extend(self.publish_member(&user, before, None));
            }
        }
        Ok(())
    }

    fn set_moderator(&mut self, user: &UserId, on: bool) -> Result<(), Denied> {
        let identity = self.members.get(user).ok_or(Denied::UnknownMember)?.identity.clone();
        self.moderation.set_moderator(identity, on);
        self.changed = true;
        Ok(())
    }

    /// Decides on a join by the rules of the meeting.
    ///
    /// # Errors
    /// [`JoinRefusal`].
    pub(super) fn check_entry(
        &mut self,
        now: Instant,
        join: &Join,
        effects: &mut Vec<Effect>,
    ) -> Result<(), JoinRefusal> {
        // Open rooms are not searched for it.
        let knows = !self.moderation.rules().is_closed() || self.members.knows(&join.identity);
        let waiting = self.moderation.waiting();
        let result = self.moderation.admits(now, join, knows);
        if self.moderation.waiting() != waiting {
            self.tell_knocks(effects);
        }
        result
    }

    /// Forgets those who no longer wait.
    pub(super) fn forget_knocks(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let waiting = self.moderation.waiting();
        self.moderation.forget_old(now);
        if self.moderation.waiting() != waiting {
            self.tell_knocks(effects);
        }
    }

    /// Sees to it that somebody moderates, where the first one does.
    pub(super) fn choose_host(&mut self, effects: &mut Vec<Effect>) {
        if self.settings.moderators != ModeratorDefault::First {
            return;
        }
        let mut present: Vec<(&UserId, &Member)> = self.members.iter().collect();
        present.sort_by_key(|(_, member)| member.arrival);
        let present: Vec<&IdentityId> = present.into_iter().map(|(_, member)| &member.identity).collect();
        if self.moderation.choose_host(present.into_iter()) {
            self.changed = true;
            effects.extend(self.persist_moderation());
        }
    }

    /// True if the member may mute others.
    pub(super) fn may_mute(&self, user: &UserId) -> bool {
        let member = self.members.get(user);
        member.is_some_and(|member| self.moderation.may_mute(&member.identity, member.grants))
    }

    /// True if the member moderates by a right of its own.
    pub(super) fn is_moderator(&self, user: &UserId) -> bool {
        let member = self.members.get(user);
        member.is_some_and(|member| self.moderation.is_moderator(&member.identity, member.grants))
    }

    /// The reason for which a member may not share or control a video.
    pub(super) fn refuses_video(&self, user: &UserId) -> Option<&'static str> {
        // It is shown to all, as a screen is.
        let has_grant = self.members.get(user).is_some_and(|member| member.grants.publish.screen);
        if !has_grant {
            Some("you may not share videos")
        } else if !self.moderation.rules().videos && !self.is_moderator(user) {
            Some("only moderators share and control videos at this time")
        } else {
            None
        }
    }

    /// Tells moderators who waits.
    fn tell_knocks(&self, effects: &mut Vec<Effect>) {
        let moderators = self.members.iter().map(|(user, _)| user).filter(|user| self.is_moderator(user));
        for user in moderators {
            self.tell_knocks_to(user, effects);
        }
    }

    /// Tells a member who waits.
    pub(super) fn tell_knocks_to(&self, user: &UserId, effects: &mut Vec<Effect>) {
        let notice = ModerationNotice::Knocks { knocks: self.moderation.knocks() };
        self.notify_moderation(user.clone(), notice, effects);
    }

    pub(super) fn notify_moderation(&self, to: UserId, notice: ModerationNotice, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send { to: Recipients::One(to), event: Event::Moderation(Box::new(notice)) });
    }

    pub(super) fn persist_moderation(&self) -> Option<Effect> {
        self.persist(Persist::Moderation { json: self.moderation.to_saved().into() })
    }
}

#[cfg(test)]
pub(super) mod tests;
