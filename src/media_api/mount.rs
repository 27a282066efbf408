//! The two path prefixes of the media API for clients.

use axum::http::request;

use super::api::CallTarget;

/// A path prefix under which clients reach the media API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// `/api/calls/`: errors in the media API's format.
    ApiCalls,
    /// `/partytracks/`: errors from which the library recovers.
    Partytracks,
}

impl Mount {
    /// Returns the prefix, without a trailing slash.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::ApiCalls => "/api/calls",
            Self::Partytracks => "/partytracks",
        }
    }

    /// Parses the target of a request below this mount; `None` if the media API has no such call.
    pub(super) fn target(self, head: &request::Parts) -> Option<CallTarget> {
        CallTarget::parse(&head.method, head.uri.path().strip_prefix(self.path())?.strip_prefix('/')?)
    }
}
