//! Handling of members' messages (protocol section 3).

use std::time::Instant;

use super::Room;
use crate::id::{MediaKind, UserId};
use crate::protocol::client::{ClientMessage, JsonString};
use crate::protocol::close::Close;
use crate::protocol::server::Event;
use crate::protocol::user::User;
use crate::room::io::{Effect, Recipients, RoomEvent};

/// The answer to whoever lacks the grant.
pub(super) const NO_CHAT: &str = "you may not write to the chat";

/// The answer where moderators alone write.
const CHAT_OFF: &str = "only moderators write to the chat at this time";

impl Room {
    /// Carries out a member's message.
    pub(super) fn message(
        &mut self,
        now: Instant,
        at: u64,
        from: &UserId,
        message: ClientMessage,
        effects: &mut Vec<Effect>,
    ) {
        let kind = message.kind();
        if let Some(member) = self.members.get_mut(from) {
            member.has_spoken = true;
        }
        match message {
            ClientMessage::UserUpdate(user) => self.update(from, *user, effects),
            ClientMessage::Heartbeat => {
                if let Some(member) = self.members.get_mut(from) {
                    member.heartbeat = now;
                }
            }
            ClientMessage::UserLeft => {
                effects.push(self.publish(RoomEvent::UserLeft { user: from.clone() }));
                self.remove_and_notify(from, Close::UserLeft, effects);
            }
            ClientMessage::DirectMessage { to, message } => self.direct_message(from, to, message, effects),
            ClientMessage::Chat { message } => self.say(now, at, from, message, effects),
            ClientMessage::Activity(activity) => self.act((now, at), from, activity, effects),
            ClientMessage::Moderate(request) => self.moderate_as(now, from, *request, effects),
            ClientMessage::MuteUser { id } => match id.filter(|id| self.members.contains(id)) {
                Some(id) => self.mute_as(from, id, effects),
                None => effects
                    .push(self.publish(RoomEvent::UnknownRecipient { user: from.clone(), r#type: kind })),
            },
            ClientMessage::E2eeMlsMessage { payload } => effects.push(Effect::Send {
                to: Recipients::AllBut(from.clone()),
                event: Event::E2eeMlsMessage { payload },
            }),
            ClientMessage::CallsApiHistoryEntry(entry) => {
                effects.push(self.publish(RoomEvent::ClientNegotiationRecord { user: from.clone(), entry }));
            }
            ClientMessage::PartyserverPing => {}
            ClientMessage::Ai(message) => {
                if let Some(meeting) = self.meeting {
                    let turn = self.ai.message(now, meeting, from, message);
                    self.follow(turn, effects);
                }
            }
        }
    }

    fn update(&mut self, from: &UserId, user: User, effects: &mut Vec<Effect>) {
        let before = self.shown_json(from);
        let restraint = self.restraint(from, &user.tracks);
        let is_on = MediaKind::ALL.map(|kind| (kind, user.tracks.is_on(kind)));
        let Some(member) = self.members.get_mut(from) else { return };
        match member.update(from, user, restraint, self.settings.user_bytes) {
            Ok(()) => {
                self.changed = true;
                self.switched(from, is_on, effects);
                effects.extend(self.place_media(from));
                effects.extend(self.publish_member(from, before, None));
                effects.extend(self.persist_member(from));
            }
            Err(too_big) => self.refuse_message(from, too_big.to_string(), effects),
        }
    }

    fn direct_message(
        &self,
        from: &UserId,
        to: Option<UserId>,
        message: JsonString,
        effects: &mut Vec<Effect>,
    ) {
        // One to oneself asks for a sign of life (docs/protocol.md).
        let is_own = to.as_ref() == Some(from);
        if let Some(refused) = self.refuses_chat(from).filter(|_| !is_own) {
            return self.refuse_message(from, refused.to_owned(), effects);
        }
        let Some(sender) = self.members.get(from).map(|member| member.name.clone()) else { return };
        let is_shown =
            |to: &UserId| self.members.get(to).is_some_and(|member| !member.grants.hidden || is_own);
        match to.filter(is_shown) {
            Some(to) => effects.push(Effect::Send {
                to: Recipients::One(to),
                event: Event::DirectMessage { from: sender, message },
            }),
            None => effects.push(
                self.publish(RoomEvent::UnknownRecipient { user: from.clone(), r#type: "directMessage" }),
            ),
        }
    }

    /// The reason for which a member may not write to the chat.
    pub(super) fn refuses_chat(&self, from: &UserId) -> Option<&'static str> {
        let has_grant = self.members.get(from).is_some_and(|member| member.grants.chat);
        if !has_grant {
            Some(NO_CHAT)
        } else if !self.moderation.rules().chat && !self.is_moderator(from) {
            Some(CHAT_OFF)
        } else {
            None
        }
    }
}
