//! The media API's own paths, methods and error codes, as data.
//!
//! Source: Cloudflare's OpenAPI description of the Realtime SFU, version 2024-05-21. Only the operations in
//! this table can be called.

use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};

pub use super::id::{InvalidSessionId, PersonId, SessionId};
pub use super::wire::{ApiRequest, answer, read};

/// The origin of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A person's client.
    Person(PersonId),
    /// This server, for an AI.
    Ai,
    /// Another server, which authenticates its own users.
    Server,
}

/// The target of a call: the part of its path below `/apps/{appId}/`, and its method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallTarget {
    /// Opens a session.
    NewSession,
    /// Acts on a session.
    Session {
        /// The session.
        session: SessionId,
        /// The operation.
        action: Action,
    },
}

/// An operation on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lists its tracks.
    Get,
    /// Publishes tracks or subscribes to tracks of other sessions.
    NewTracks,
    /// Answers the API's offer.
    Renegotiate,
    /// Closes tracks.
    CloseTracks,
    /// Changes the track of a transceiver.
    UpdateTracks,
    /// Prepares a session for data channels.
    EstablishDataChannels,
    /// Opens data channels.
    NewDataChannels,
    /// Changes data channels.
    UpdateDataChannels,
    /// Closes data channels.
    CloseDataChannels,
}

const NEW_SESSION: &str = "sessions/new";

impl Action {
    const ALL: [Self; 9] = [
        Self::Get,
        Self::NewTracks,
        Self::Renegotiate,
        Self::CloseTracks,
        Self::UpdateTracks,
        Self::EstablishDataChannels,
        Self::NewDataChannels,
        Self::UpdateDataChannels,
        Self::CloseDataChannels,
    ];

    /// The method, the path suffix after the session's id, and the metric label.
    const fn row(self) -> (Method, &'static str, &'static str) {
        match self {
            Self::Get => (Method::GET, "", "get_session"),
            Self::NewTracks => (Method::POST, "/tracks/new", "new_tracks"),
            Self::Renegotiate => (Method::PUT, "/renegotiate", "renegotiate"),
            Self::CloseTracks => (Method::PUT, "/tracks/close", "close_tracks"),
            Self::UpdateTracks => (Method::PUT, "/tracks/update", "update_tracks"),
            Self::EstablishDataChannels => {
                (Method::POST, "/datachannels/establish", "establish_data_channels")
            }
            Self::NewDataChannels => (Method::POST, "/datachannels/new", "new_data_channels"),
            Self::UpdateDataChannels => (Method::PUT, "/datachannels/update", "update_data_channels"),
            Self::CloseDataChannels => (Method::PUT, "/datachannels/close", "close_data_channels"),
        }
    }
}

impl CallTarget {
    /// Parses a request's method and its raw path below the mount. Nothing is percent-decoded, so an escaped
    /// slash or `..` matches no target.
    pub fn parse(method: &Method, path: &str) -> Option<Self> {
        if path == NEW_SESSION {
            return (method == Method::POST).then_some(Self::NewSession);
        }
        let rest = path.strip_prefix("sessions/")?;
        let (id, suffix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let session = SessionId::parse(id).ok()?;
        let asked = |action: &Action| action.row().0 == method && action.row().1 == suffix;
        let action = Action::ALL.into_iter().find(asked)?;
        Some(Self::Session { session, action })
    }

    /// The method of the call.
    pub fn method(&self) -> Method {
        match self {
            Self::NewSession => Method::POST,
            Self::Session { action, .. } => action.row().0,
        }
    }

    /// Label of the operation in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NewSession => "new_session",
            Self::Session { action, .. } => action.row().2,
        }
    }
}

/// The path below `/apps/{appId}/`.
impl fmt::Display for CallTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewSession => f.write_str(NEW_SESSION),
            Self::Session { session, action } => write!(f, "sessions/{session}{}", action.row().1),
        }
    }
}

/// An error in the media API's format, at the top of a body and for each track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiFailure {
    /// An error code of the API.
    pub error_code: String,
    /// A readable description.
    #[serde(default)]
    pub error_description: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_round_trip() {
        let session = SessionId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let targets = Action::ALL.map(|action| CallTarget::Session { session: session.clone(), action });
        for target in targets.into_iter().chain([CallTarget::NewSession]) {
            assert_eq!(CallTarget::parse(&target.method(), &target.to_string()), Some(target));
        }
        assert_eq!(
            CallTarget::parse(&Method::PUT, "sessions/abc/tracks/close").unwrap().to_string(),
            "sessions/abc/tracks/close"
        );
    }

    #[test]
    fn other_methods_and_paths_are_refused() {
        for (method, path) in [
            (Method::GET, "sessions/new"),
            (Method::PUT, "sessions/new"),
            (Method::POST, "sessions/new/"),
            (Method::POST, "sessions/"),
            (Method::POST, "sessions//tracks/new"),
            (Method::GET, "sessions/a/"),
            (Method::DELETE, "sessions/a"),
            (Method::POST, "sessions/a/tracks/close"),
            (Method::POST, "sessions/a/tracks/new/"),
            (Method::POST, "sessions/a/tracks//new"),
            (Method::POST, "sessions/../tracks/new"),
            (Method::POST, "sessions/%2e%2e/tracks/new"),
            (Method::POST, "sessions/a%2ftracks/new"),
            (Method::POST, "sessions/a/tracks/new?x"),
            (Method::GET, "sessions/.."),
            (Method::POST, "/sessions/new"),
            (Method::POST, ""),
            (Method::GET, "apps/x/sessions/a"),
        ] {
            assert_eq!(CallTarget::parse(&method, path), None, "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn parsed_paths_stay_below_sessions(path in "(sessions/)?[a-z0-9/.%\\\\?#:@-]{0,40}") {
            for method in [Method::GET, Method::POST, Method::PUT] {
                if let Some(target) = CallTarget::parse(&method, &path) {
                    let written = target.to_string();
                    prop_assert_eq!(&written, &path);
                    prop_assert!(written.split('/').all(|part| !part.is_empty() && part != ".." && part != "."));
                    prop_assert!(!written.contains(['%', '\\', '?', '#', ':', '@']));
                }
            }
        }
    }
}
