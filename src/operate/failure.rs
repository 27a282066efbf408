//! The failure of a command.

use std::io;

use super::table::shown;

/// The failure of a command, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The server does not answer, or not in time.
    #[error(
        "{url} cannot be reached: {error}; start the server, or set admin.listen or --server to where it runs"
    )]
    Unreachable {
        /// The URL, without a query.
        url: String,
        /// The error and its causes.
        error: String,
    },
    /// The server does not accept the token.
    #[error(
        "{url} refuses the token: {answer}; use that in operator.token of its data directory (--data-dir, \
         --token-file), or one with the grant admin"
    )]
    Refused {
        /// The URL.
        url: String,
        /// The server's sentence.
        answer: String,
    },
    /// There is no such room, member or object.
    #[error("{0}")]
    NotFound(String),
    /// There is no usable token.
    #[error("{0}")]
    NoToken(String),
    /// The server refuses the request, or its answer is of another version.
    #[error("{0}")]
    Failed(String),
    /// The result cannot be printed.
    #[error("the result cannot be printed: {0}")]
    Print(#[from] io::Error),
}

impl OperateError {
    /// The exit code of the process: a program can tell a server that is down from a token that is wrong.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Print(_) => 1,
            // 2 is that of a wrong command line.
            Self::Unreachable { .. } => 3,
            Self::Refused { .. } | Self::NoToken(_) => 4,
            Self::NotFound(_) => 5,
        }
    }

    /// A request that was not answered.
    pub(super) fn unreachable(url: &str, error: &reqwest::Error) -> Self {
        let mut text = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        // The library's own sentence repeats the URL with its query; the last cause is the one that helps.
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
        Self::Unreachable { url: url.to_owned(), error: text }
    }

    /// An answer that is none of this API's.
    pub(super) fn strange(url: &str) -> Self {
        Self::Failed(format!("{url} gave an answer that is not of the operators' API"))
    }

    /// A refusal, with the sentence of its answer.
    pub(super) fn answered(url: &str, status: u16, answer: &str) -> Self {
        let of_json = serde_json::from_str::<serde_json::Value>(answer);
        let sentence = of_json.ok().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
        // A proxy in between may answer with a page.
        let line = sentence.as_deref().unwrap_or_else(|| answer.trim().lines().next().unwrap_or_default());
        let line: String = shown(line).chars().take(300).collect();
        match status {
            401 | 403 => Self::Refused { url: url.to_owned(), answer: line },
            404 => Self::NotFound(format!("{url}: {line}")),
            _ => Self::Failed(format!("{url}: {status}: {line}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_becomes_sentence_and_exit_code() {
        for (status, answer, code, text) in [
            (404, "not found\n", 5, "u: not found"),
            (409, r#"{"ok":false,"error":"nobody waits"}"#, 1, "u: 409: nobody waits"),
            (502, "<html>\n<b>", 1, "u: 502: <html>"),
            (500, "\u{1b}[2J", 1, "u: 500: \\u{1b}[2J"),
        ] {
            let error = OperateError::answered("u", status, answer);
            assert_eq!((error.exit_code(), error.to_string()), (code, text.to_owned()));
        }
        for (status, answer) in [(401, "this needs the operator token\n"), (403, "no")] {
            let error = OperateError::answered("u", status, answer);
            let start = format!("u refuses the token: {}; use that in operator.token", answer.trim());
            assert!(error.exit_code() == 4 && error.to_string().starts_with(&start), "{error}");
        }
        assert!(OperateError::answered("u", 500, &"x".repeat(5000)).to_string().len() < 400);
    }
}
