//! The chat: messages of members and of programs outside, and their history.

use std::sync::Arc;
use std::time::Instant;

use super::Room;
use crate::id::UserId;
use crate::protocol::client::JsonString;
use crate::protocol::server::{ChatMessage, Event, encode_chat_history};
use crate::room::chat::ChatHistory;
use crate::room::io::{Effect, Recipients};
use crate::store::saved::{Persist, SavedRoom};

impl Room {
    /// Restores the chat from before a restart; `at` is the time in milliseconds since 1970.
    pub fn restore_chat(&mut self, now: Instant, at: u64, saved: &SavedRoom) {
        self.chat = ChatHistory::restore(self.settings.chat, now, at, &saved.chat);
        // The clock may have been set back; two messages of a history never have one id.
        self.last_chat = self.chat.last().unwrap_or_default();
    }

    /// The chat's history.
    pub fn chat(&self) -> &ChatHistory {
        &self.chat
    }

    /// Lets the history grow no further, because the memory for those of all rooms is exhausted, or lifts that.
    pub fn set_chat_exhausted(&mut self, is_exhausted: bool) {
        self.chat.set_exhausted(is_exhausted);
    }

    /// Encodes the history for a member that joins; none if there is nothing to tell.
    pub fn encode_chat_history(&self) -> Option<String> {
        let is_told = self.chat.is_on() && !self.chat.is_empty();
        is_told.then(|| encode_chat_history(self.chat.messages()))
    }

    pub(super) fn say(
        &mut self,
        now: Instant,
        at: u64,
        from: &UserId,
        message: JsonString,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(refused) = self.refuses_chat(from) {
            return self.refuse_message(from, refused.to_owned(), effects);
        }
        let Some(name) = self.members.get(from).map(|member| member.name.clone()) else { return };
        self.write_chat(now, at, (from.clone(), name), message.clone(), effects);
        self.ask_assistant(at, from, &message, effects);
    }

    /// Sends a new chat message of an author.
    pub(super) fn write_chat(
        &mut self,
        now: Instant,
        at: u64,
        (from, name): (UserId, Arc<str>),
        message: JsonString,
        effects: &mut Vec<Effect>,
    ) {
        // The time, or the next number if that is used: ids differ from those before a restart
        // without being persisted.
        self.last_chat = at.max(self.last_chat + 1);
        let message = ChatMessage { id: self.last_chat, from, name, message, at };
        self.remember_and_send(now, message, effects);
    }

    /// Sends a message to everyone, and remembers it.
    pub(super) fn remember_and_send(
        &mut self,
        now: Instant,
        message: ChatMessage,
        effects: &mut Vec<Effect>,
    ) {
        let id = message.id;
        if self.chat.is_on() {
            let json: Arc<str> = message.to_json().into();
            if self.chat.push(now, id, json.clone()) {
                let first = self.chat.first();
                effects.extend(self.persist(Persist::ChatMessage { id, json, first }));
            }
        }
        effects.push(Effect::Send { to: Recipients::All, event: Event::Chat(message) });
    }

    /// Forgets messages that are too old.
    pub(super) fn forget_old_chat(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.chat.expire(now) {
            let first = self.chat.first();
            effects.extend(self.persist(Persist::ChatForgotten { first }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::io::Input;
    use crate::room::state::tests::{TICK, persisted, room_of_two, says_at, seen, settings};

    fn chat(room: &mut Room, now: Instant, at: u64, text: &str) -> Vec<Effect> {
        room.handle(now, says_at(1, at, &format!(r#"{{"type":"chat","message":"{text}"}}"#)))
    }

    #[test]
    fn last_messages_are_told_and_persisted() {
        let (mut room, now) = room_of_two();
        assert_eq!(room.encode_chat_history(), None);
        for (at, text) in [(7, "one"), (7, "two"), (8, "three"), (9, "four")] {
            let effects = chat(&mut room, now, at, text);
            assert_eq!(seen(&effects).len(), 1, "{text} goes to all as before");
        }
        let told = room.encode_chat_history().unwrap();
        assert_eq!(
            told,
            r#"{"type":"chatHistory","messages":[{"id":8,"from":"a","name":"name of A","message":"two","at":7},{"id":9,"from":"a","name":"name of A","message":"three","at":8},{"id":10,"from":"a","name":"name of A","message":"four","at":9}]}"#
        );
        let Some(Persist::ChatMessage { id: 11, json, first: 9 }) =
            persisted(&chat(&mut room, now, 2, "five")).pop()
        else {
            panic!("it is not persisted")
        };
        assert_eq!(&*json, r#"{"id":11,"from":"a","name":"name of A","message":"five","at":2}"#);
    }

    #[test]
    fn old_messages_are_forgotten_at_a_tick() {
        let (mut room, mut now) = room_of_two();
        chat(&mut room, now, 7, "one");
        let end = now + settings().chat.age;
        while now < end {
            assert!(room.encode_chat_history().is_some());
            now += TICK;
            for connection in [1, 2] {
                room.handle(now, says_at(connection, 0, r#"{"type":"heartbeat"}"#));
            }
            room.handle(now, Input::Wake);
        }
        assert_eq!(room.encode_chat_history(), None);
    }

    #[test]
    fn end_of_the_meeting_ends_the_history() {
        let (mut room, now) = room_of_two();
        chat(&mut room, now, 7, "one");
        for connection in [1, 2] {
            room.handle(now, says_at(connection, 0, r#"{"type":"userLeft"}"#));
        }
        assert!(room.encode_chat_history().is_some(), "the meeting goes on until the tick");
        room.handle(now + TICK, Input::Wake);
        assert!(room.encode_chat_history().is_none() && room.chat().bytes() == 0);
    }

    #[test]
    fn restored_history_continues_with_greater_ids() {
        let (mut room, now) = room_of_two();
        let saved = SavedRoom {
            room: crate::id::RoomName::parse("r").unwrap(),
            meeting: room.meeting().unwrap(),
            ai: None,
            moderation: None,
            chat: vec![(900, r#"{"id":900,"at":900}"#.into())],
            members: Vec::new(),
            departed: Vec::new(),
            unconfirmed: Vec::new(),
        };
        room.restore_chat(now, 901, &saved);
        chat(&mut room, now, 5, "the clock was set back");
        let told = room.encode_chat_history().unwrap();
        assert!(told.contains(r#"{"id":900,"at":900},{"id":901,"#), "{told}");
    }
}
