//! The assistant in a room: the answer that it is writing, of which there is at most one.

use std::sync::Arc;

use crate::agent::job::AgentJob;
use crate::assistant::AnswerEnd;
use crate::id::UserId;

/// The word that addresses the assistant at the beginning of a message.
const ADDRESS: &str = "@ai";

/// Settings of the assistant, fixed at the room's creation.
#[derive(Clone, Debug)]
pub struct AssistantSettings {
    /// The name shown as the author.
    pub name: Arc<str>,
    /// Maximum number of messages that it sees beside the question.
    pub context_messages: usize,
}

/// The state of the assistant.
#[derive(Debug, Default)]
pub struct Assistant {
    /// Number of the last job; no two jobs share one.
    last_job: u64,
    answer: Option<Answer>,
}

/// An answer in progress.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The job.
    pub job: AgentJob,
    /// Number of the chat message that it becomes.
    pub id: u64,
    /// Time of the question in milliseconds since 1970.
    pub at: u64,
    /// The member who asked.
    pub asker: UserId,
    /// The text so far.
    pub text: String,
}

/// Reason for the end of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerStop {
    /// It ended by itself.
    Ended(AnswerEnd),
    /// Somebody stopped it.
    Stopped,
}

impl Assistant {
    /// The answer in progress.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// The answer in progress, if it is that of this job.
    pub fn answer_of(&mut self, job: AgentJob) -> Option<&mut Answer> {
        self.answer.as_mut().filter(|answer| answer.job == job)
    }

    /// Begins an answer, and returns its job. None may be in progress.
    pub fn begin(&mut self, id: u64, at: u64, asker: UserId) -> AgentJob {
        self.last_job += 1;
        let job = AgentJob(self.last_job);
        self.answer = Some(Answer { job, id, at, asker, text: String::new() });
        job
    }

    /// Ends the answer in progress, and returns it.
    pub fn end(&mut self) -> Option<Answer> {
        self.answer.take()
    }
}

impl Answer {
    /// The text of the chat message that the answer becomes; none if there is nothing to say.
    pub fn final_text(&self, stop: AnswerStop) -> Option<String> {
        let (alone, after) = match stop {
            AnswerStop::Ended(AnswerEnd::Complete) => ("", ""),
            AnswerStop::Ended(AnswerEnd::OutOfBudget) => return None,
            AnswerStop::Ended(AnswerEnd::Cut) => ("", " […]"),
            AnswerStop::Ended(AnswerEnd::Failed) => ("I could not answer.", "\n[The answer broke off.]"),
            AnswerStop::Stopped => ("The answer was stopped.", "\n[The answer was stopped.]"),
        };
        let text = self.text.trim_end();
        Some(if text.is_empty() { alone.to_owned() } else { format!("{text}{after}") })
    }
}

/// The question in a chat message that addresses the assistant.
pub fn question(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let (address, rest) = text.split_at_checked(ADDRESS.len())?;
    let is_address = address.eq_ignore_ascii_case(ADDRESS)
        && rest.chars().next().is_none_or(|next| next.is_whitespace() || matches!(next, ',' | ':'));
    let question =
        rest.trim_start_matches(|char: char| char.is_whitespace() || matches!(char, ',' | ':')).trim_end();
    (is_address && !question.is_empty()).then_some(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_begin_with_the_address() {
        for (text, asked) in [
            ("@ai why?", Some("why?")),
            (" @AI: why?", Some("why?")),
            ("@ai,\nwhy\nnot? ", Some("why\nnot?")),
            ("@ai", None),
            ("@ai : ", None),
            ("@aim why?", None),
            ("@aïda", None),
            ("@a", None),
            ("ask @ai why", None),
            ("", None),
        ] {
            assert_eq!(question(text), asked, "{text}");
        }
    }

    #[test]
    fn end_of_an_answer_is_told() {
        let mut assistant = Assistant::default();
        assistant.begin(7, 7, UserId::parse("a").unwrap());
        let mut answer = assistant.end().unwrap();
        let text = |answer: &Answer, stop| answer.final_text(stop);
        assert_eq!(text(&answer, AnswerStop::Stopped).as_deref(), Some("The answer was stopped."));
        assert_eq!(text(&answer, AnswerStop::Ended(AnswerEnd::OutOfBudget)), None);
        answer.text = "so \n".to_owned();
        for (stop, ends) in [
            (AnswerStop::Ended(AnswerEnd::Complete), "so"),
            (AnswerStop::Ended(AnswerEnd::Cut), "so […]"),
            (AnswerStop::Ended(AnswerEnd::Failed), "so\n[The answer broke off.]"),
            (AnswerStop::Stopped, "so\n[The answer was stopped.]"),
        ] {
            assert_eq!(text(&answer, stop).as_deref(), Some(ends));
        }
    }
}
