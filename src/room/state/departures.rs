//! Departures of members: they leave, are gone, time out, or are removed; and the events of who is a member.

use std::sync::Arc;
use std::time::Instant;

use super::Room;
use crate::id::UserId;
use crate::protocol::close::Close;
use crate::protocol::server::Event;
use crate::room::io::{Disconnection, Effect, Recipients, RoomEvent};
use crate::store::saved::Persist;

impl Room {
    pub(super) fn disconnected(&mut self, now: Instant, gone: Disconnection, effects: &mut Vec<Effect>) {
        let Some(user) = self.members.detach(now, gone) else { return };
        let connection = gone.connection;
        effects.push(Effect::Detach { connection, user: user.clone() });
        effects.push(self.publish(RoomEvent::OnClose { user, connection }));
        if self.is_silent && self.members.is_deserted() && !self.stopping {
            // No message was sent, so there is nothing to come back for.
            let ghosts: Vec<UserId> = self.members.iter().map(|(user, _)| user.clone()).collect();
            for user in ghosts {
                self.remove(&user, Close::TimedOut, effects);
            }
            self.end(effects);
        }
    }

    /// Removes disconnected members whose grace period has ended.
    pub(super) fn give_up(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(user) = self.members.given_up(now).filter(|_| !self.stopping) {
            self.remove_gone(user, effects);
        }
    }

    pub(super) fn remove_gone(&mut self, user: UserId, effects: &mut Vec<Effect>) {
        effects.push(self.publish(RoomEvent::UserGone { user: user.clone() }));
        self.remove_and_notify(&user, Close::TimedOut, effects);
    }

    /// Removes everyone whose last heartbeat is too old, as at every tick and join.
    pub(super) fn remove_silent(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let silent = self.members.silent(now, self.settings.heartbeat_timeout);
        // All notices first: each removed member gets them all, its own too, before its socket closes.
        for user in &silent {
            effects.push(self.publish(RoomEvent::UserTimedOut { user: user.clone() }));
            if self.members.get(user).is_some_and(|member| !member.grants.hidden) {
                self.notify_left(user.clone(), effects);
            }
        }
        for user in &silent {
            self.remove(user, Close::TimedOut, effects);
        }
    }

    /// Removes a member. The caller sends the notice, before or after.
    pub(super) fn remove(&mut self, user: &UserId, close: Close, effects: &mut Vec<Effect>) {
        let shown = self.shown_json(user);
        let Some((identity, forgotten)) = self.members.remove(user) else { return };
        self.changed = true;
        self.moderation.left(user);
        self.reactions.forget(user);
        effects.extend(self.publish_member(user, shown, Some(close)));
        effects.push(Effect::Remove { user: user.clone(), close });
        effects.extend(self.persist(Persist::MemberRemoved { user: user.clone() }));
        effects.extend(self.persist(Persist::Departed { user: user.clone(), identity }));
        effects.extend(forgotten.and_then(|user| self.persist(Persist::DepartedForgotten { user })));
        let turn = self.ai.left(user);
        self.follow(turn, effects);
        self.choose_host(effects);
    }

    /// Removes a member, and tells the others, if they saw it.
    pub(super) fn remove_and_notify(&mut self, user: &UserId, close: Close, effects: &mut Vec<Effect>) {
        let is_hidden = self.members.get(user).is_some_and(|member| member.grants.hidden);
        self.remove(user, close, effects);
        if !is_hidden {
            self.notify_left(user.clone(), effects);
        }
    }

    pub(super) fn notify_left(&self, id: UserId, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send { to: Recipients::All, event: Event::UserLeftNotification { id } });
    }

    /// The user object of a member whom others see.
    pub(super) fn shown_json(&self, user: &UserId) -> Option<Arc<str>> {
        let member = self.members.get(user).filter(|member| !member.grants.hidden)?;
        Some(member.json().clone())
    }

    /// Publishes that a user became a member, changed, or no longer is one, compared with its user object `before`.
    /// Hidden ones are no members to programs outside either.
    pub(super) fn publish_member(
        &self,
        user: &UserId,
        before: Option<Arc<str>>,
        close: Option<Close>,
    ) -> Option<Effect> {
        let user = user.clone();
        let event = match (before, self.shown_json(&user)) {
            (None, Some(json)) => {
                let identity = self.members.get(&user)?.identity.clone();
                RoomEvent::MemberJoined { user, identity, json }
            }
            (Some(before), Some(after)) => RoomEvent::MemberUpdated { user, before, after },
            (Some(json), None) => {
                RoomEvent::MemberLeft { user, json, reason: close.unwrap_or(Close::UserLeft) }
            }
            (None, None) => return None,
        };
        Some(self.publish(event))
    }
}
