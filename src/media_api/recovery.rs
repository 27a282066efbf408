//! Error bodies from which the client library `partytracks` recovers by itself.
//!
//! The library never reads a status, so the body alone decides if it retries or leaves the page dead until a
//! reload. Each rule here was tested with the library, version 0.0.54 (`tests/partytracks`); the media API's
//! own error bodies violate most of them.

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::api::{Action, ApiFailure, CallTarget};
use super::failure::error_code;

/// A request to the tracks endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TracksRequest {
    /// Subscribes to tracks of other sessions: each one's session and name.
    Pull(Vec<(String, String)>),
    /// Publishes tracks.
    Push,
    /// Invalid. The library sends no such request, so no recovery is needed.
    Malformed,
    /// Not read.
    Unknown,
}

/// A body that replaces one from which the library does not recover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecoverableBody {
    /// Value of `Content-Type`.
    pub(super) content_type: &'static str,
    /// Content.
    pub(super) text: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl TracksRequest {
    /// Parses the body of a tracks request.
    pub(super) fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct TracksBody {
            tracks: Vec<RequestedTrack>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct RequestedTrack {
            location: String,
            #[serde(default)]
            session_id: String,
            #[serde(default)]
            track_name: String,
        }
        let Ok(TracksBody { tracks }) = serde_json::from_slice(body) else { return Self::Malformed };
        match tracks.first().map(|track| &*track.location) {
            Some("remote") => {
                Self::Pull(tracks.into_iter().map(|track| (track.session_id, track.track_name)).collect())
            }
            Some("local") => Self::Push,
            _ => Self::Malformed,
        }
    }
}

/// Returns the body for a failed call.
pub(super) fn failure(target: &CallTarget, request: &TracksRequest, failure: &ApiFailure) -> RecoverableBody {
    let ApiFailure { error_code, error_description } = failure;
    let CallTarget::Session { action, .. } = target else {
        // The library takes any JSON as success, with a session id of undefined.
        return RecoverableBody { content_type: TEXT, text: format!("{error_description}\n") };
    };
    let value = match (action, request) {
        (Action::NewTracks, TracksRequest::Pull(tracks)) => {
            let failed = |(session, name): &(String, String)| {
                json!({"sessionId": session, "trackName": name,
                       "errorCode": error_code, "errorDescription": error_description})
            };
            json!({"tracks": tracks.iter().map(failed).collect::<Vec<_>>()})
        }
        // A pull recovers if its own tracks are missing from the list, and reads nothing else; a push that was
        // not read does not recover.
        (Action::NewTracks, TracksRequest::Unknown) => {
            json!({"tracks": [], "failureCode": error_code, "failureDescription": error_description})
        }
        (Action::Renegotiate, _) => {
            json!({"failureCode": error_code, "failureDescription": error_description})
        }
        (Action::CloseTracks, _) => {
            json!({"errorCode": error_code, "errorDescription": error_description,
                   "sessionDescription": {"type": "rollback", "sdp": ""}})
        }
        _ => json!(failure),
    };
    RecoverableBody { content_type: JSON, text: value.to_string() }
}

/// Returns the body that replaces an answer of the media API; `None` if its own is harmless.
///
/// Answers with status 200 may contain failures as well.
pub(super) fn answer(
    target: &CallTarget,
    request: &TracksRequest,
    status: StatusCode,
    body: &[u8],
) -> Option<RecoverableBody> {
    let answer = serde_json::from_slice::<TracksAnswer>(body).unwrap_or_default();
    let is_whole = match target {
        CallTarget::NewSession => answer.session_id.is_some(),
        CallTarget::Session { .. } => serde_json::from_slice::<IgnoredAny>(body).is_ok(),
    };
    let of_track = answer.tracks.iter().flatten().find_map(|track| track.failure.code_and_description());
    let failed = |found| Some(failure(target, request, &failure_from(found, status)));
    if !status.is_success() || !is_whole || answer.failure.error_code.is_some() {
        return failed(answer.failure.code_and_description().or(of_track));
    }
    let CallTarget::Session { action: Action::NewTracks, .. } = target else { return None };
    let lacks_offer = answer.requires_immediate_renegotiation && answer.session_description.is_none();
    match request {
        // The library would throw an uncaught exception.
        TracksRequest::Pull(_) if lacks_offer => failed(of_track),
        TracksRequest::Push if of_track.is_some() && answer.session_description.is_none() => failed(of_track),
        TracksRequest::Pull(_) | TracksRequest::Push if of_track.is_some() => mend_tracks(request, body),
        _ => None,
    }
}

