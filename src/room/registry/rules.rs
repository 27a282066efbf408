//! Moderation and settings of rooms by whoever is not a member.

use super::Registry;
use crate::id::RoomName;
use crate::protocol::moderation::ModerationAction;
use crate::room::mailbox::RoomView;
use crate::room::passwords::Passwords;
use crate::room::requests::{RoomAnswer, RoomRequest};
use crate::room::rulebook::CannotChange;
use crate::room::rules::{RoomRules, RulesChange};
use crate::room::state::{Denied, Moderator};

/// Reason for not carrying out an operator's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotModerate {
    /// No room of that name runs.
    NoRoom,
    /// The room did not answer in time.
    Silent,
    /// The room denies it.
    Denied(Denied),
}

impl Registry {
    /// Carries out a request of whoever is not a member, in a running room.
    ///
    /// # Errors
    /// [`CannotModerate`].
    pub async fn moderate(
        &self,
        name: &RoomName,
        by: Moderator,
        action: ModerationAction,
    ) -> Result<(), CannotModerate> {
        self.decide(name, RoomRequest::Moderate { by, action }).await
    }

    /// Changes the settings of a running room, until its meeting ends.
    ///
    /// # Errors
    /// [`CannotModerate`].
    pub async fn set_rules(
        &self,
        name: &RoomName,
        by: Moderator,
        change: RulesChange,
    ) -> Result<(), CannotModerate> {
        self.decide(name, RoomRequest::SetRules { by, change }).await
    }

    /// Changes the settings of a room by its name, and those of its meeting, if one is running.
    ///
    /// # Errors
    /// [`CannotChange`]; nothing is changed then.
    pub async fn set_lasting_rules(&self, name: &RoomName, change: RulesChange) -> Result<(), CannotChange> {
        self.inner.deps.rulebook.change(name, &change).await?;
        // Without a room there is nothing else to change; one that does not answer in time still gets it.
        let _ = self.decide(name, RoomRequest::LastingRules { change }).await;
        Ok(())
    }

    /// Asks if somebody may change the settings of a running room.
    ///
    /// # Errors
    /// [`CannotModerate`].
    pub async fn may_change_rules(&self, name: &RoomName, by: Moderator) -> Result<(), CannotModerate> {
        self.decide(name, RoomRequest::MayChange { by }).await
    }

    /// The settings of a room: those of its meeting, or those with which one would begin. What they leave to the
    /// server's settings is as there.
    pub async fn rules(&self, name: &RoomName) -> RoomRules {
        let rules = match self.describe(name).await {
            Ok(RoomView { rules, .. }) => rules,
            Err(_) => {
                // Another node may have changed them a moment ago.
                self.inner.deps.rulebook.refresh(name).await;
                self.inner.deps.rulebook.get(name)
            }
        };
        self.in_force(rules)
    }

    /// Settings, with the server's in place of those that they leave to it.
    pub fn in_force(&self, mut rules: RoomRules) -> RoomRules {
        let settings = &self.inner.deps.settings;
        rules.chat_history.get_or_insert(settings.chat.is_on);
        rules.files.get_or_insert(settings.files);
        rules
    }

    /// The settings of all rooms that have some by name, sorted by it: those with which their meetings begin.
    pub fn lasting_rules(&self) -> Vec<(RoomName, RoomRules)> {
        let rooms = self.inner.deps.rulebook.all();
        rooms.into_iter().map(|(room, rules)| (room, self.in_force(rules))).collect()
    }

    /// The passwords of rooms.
    pub fn passwords(&self) -> &Passwords {
        &self.inner.passwords
    }

    /// Asks a running room for a decision.
    async fn decide(&self, name: &RoomName, request: RoomRequest) -> Result<(), CannotModerate> {
        match self.request(name, request).await {
            RoomAnswer::Decided(result) => result.map_err(CannotModerate::Denied),
            RoomAnswer::NotHere => Err(CannotModerate::NoRoom),
            _ => Err(CannotModerate::Silent),
        }
    }
}
