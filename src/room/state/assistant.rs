//! The assistant: questions in the chat, and its answers.

use std::time::Instant;

use serde::Deserialize;

use super::Room;
use crate::assistant::{AnswerEnd, AnswerReport, PromptLine};
use crate::id::UserId;
use crate::protocol::activity::ActivityNotice;
use crate::protocol::client::JsonString;
use crate::protocol::server::{ChatMessage, Event, json_text};
use crate::room::assistant::{Answer, AnswerStop, question};
use crate::room::io::{AgentTask, Effect};

const BUSY: &str = "the assistant is answering somebody; ask again when it is done";
const NO_BUDGET: &str = "the assistant has no answers left for now; the limit is a number of answers a day";
const NO_ANSWER: &str = "the assistant is not answering anybody";
const MAY_NOT_STOP: &str = "only who asked and moderators may stop the assistant";

/// A message of the history, as far as the assistant sees it.
#[derive(Deserialize)]
struct Written {
    from: String,
    name: String,
    message: String,
}

impl Room {
    /// Starts to answer a member's chat message, which was sent to all, if it addresses the assistant.
    pub(super) fn ask_assistant(
        &mut self,
        at: u64,
        asker: &UserId,
        message: &JsonString,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(settings), Some(meeting)) = (&self.settings.assistant, self.meeting) else { return };
        let Ok(text) = serde_json::from_str::<String>(message.as_json()) else { return };
        let Some(question) = question(&text) else { return };
        if self.assistant.answer().is_some() {
            return self.refuse_message(asker, BUSY.to_owned(), effects);
        }
        let name = self.members.get(asker).map(|member| member.name.to_string());
        let mut lines = self.context(settings.context_messages);
        lines.push(PromptLine { author: name.or_else(|| Some(String::new())), text: question.to_owned() });
        self.last_chat = at.max(self.last_chat + 1);
        let job = self.assistant.begin(self.last_chat, at, asker.clone());
        effects.push(Effect::Agent(AgentTask::Answer { job, meeting, lines }));
    }

    /// The last messages of the history before the question, which is the newest there.
    fn context(&self, most: usize) -> Vec<PromptLine> {
        let assistant = UserId::assistant();
        let before = self.chat.messages().rev().skip(1).take(most);
        let mut lines: Vec<PromptLine> = before
            .filter_map(|json| {
                let Written { from, name, message } = serde_json::from_str(json).ok()?;
                let author = (from != assistant.as_str()).then_some(name);
                Some(PromptLine { author, text: message })
            })
            .collect();
        lines.reverse();
        lines
    }

    /// Shows that the answer grew, or that it ended.
    pub(super) fn answered(&mut self, now: Instant, report: AnswerReport, effects: &mut Vec<Effect>) {
        let AnswerReport { job, text, end } = report;
        let Some(answer) = self.assistant.answer_of(job) else { return };
        answer.text = text;
        let answer = answer.clone();
        match end {
            Some(end) => self.end_answer(now, AnswerStop::Ended(end), effects),
            None => {
                let update = self.update_of(&answer);
                effects.push(Effect::SendTransient(update));
            }
        }
    }

    fn update_of(&self, answer: &Answer) -> Event {
        Event::Activity(Box::new(ActivityNotice::ChatUpdate {
            id: answer.id,
            from: UserId::assistant().to_string(),
            name: self.assistant_name().to_string(),
            message: answer.text.clone(),
            at: answer.at,
            asker: answer.asker.clone(),
        }))
    }

    fn assistant_name(&self) -> std::sync::Arc<str> {
        self.settings.assistant.as_ref().map_or_else(|| "".into(), |settings| settings.name.clone())
    }

    /// Ends the answer in progress: it becomes a message of the chat.
    pub(super) fn end_answer(&mut self, now: Instant, stop: AnswerStop, effects: &mut Vec<Effect>) {
        let Some(answer) = self.assistant.end() else { return };
        let text = answer.final_text(stop);
        if let (None, AnswerStop::Ended(AnswerEnd::OutOfBudget)) = (&text, stop) {
            return self.refuse_message(&answer.asker, NO_BUDGET.to_owned(), effects);
        }
        let message = text.and_then(|text| JsonString::parse(&json_text(&text)));
        if let Some(message) = message {
            let (from, name) = (UserId::assistant(), self.assistant_name());
            let message = ChatMessage { id: answer.id, from, name, message, at: answer.at, file: None };
            self.remember_and_send(now, message, effects);
        }
    }

    /// Stops the answer in progress at the request of a member.
    pub(super) fn stop_answer(&mut self, now: Instant, by: &UserId, effects: &mut Vec<Effect>) {
        let Some(answer) = self.assistant.answer() else {
            return self.refuse_message(by, NO_ANSWER.to_owned(), effects);
        };
        if answer.asker != *by && !self.is_moderator(by) && !self.may_mute(by) {
            return self.refuse_message(by, MAY_NOT_STOP.to_owned(), effects);
        }
        effects.push(Effect::Agent(AgentTask::CancelAnswer(answer.job)));
        self.end_answer(now, AnswerStop::Stopped, effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::job::AgentJob;
    use crate::config::ModeratorDefault;
    use crate::id::Grants;
    use crate::room::assistant::AssistantSettings;
    use crate::room::io::{Input, Join};
    use crate::room::state::RoomSettings;
    use crate::room::state::tests::{TICK, join, says_at, seen, settings, start};

    fn room(moderators: ModeratorDefault) -> (Room, Instant) {
        let now = start();
        let assistant = Some(AssistantSettings { name: "Robot".into(), context_messages: 2 });
        let mut room = Room::new(RoomSettings { assistant, moderators, ..settings() }, now);
        for (number, id) in [(1, "a"), (2, "b")] {
            let Input::Join(ask) = join(number, id, id) else { unreachable!() };
            // As the server gives the grant to whoever has no token.
            let moderate = moderators == ModeratorDefault::Everyone;
            let grants = Grants { moderate, ..Grants::everyone() };
            room.handle(now, Input::Join(Join { grants, ..ask }));
        }
        (room, now)
    }

    fn says(room: &mut Room, now: Instant, connection: u64, text: &str) -> Vec<Effect> {
        room.handle(now, says_at(connection, 5, &format!(r#"{{"type":"chat","message":"{text}"}}"#)))
    }

    fn asked(effects: &[Effect]) -> Option<(AgentJob, Vec<PromptLine>)> {
        effects.iter().find_map(|effect| match effect {
            Effect::Agent(AgentTask::Answer { job, lines, .. }) => Some((*job, lines.clone())),
            _ => None,
        })
    }

    fn news(job: AgentJob, text: &str, end: Option<AnswerEnd>) -> Input {
        Input::Answer(AnswerReport { job, text: text.to_owned(), end })
    }

    #[test]
    fn answer_grows_and_becomes_a_message_of_the_chat() {
        let (mut room, now) = room(ModeratorDefault::Nobody);
        for text in ["one", "two", "three"] {
            assert!(asked(&says(&mut room, now, 1, text)).is_none());
        }
        let (job, lines) = asked(&says(&mut room, now, 2, "@ai why?")).unwrap();
        let line = |author: &str, text: &str| PromptLine { author: Some(author.into()), text: text.into() };
        let [a, b] = ["name of a", "name of b"];
        assert_eq!(lines, [line(a, "two"), line(a, "three"), line(b, "why?")], "two before the question");
        let grown = seen(&room.handle(now, news(job, "Be", None)));
        assert_eq!(
            grown,
            [
                r#"transient: {"type":"chatUpdate","id":9,"from":"*assistant","name":"Robot","message":"Be","at":5,"asker":"b"}"#
            ]
        );
        says(&mut room, now, 1, "four");
        let ended = seen(&room.handle(now, news(job, "Because.", Some(AnswerEnd::Complete))));
        assert_eq!(
            ended,
            [
                r#"to all: {"type":"chat","id":9,"from":"*assistant","name":"Robot","message":"Because.","at":5}"#
            ]
        );
        let told: Vec<_> = room.chat().messages().map(str::to_owned).collect();
        assert!(
            told[told.len() - 2].contains("Because.") && told[told.len() - 1].contains("four"),
            "{told:?}"
        );
        assert_eq!(seen(&room.handle(now, news(job, "late", None))), [""; 0]);
        let (_, lines) = asked(&says(&mut room, now, 1, "@ai and?")).unwrap();
        assert_eq!(lines[0], PromptLine { author: None, text: "Because.".into() });
    }

    #[test]
    fn one_answer_at_a_time_and_within_the_budget() {
        let (mut room, now) = room(ModeratorDefault::Nobody);
        let (job, _) = asked(&says(&mut room, now, 1, "@ai why?")).unwrap();
        let effects = says(&mut room, now, 2, "@ai how?");
        assert!(asked(&effects).is_none());
        assert!(seen(&effects)[1].contains(BUSY), "{:?}", seen(&effects));
        let ended = seen(&room.handle(now, news(job, "", Some(AnswerEnd::OutOfBudget))));
        for sentence in [BUSY, NO_BUDGET, MAY_NOT_STOP] {
            assert!(crate::protocol::error_code::error_code(sentence).is_some(), "{sentence}");
        }
        assert_eq!(
            ended,
            [format!(r#"to a: {{"type":"error","error":"{NO_BUDGET}","code":"assistant_exhausted"}}"#)]
        );
        assert!(asked(&says(&mut room, now, 2, "@ai how?")).is_some());
    }

    #[test]
    fn asker_and_moderators_stop_an_answer() {
        let stop = |connection| says_at(connection, 6, r#"{"type":"stopAnswer"}"#);
        for (moderators, asker, stopper, is_allowed) in [
            (ModeratorDefault::Nobody, 1, 1, true),
            (ModeratorDefault::Nobody, 1, 2, false),
            (ModeratorDefault::First, 2, 1, true),
            (ModeratorDefault::First, 1, 2, false),
            (ModeratorDefault::Everyone, 1, 2, true),
        ] {
            let (mut room, now) = room(moderators);
            let (job, _) = asked(&says(&mut room, now, asker, "@ai why?")).unwrap();
            room.handle(now, news(job, "Beca", None));
            let effects = seen(&room.handle(now, stop(stopper)));
            if is_allowed {
                assert_eq!(effects[0], "CancelAnswer(AgentJob(1))");
                assert!(effects[1].contains(r#""message":"Beca\n[The answer was stopped.]""#), "{effects:?}");
                assert_eq!(seen(&room.handle(now, news(job, "Because", Some(AnswerEnd::Complete)))), [""; 0]);
                assert!(seen(&room.handle(now, stop(stopper)))[0].contains(NO_ANSWER));
            } else {
                assert!(effects[0].contains(MAY_NOT_STOP), "{effects:?}");
                assert!(effects[0].ends_with(r#""code":"assistant_of_others"}"#), "{effects:?}");
            }
        }
    }

    #[test]
    fn shutdown_and_the_end_of_the_meeting_end_an_answer() {
        let (mut room, now) = room(ModeratorDefault::Nobody);
        let (job, _) = asked(&says(&mut room, now, 1, "@ai why?")).unwrap();
        room.handle(now, news(job, "Beca", None));
        let effects = seen(&room.handle(now, Input::Shutdown));
        assert!(effects[1].contains(r#""message":"Beca\n[The answer broke off.]""#), "{effects:?}");

        let (mut room, now) = self::room(ModeratorDefault::Nobody);
        asked(&says(&mut room, now, 1, "@ai why?")).unwrap();
        for connection in [1, 2] {
            room.handle(now, says_at(connection, 5, r#"{"type":"userLeft"}"#));
        }
        let effects = seen(&room.handle(now + TICK, Input::Wake));
        assert_eq!(effects, ["CancelAnswer(AgentJob(1))", "retire"]);
    }
}