/// The relevant fields of an answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TracksAnswer<'a> {
    session_id: Option<String>,
    #[serde(flatten)]
    failure: ToldFailure,
    requires_immediate_renegotiation: bool,
    #[serde(borrow)]
    session_description: Option<&'a RawValue>,
    tracks: Option<Vec<ToldTrack>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToldTrack {
    #[serde(flatten)]
    failure: ToldFailure,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ToldFailure {
    error_code: Option<String>,
    error_description: Option<String>,
}

impl ToldFailure {
    fn code_and_description(&self) -> Option<(String, Option<String>)> {
        Some((self.error_code.clone()?, self.error_description.clone()))
    }
}

fn failure_from(found: Option<(String, Option<String>)>, status: StatusCode) -> ApiFailure {
    let (error_code, description) = found.unwrap_or_else(|| (error_code(status).to_owned(), None));
    let error_description = description.unwrap_or_else(|| format!("the media API answered {status}"));
    ApiFailure { error_code, error_description }
}

/// Rewrites an answer for tracks of which some failed, so that the library retries those.
///
/// The library reads no track's error code. After a push it takes every track with a `mid` as published, so
/// failed ones lose theirs, unless they failed for being published already. After a pull it waits five seconds
/// for the media of every track with a `mid`.
fn mend_tracks(request: &TracksRequest, body: &[u8]) -> Option<RecoverableBody> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    let tracks = value.get_mut("tracks")?.as_array_mut()?;
    // The library takes a track with a `mid` as successful, and retries the others.
    let is_there =
        |code: &str| matches!(request, TracksRequest::Push) && code == "repeated_local_track_error";
    for track in tracks.iter_mut().filter(|track| error_code_of(track).is_some_and(|code| !is_there(code))) {
        track.as_object_mut()?.remove("mid");
    }
    Some(RecoverableBody { content_type: JSON, text: value.to_string() })
}

