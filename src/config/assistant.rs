//! The settings of the assistant, a language model in the chat.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::rules::{Violation, out_of_range};
use super::value::{HttpUrl, Optional, Text, text};

/// The assistant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AssistantConfig {
    /// Base URL of an API like that of OpenAI; without one there is no assistant.
    pub url: Optional<HttpUrl>,
    /// Name of the model.
    pub model: Optional<String>,
    /// Token for the API.
    pub token: Optional<SecretString>,
    /// Name shown as the author; 1 to 64 characters.
    pub name: String,
    /// Instructions to the model.
    pub instructions: String,
    /// Messages of the chat that the model sees beside the question; up to 200.
    pub context_messages: usize,
    /// Tokens of an answer; 1 to 100,000.
    pub answer_tokens: usize,
    /// Characters of an answer; 100 to 16,000.
    pub answer_chars: usize,
    /// Timeout of an answer; 1 s to 10 min.
    #[serde(with = "text")]
    pub timeout: Duration,
    /// Answers a day in one room; 0 is no limit.
    pub answers_per_room: u32,
    /// Answers a day in rooms that one network started; 0 is no limit.
    pub answers_per_network: u32,
    /// Answers a day; 0 is no limit.
    pub answers_per_day: u32,
}

impl Default for AssistantConfig {
    fn default() -> Self {
        Self {
            url: Optional(None),
            model: Optional(None),
            token: Optional(None),
            name: "Assistant".to_owned(),
            instructions:
                "You take part in the chat of a video meeting. Answer briefly, in the language of the \
                           question, as plain text."
                    .to_owned(),
            context_messages: 20,
            answer_tokens: 500,
            answer_chars: 4000,
            timeout: Duration::from_secs(60),
            answers_per_room: 50,
            answers_per_network: 200,
            answers_per_day: 1000,
        }
    }
}

/// The error of a token that fits into no header.
fn token_defect(token: &str) -> Option<&'static str> {
    let is_good = (1..=4096).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_good).then_some("a token has 1 to 4096 visible ASCII characters")
}

/// Settings of the assistant that are out of their range, or need others.
pub(super) fn wrong_assistant(assistant: &AssistantConfig) -> impl Iterator<Item = Violation> {
    let AssistantConfig { url, model, token, name, timeout, .. } = assistant;
    let range = Duration::from_secs(1)..=Duration::from_secs(600);
    let timeout = out_of_range("assistant.timeout", timeout, &range, Duration::write);
    let is_modelless = url.is_some() && model.as_ref().is_none_or(|model| model.trim().is_empty());
    let others = [
        is_modelless
            .then(|| Violation::new(&["assistant.url", "assistant.model"], "needs assistant.model as well")),
        token
            .as_ref()
            .and_then(|token| token_defect(token.expose_secret()))
            .map(|defect| Violation::new(&["assistant.token"], format!("is no token: {defect}"))),
        (name.trim().is_empty() || name.chars().count() > 64)
            .then(|| Violation::new(&["assistant.name"], "has 1 to 64 characters, not all of them blank")),
        (assistant.instructions.len() > 32 << 10)
            .then(|| Violation::new(&["assistant.instructions"], "has up to 32768 bytes")),
    ];
    [
        ("assistant.context_messages", assistant.context_messages, 0..=200),
        ("assistant.answer_tokens", assistant.answer_tokens, 1..=100_000),
        ("assistant.answer_chars", assistant.answer_chars, 100..=16_000),
    ]
    .into_iter()
    .filter_map(|(key, value, allowed)| out_of_range(key, &value, &allowed, usize::to_string))
    .chain(timeout)
    .chain(others.into_iter().flatten())
}
