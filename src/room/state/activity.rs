//! Activities of members beside talking.

use std::time::Instant;

use super::Room;
use crate::id::UserId;
use crate::protocol::activity::Activity;
use crate::protocol::server::Event;
use crate::room::io::Effect;

impl Room {
    /// Carries out a member's message.
    pub(super) fn act(
        &mut self,
        (now, at): (Instant, u64),
        from: &UserId,
        activity: Activity,
        effects: &mut Vec<Effect>,
    ) {
        match activity {
            Activity::React { emoji } => {
                if let Some(refused) = self.refuses_chat(from) {
                    return self.refuse_message(from, refused.to_owned(), effects);
                }
                let Some(member) = self.members.get(from) else { return };

                // The others do not know of a hidden one.
                if !member.grants.hidden {
                    self.reactions.add(from.clone(), emoji);
                }
            }
            Activity::StopAnswer => self.stop_answer(now, from, effects),
            Activity::Clock { reference } => self.tell_time(at, from, reference, effects),
            Activity::Watch(request) => self.watch((now, at), from, request, effects),
        }
    }

    /// Sends the reactions that are due.
    pub(super) fn send_reactions(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(notice) = self.reactions.take(now) {
            effects.push(Effect::SendTransient(Event::Activity(Box::new(notice))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::id::{Grants, MeetingId};
    use crate::room::io::{Input, Join, Reason};
    use crate::room::state::tests::{join, room_of_two, says, seen};

    fn react(emoji: &str) -> String {
        format!(r#"{{"type":"react","emoji":"{emoji}"}}"#)
    }

    #[test]
    fn flood_of_reactions_becomes_few() {
        let (mut room, now) = room_of_two();
        let first = room.handle(now, says(1, &react("👍")));
        assert_eq!(
            seen(&first),
            [r#"transient: {"type":"reactions","reactions":[{"id":"a","emoji":"👍"}]}"#]
        );
        for _ in 0..1000 {
            assert_eq!(seen(&room.handle(now, says(1, &react("👎")))), [""; 0]);
            assert_eq!(seen(&room.handle(now, says(2, &react("❤️")))), [""; 0]);
        }
        let (due, reason) = room.deadline().unwrap();
        assert_eq!((due - now, reason), (Duration::from_millis(500), Reason::Reactions));
        let sent = seen(&room.handle(due, Input::Wake));
        assert_eq!(
            sent,
            [
                r#"transient: {"type":"reactions","reactions":[{"id":"a","emoji":"👎"},{"id":"b","emoji":"❤️"}]}"#
            ]
        );
        assert_eq!(room.deadline().unwrap().1, Reason::Tick, "nothing is left");
    }

    #[test]
    fn reaction_needs_the_grant_of_chat() {
        let (mut room, now) = room_of_two();
        let Input::Join(ask) = join(3, "c", "C") else { unreachable!() };
        let silent = Grants { chat: false, ..Grants::everyone() };
        room.handle(now, Input::Join(Join { grants: silent, new_meeting: MeetingId::random(), ..ask }));
        let answer = seen(&room.handle(now, says(3, &react("👍"))));
        assert_eq!(
            answer,
            [r#"to c: {"type":"error","error":"you may not write to the chat","code":"no_chat"}"#]
        );
    }

    #[test]
    fn members_who_left_show_nothing() {
        let (mut room, now) = room_of_two();
        room.handle(now, says(2, &react("👍")));
        room.handle(now, says(1, &react("👍")));
        room.handle(now, says(1, r#"{"type":"userLeft"}"#));
        assert_eq!(room.reactions.due(), None);
    }
}