fn error_code_of(track: &Value) -> Option<&str> {
    track.get("errorCode")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn target(action: Action) -> CallTarget {
        CallTarget::Session { session: SessionId::parse("s").unwrap(), action }
    }

    fn pull() -> TracksRequest {
        TracksRequest::read(br#"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t"}]}"#)
    }

    fn push() -> TracksRequest {
        TracksRequest::read(
            br#"{"tracks":[{"location":"local","mid":"0","trackName":"t"}],"sessionDescription":{}}"#,
        )
    }

    fn json(recoverable: &RecoverableBody) -> Value {
        assert_eq!(recoverable.content_type, JSON);
        serde_json::from_str(&recoverable.text).unwrap()
    }

    fn recovered(
        target: &CallTarget,
        request: &TracksRequest,
        status: u16,
        body: &str,
    ) -> Option<RecoverableBody> {
        answer(target, request, StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn tracks_request_is_parsed() {
        assert_eq!(pull(), TracksRequest::Pull(vec![("p".into(), "t".into())]));
        assert_eq!(push(), TracksRequest::Push);
        for unreadable in ["", "{", "{}", "[]", r#"{"tracks":[]}"#, r#"{"tracks":[{"location":7}]}"#] {
            assert_eq!(TracksRequest::read(unreadable.as_bytes()), TracksRequest::Malformed, "{unreadable}");
        }
    }

    #[test]
    fn malformed_or_unread_request_gets_the_error() {
        let body = r#"{"errorCode":"invalid_params","errorDescription":"location is missing"}"#;
        let recoverable =
            recovered(&target(Action::NewTracks), &TracksRequest::Malformed, 400, body).unwrap();
        assert_eq!(recoverable.text, body);
        let recoverable = recovered(&target(Action::NewTracks), &TracksRequest::Unknown, 400, body).unwrap();
        assert_eq!(
            json(&recoverable),
            json!({"tracks": [], "failureCode": "invalid_params", "failureDescription": "location is missing"})
        );
    }

    #[test]
    fn failed_session_body_is_not_json() {
        for (status, body) in [
            (503, r#"{"errorCode":"internal_error","errorDescription":"no"}"#),
            (200, r#"{"errorCode":"internal_error","errorDescription":"no"}"#),
            (201, "{}"),
            (200, "<html>"),
        ] {
            let recoverable =
                recovered(&CallTarget::NewSession, &TracksRequest::Unknown, status, body).unwrap();
            assert_eq!(recoverable.content_type, TEXT);
            assert!(serde_json::from_str::<Value>(&recoverable.text).is_err(), "{}", recoverable.text);
        }
        assert_eq!(
            recovered(&CallTarget::NewSession, &TracksRequest::Unknown, 201, r#"{"sessionId":"a"}"#),
            None
        );
    }

    #[test]
    fn failed_pull_reports_each_track() {
        let expected = json!({"tracks": [{"sessionId": "p", "trackName": "t", "errorCode": "session_error",
                                          "errorDescription": "gone"}]});
        let body = r#"{"errorCode":"session_error","errorDescription":"gone"}"#;
        for status in [200, 410] {
            let recoverable = recovered(&target(Action::NewTracks), &pull(), status, body).unwrap();
            assert_eq!(json(&recoverable), expected);
        }
        let failed_track = r#"{"tracks":[{"errorCode":"session_error","errorDescription":"gone"}]}"#;
        let same = recovered(&target(Action::NewTracks), &pull(), 200, failed_track).unwrap();
        assert_eq!(same.text, failed_track, "it heals as it is");
        let waiting = r#"{"tracks":[{"mid":"0"},{"mid":"1","errorCode":"x"}]}"#;
        let recoverable = recovered(&target(Action::NewTracks), &pull(), 200, waiting).unwrap();
        assert_eq!(json(&recoverable), json!({"tracks": [{"mid": "0"}, {"errorCode": "x"}]}));
        let offerless = r#"{"requiresImmediateRenegotiation":true,"tracks":[{"mid":"0"}]}"#;
        let recoverable = recovered(&target(Action::NewTracks), &pull(), 200, offerless).unwrap();
        assert_eq!(json(&recoverable)["tracks"][0]["sessionId"], "p");
        let gateway =
            recovered(&target(Action::NewTracks), &pull(), 502, "<html>bad gateway</html>").unwrap();
        assert_eq!(json(&gateway)["tracks"][0]["errorCode"], "temporarily_unavailable_error");
    }

    #[test]
    fn failed_push_reports_error_or_drops_failed_mids() {
        let body = r#"{"errorCode":"x","errorDescription":"y","tracks":[{"errorCode":"x"}]}"#;
        let recoverable = recovered(&target(Action::NewTracks), &push(), 400, body).unwrap();
        assert_eq!(json(&recoverable), json!({"errorCode": "x", "errorDescription": "y"}));

        let partly =
            r#"{"sessionDescription":{"type":"answer"},"tracks":[{"mid":"0"},{"mid":"1","errorCode":"x"}]}"#;
        let recoverable = recovered(&target(Action::NewTracks), &push(), 200, partly).unwrap();
        assert_eq!(
            json(&recoverable),
            json!({"sessionDescription": {"type": "answer"}, "tracks": [{"mid": "0"}, {"errorCode": "x"}]})
        );
        let there =
            r#"{"sessionDescription":{},"tracks":[{"mid":"0","errorCode":"repeated_local_track_error"}]}"#;
        let recoverable = recovered(&target(Action::NewTracks), &push(), 200, there).unwrap();
        assert_eq!(json(&recoverable)["tracks"][0]["mid"], "0", "it is published already");
        let all = r#"{"tracks":[{"mid":"1","errorCode":"x"}]}"#;
        let recoverable = recovered(&target(Action::NewTracks), &push(), 200, all).unwrap();
        assert!(json(&recoverable).get("tracks").is_none());
    }

    #[test]
    fn successful_answer_is_unchanged() {
        for action in [Action::NewTracks, Action::Renegotiate, Action::CloseTracks, Action::UpdateTracks] {
            for request in [pull(), push(), TracksRequest::Unknown] {
                let body = r#"{"tracks":[{"mid":"0","errorCode":null}],"sessionDescription":{"sdp":"é"}}"#;
                assert_eq!(recovered(&target(action), &request, 200, body), None);
            }
        }
        assert_eq!(recovered(&target(Action::Renegotiate), &TracksRequest::Unknown, 200, "{}"), None);
    }

    #[test]
    fn failed_renegotiation_and_close_are_recoverable() {
        let body = r#"{"errorCode":"x","errorDescription":"y"}"#;
        let recoverable =
            recovered(&target(Action::Renegotiate), &TracksRequest::Unknown, 406, body).unwrap();
        assert_eq!(json(&recoverable), json!({"failureCode": "x", "failureDescription": "y"}));
        let recoverable =
            recovered(&target(Action::CloseTracks), &TracksRequest::Unknown, 406, body).unwrap();
        assert_eq!(json(&recoverable)["sessionDescription"]["type"], "rollback");
    }
}
