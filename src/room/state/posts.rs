//! Messages of programs outside, which are no members.

use std::time::Instant;

use super::Room;
use crate::id::UserId;
use crate::protocol::server::Event;
use crate::room::io::{CannotPost, Effect, Post, Recipients};

impl Room {
    /// Decides if a program outside may write what it wants.
    ///
    /// # Errors
    /// [`CannotPost`].
    pub fn admits_post(&self, post: &Post) -> Result<(), CannotPost> {
        if self.meeting.is_none() {
            return Err(CannotPost::NoMeeting);
        }
        let is_member = post.to.as_ref().is_none_or(|to| self.members.contains(to));
        is_member.then_some(()).ok_or(CannotPost::UnknownMember)
    }

    /// Carries out the message of a program outside, if it is admitted.
    pub(super) fn post(&mut self, now: Instant, post: Post, effects: &mut Vec<Effect>) {
        if self.admits_post(&post).is_err() {
            return;
        }
        let Post { at, name, to, message } = post;
        match to {
            Some(to) => effects.push(Effect::Send {
                to: Recipients::One(to),
                event: Event::DirectMessage { from: name, message },
            }),
            None => self.write_chat(now, at, (UserId::outside(), name), message, effects),
        }
    }
}
