//! The chat: messages of members and of programs outside, and their history.

use std::sync::Arc;
use std::time::Instant;

use super::moderation::Moderator;
use super::{Room, history_limits};
use crate::id::UserId;
use crate::protocol::client::JsonString;
use crate::protocol::moderation::ModerationNotice;
use crate::protocol::server::{ChatMessage, Event, encode_chat_history};
use crate::room::chat::ChatHistory;
use crate::room::io::{Effect, Recipients};
use crate::store::saved::{Persist, SavedRoom};

impl Room {
    /// Restores the chat from before a restart; `at` is the time in milliseconds since 1970.
    pub fn restore_chat(&mut self, now: Instant, at: u64, saved: &SavedRoom) {
        let limits = history_limits(&self.settings, self.moderation.rules());
        self.chat = ChatHistory::restore(limits, now, at, &saved.chat);
        // The clock may have been set back; two messages of a history never have one id.
        self.last_chat = self.chat.last().unwrap_or_default();
    }

    /// Numbers the next chat message above that one, which an owner with another clock numbered.
    pub fn continue_chat_after(&mut self, id: u64) {
        self.last_chat = self.last_chat.max(id);
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
        let message = ChatMessage { id: self.last_chat, from, name, message, at, file: None };
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

    /// Remembers messages, or forgets them, as the rules say now.
    pub(super) fn follow_history_rule(&mut self, effects: &mut Vec<Effect>) {
        let is_on = history_limits(&self.settings, self.moderation.rules()).is_on;
        if self.chat.is_on() != is_on && self.chat.set_on(is_on) {
            effects.extend(self.persist_forgotten_chat());
        }
    }

    /// Forgets all messages so far, and lets clients drop those that they show.
    pub(super) fn clear_chat(&mut self, by: &Moderator, effects: &mut Vec<Effect>) {
        if self.chat.clear() {
            effects.extend(self.persist_forgotten_chat());
        }
        // The id, and not the order: a client that was away gets the history before this message.
        let notice = ModerationNotice::ChatCleared { before: self.last_chat + 1, by: self.name_of(by) };
        effects.push(Effect::Send { to: Recipients::All, event: Event::Moderation(Box::new(notice)) });
    }

    fn persist_forgotten_chat(&self) -> Option<Effect> {
        self.persist(Persist::ChatForgotten { first: self.chat.first() })
    }

    /// Forgets messages that are too old.
    pub(super) fn forget_old_chat(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.chat.expire(now) {
            effects.extend(self.persist_forgotten_chat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::chat::HistoryLimits;
    use crate::room::io::Input;
    use crate::room::rules::{RoomRules, RulesChange};
    use crate::room::state::RoomSettings;
    use crate::room::state::tests::{TICK, join, persisted, room_of_two, says_at, seen, settings, start};

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

    fn operator(room: &mut Room, now: Instant, action: &str) -> Vec<Effect> {
        let action = serde_json::from_str(action).unwrap();
        room.handle(now, Input::Moderate { by: Moderator::Operator, action })
    }

    fn has_forgotten(effects: &[Effect], first: u64) -> bool {
        persisted(effects).contains(&Persist::ChatForgotten { first })
    }

    #[test]
    fn cleared_chat_is_forgotten_by_all() {
        let (mut room, now) = room_of_two();
        chat(&mut room, now, 7, "one");
        let effects = operator(&mut room, now, r#"{"action":"clearChat"}"#);
        assert!(has_forgotten(&effects, 8));
        assert_eq!(
            seen(&effects)[0],
            r#"to all: {"type":"chatCleared","before":8}"#,
            "and those who are away get it later"
        );
        assert_eq!((room.encode_chat_history(), room.chat().bytes()), (None, 0));
        chat(&mut room, now, 8, "two");
        assert!(room.encode_chat_history().unwrap().contains("two"), "the history goes on");
        let denied = says_at(1, 9, r#"{"type":"moderate","action":"clearChat"}"#);
        assert!(seen(&room.handle(now, denied))[0].contains("you may not moderate this room"));
        assert!(room.encode_chat_history().is_some());
    }

    #[test]
    fn room_switches_its_history_off_and_on() {
        let (mut room, now) = room_of_two();
        chat(&mut room, now, 7, "one");
        let effects = operator(&mut room, now, r#"{"action":"chatHistory","on":false}"#);
        assert!(has_forgotten(&effects, 8));
        assert!(room.encode_snapshot().contains(r#""chatHistory":false"#));
        assert!(persisted(&chat(&mut room, now, 8, "two")).is_empty());
        assert_eq!(room.encode_chat_history(), None);
        operator(&mut room, now, r#"{"action":"chatHistory","on":true}"#);
        chat(&mut room, now, 9, "three");
        assert!(room.encode_chat_history().unwrap().contains("three"));
        // As the server's settings say, which remember.
        let change = RulesChange { chat_history: Some(None), ..RulesChange::default() };
        let effects = room.handle(now, Input::SetRules { by: Moderator::Operator, change });
        assert!(!has_forgotten(&effects, 10) && !room.encode_snapshot().contains("chatHistory"));
    }

    #[test]
    fn room_that_remembers_overrides_the_server() {
        let now = start();
        let rules = RoomRules { chat_history: Some(true), ..RoomRules::default() };
        let chat_limits = HistoryLimits { is_on: false, ..settings().chat };
        let settings = RoomSettings { rules, chat: chat_limits, ..settings() };
        let mut room = Room::new(settings.clone(), now);
        room.handle(now, join(1, "a", "A"));
        chat(&mut room, now, 7, "one");
        assert!(room.encode_chat_history().is_some());
        let json: Arc<str> = room.moderation.to_saved().into();
        let saved = SavedRoom { moderation: Some(json), ..saved_room(&room) };
        let mut restored = Room::restore(settings, now, &saved);
        restored.restore_chat(now, 901, &saved);
        assert!(restored.chat().is_on() && restored.encode_chat_history().is_some());
    }

    fn saved_room(room: &Room) -> SavedRoom {
        SavedRoom {
            room: crate::id::RoomName::parse("r").unwrap(),
            meeting: room.meeting().unwrap(),
            ai: None,
            moderation: None,
            watch: None,
            chat: vec![(900, r#"{"id":900,"at":900}"#.into())],
            members: Vec::new(),
            departed: Vec::new(),
            unconfirmed: Vec::new(),
            journal: None,
        }
    }

    #[test]
    fn restored_history_continues_with_greater_ids() {
        let (mut room, now) = room_of_two();
        let saved = saved_room(&room);
        room.restore_chat(now, 901, &saved);
        chat(&mut room, now, 5, "the clock was set back");
        let told = room.encode_chat_history().unwrap();
        assert!(told.contains(r#"{"id":900,"at":900},{"id":901,"#), "{told}");
    }
}
