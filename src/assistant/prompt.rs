//! The question to a model, and what it may see of the chat.

use serde::Serialize;

/// A message that a model sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptLine {
    /// The author; none for the assistant's own answers.
    pub author: Option<String>,
    /// The text.
    pub text: String,
}

/// The body of a request.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    pub(super) model: &'a str,
    pub(super) messages: Vec<Message<'a>>,
    pub(super) max_tokens: usize,
    pub(super) stream: bool,
}

#[derive(Serialize)]
pub(super) struct Message<'a> {
    role: &'static str,
    content: std::borrow::Cow<'a, str>,
}

/// The messages of a request: the instructions, and the chat. Names are part of the text, since APIs take only some
/// characters in a field of their own.
pub(super) fn messages<'a>(instructions: &'a str, lines: &'a [PromptLine]) -> Vec<Message<'a>> {
    let instructions = Message { role: "system", content: instructions.into() };
    let chat = lines.iter().map(|PromptLine { author, text }| match author {
        Some(author) => Message { role: "user", content: format!("{author}: {text}").into() },
        None => Message { role: "assistant", content: text.as_str().into() },
    });
    std::iter::once(instructions).chain(chat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_has_the_chat_with_names() {
        let lines = [
            PromptLine { author: Some("Ada".into()), text: "\"hi\"".into() },
            PromptLine { author: None, text: "Hello".into() },
        ];
        let messages = messages("Be brief.", &lines);
        let request = Request { model: "m", messages, max_tokens: 7, stream: true };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Ada: \"hi\""},{"role":"assistant","content":"Hello"}],"max_tokens":7,"stream":true}"#
        );
    }
}
