//! The bodies from which the client library `partytracks` heals by itself after a failure.
//!
//! The library never reads a status, so the body alone decides whether it tries again or leaves
//! the page dead until it is reloaded. Each rule here was tried with the library, version 0.0.54
//! (`tests/partytracks`); the media API's own error bodies break most of them.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use axum::http::StatusCode;

use super::api::{Action, ApiFailure, Target};
use super::failure::error_code;

/// What a request for tracks asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Others' tracks: each one's session and name.
    Pull(Vec<(String, String)>),
    /// To publish tracks.
    Push,
    /// Nothing that can be read.
    Unknown,
}

/// A body in place of the one that would not heal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Healing {
    /// Its content type.
    pub(super) content_type: &'static str,
    /// Its text.
    pub(super) text: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Asked {
    /// Reads the body of a request for tracks.
    pub(super) fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Request {
            tracks: Vec<Track>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Track {
            location: String,
            #[serde(default)]
            session_id: String,
            #[serde(default)]
            track_name: String,
        }
        let Ok(Request { tracks }) = serde_json::from_slice(body) else { return Self::Unknown };
        match tracks.first().map(|track| &*track.location) {
            Some("remote") => {
                Self::Pull(tracks.into_iter().map(|track| (track.session_id, track.track_name)).collect())
            }
            Some("local") => Self::Push,
            _ => Self::Unknown,
        }
    }
}

/// The body for a call that failed.
pub(super) fn failure(target: &Target, asked: &Asked, failure: &ApiFailure) -> Healing {
    let ApiFailure { error_code, error_description } = failure;
    let Target::Session { action, .. } = target else {
        // Any JSON counts as success, with a session id of undefined.
        return Healing { content_type: TEXT, text: format!("{error_description}\n") };
    };
    let value = match (action, asked) {
        (Action::NewTracks, Asked::Pull(tracks)) => {
            let failed = |(session, name): &(String, String)| {
                json!({"sessionId": session, "trackName": name,
                       "errorCode": error_code, "errorDescription": error_description})
            };
            json!({"tracks": tracks.iter().map(failed).collect::<Vec<_>>()})
        }
        (Action::NewTracks, Asked::Unknown) => json!({"tracks": []}),
        (Action::Renegotiate, _) => {
            json!({"failureCode": error_code, "failureDescription": error_description})
        }
        (Action::CloseTracks, _) => {
            json!({"errorCode": error_code, "errorDescription": error_description,
                   "sessionDescription": {"type": "rollback", "sdp": ""}})
        }
        _ => json!(failure),
    };
    Healing { content_type: JSON, text: value.to_string() }
}

/// The body in place of an answer of the media API; none where its own does no harm.
///
/// Failures hide in answers of 200, too.
pub(super) fn answer(target: &Target, asked: &Asked, status: StatusCode, body: &[u8]) -> Option<Healing> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Told<'a> {
        session_id: Option<String>,
        error_code: Option<String>,
        error_description: Option<String>,
        #[serde(borrow)]
        session_description: Option<&'a RawValue>,
        tracks: Option<Vec<ToldTrack>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ToldTrack {
        error_code: Option<String>,
        error_description: Option<String>,
    }
    let told: Option<Told> = serde_json::from_slice(body).ok();
    let top = told.as_ref().and_then(|told| Some((told.error_code.clone()?, told.error_description.clone())));
    let mut tracks = told.iter().flat_map(|told| told.tracks.iter().flatten());
    let of_track =
        tracks.find_map(|track| Some((track.error_code.clone()?, track.error_description.clone())));
    let is_whole = match target {
        Target::NewSession => told.as_ref().is_some_and(|told| told.session_id.is_some()),
        Target::Session { .. } => told.is_some(),
    };
    if status.is_success() && is_whole && top.is_none() {
        let is_push =
            matches!(target, Target::Session { action: Action::NewTracks, .. }) && *asked == Asked::Push;
        let offers = told.is_some_and(|told| told.session_description.is_some());
        return match (is_push && of_track.is_some(), offers) {
            (false, _) => None,
            (true, true) => without_failed_tracks(body),
            (true, false) => Some(failure(target, asked, &told_failure(of_track, status))),
        };
    }
    Some(failure(target, asked, &told_failure(top.or(of_track), status)))
}

fn told_failure(told: Option<(String, Option<String>)>, status: StatusCode) -> ApiFailure {
    let (error_code, description) = told.unwrap_or_else(|| (error_code(status).to_owned(), None));
    let error_description = description.unwrap_or_else(|| format!("the media API answered {status}"));
    ApiFailure { error_code, error_description }
}

/// The answer to a push without the tracks that failed: the library then publishes those again,
/// and only those. With them it would take each for published.
fn without_failed_tracks(body: &[u8]) -> Option<Healing> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    let tracks = value.get_mut("tracks")?.as_array_mut()?;
    tracks.retain(|track| track.get("errorCode").is_none_or(Value::is_null));
    Some(Healing { content_type: JSON, text: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn target(action: Action) -> Target {
        Target::Session { session: SessionId::parse("s").unwrap(), action }
    }

    fn pull() -> Asked {
        Asked::read(br#"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t"}]}"#)
    }

    fn push() -> Asked {
        Asked::read(br#"{"tracks":[{"location":"local","mid":"0","trackName":"t"}],"sessionDescription":{}}"#)
    }

    fn json(healing: &Healing) -> Value {
        assert_eq!(healing.content_type, JSON);
        serde_json::from_str(&healing.text).unwrap()
    }

    fn told(target: &Target, asked: &Asked, status: u16, body: &str) -> Option<Healing> {
        answer(target, asked, StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn what_was_asked_is_read_from_the_request() {
        assert_eq!(pull(), Asked::Pull(vec![("p".into(), "t".into())]));
        assert_eq!(push(), Asked::Push);
        for unreadable in ["", "{", "{}", "[]", r#"{"tracks":[]}"#, r#"{"tracks":[{"location":7}]}"#] {
            assert_eq!(Asked::read(unreadable.as_bytes()), Asked::Unknown, "{unreadable}");
        }
    }

    #[test]
    fn a_failed_session_is_told_in_no_json() {
        for (status, body) in [
            (503, r#"{"errorCode":"internal_error","errorDescription":"no"}"#),
            (200, r#"{"errorCode":"internal_error","errorDescription":"no"}"#),
            (201, "{}"),
            (200, "<html>"),
        ] {
            let healing = told(&Target::NewSession, &Asked::Unknown, status, body).unwrap();
            assert_eq!(healing.content_type, TEXT);
            assert!(serde_json::from_str::<Value>(&healing.text).is_err(), "{}", healing.text);
        }
        assert_eq!(told(&Target::NewSession, &Asked::Unknown, 201, r#"{"sessionId":"a"}"#), None);
    }

    #[test]
    fn a_failed_pull_is_told_by_track() {
        let expected = json!({"tracks": [{"sessionId": "p", "trackName": "t", "errorCode": "session_error",
                                          "errorDescription": "gone"}]});
        let body = r#"{"errorCode":"session_error","errorDescription":"gone"}"#;
        for status in [200, 410] {
            let healing = told(&target(Action::NewTracks), &pull(), status, body).unwrap();
            assert_eq!(json(&healing), expected);
        }
        let failed_track = r#"{"tracks":[{"errorCode":"session_error","errorDescription":"gone"}]}"#;
        assert_eq!(told(&target(Action::NewTracks), &pull(), 200, failed_track), None, "it heals as it is");
        let gateway = told(&target(Action::NewTracks), &pull(), 502, "<html>bad gateway</html>").unwrap();
        assert_eq!(json(&gateway)["tracks"][0]["errorCode"], "temporarily_unavailable_error");
    }

    #[test]
    fn a_failed_push_is_told_at_the_top_and_a_partly_failed_one_loses_its_failed_tracks() {
        let body = r#"{"errorCode":"x","errorDescription":"y","tracks":[{"errorCode":"x"}]}"#;
        let healing = told(&target(Action::NewTracks), &push(), 400, body).unwrap();
        assert_eq!(json(&healing), json!({"errorCode": "x", "errorDescription": "y"}));

        let partly =
            r#"{"sessionDescription":{"type":"answer"},"tracks":[{"mid":"0"},{"mid":"1","errorCode":"x"}]}"#;
        let healing = told(&target(Action::NewTracks), &push(), 200, partly).unwrap();
        assert_eq!(
            json(&healing),
            json!({"sessionDescription": {"type": "answer"}, "tracks": [{"mid": "0"}]})
        );
        let all = r#"{"tracks":[{"mid":"1","errorCode":"x"}]}"#;
        let healing = told(&target(Action::NewTracks), &push(), 200, all).unwrap();
        assert!(json(&healing).get("tracks").is_none());
    }

    #[test]
    fn what_went_well_passes_unchanged() {
        for action in [Action::NewTracks, Action::Renegotiate, Action::CloseTracks, Action::UpdateTracks] {
            for asked in [pull(), push(), Asked::Unknown] {
                let body = r#"{"tracks":[{"mid":"0","errorCode":null}],"sessionDescription":{"sdp":"é"}}"#;
                assert_eq!(told(&target(action), &asked, 200, body), None);
            }
        }
        assert_eq!(told(&target(Action::Renegotiate), &Asked::Unknown, 200, "{}"), None);
    }

    #[test]
    fn a_failed_renegotiation_has_no_error_code_and_a_failed_close_a_description() {
        let body = r#"{"errorCode":"x","errorDescription":"y"}"#;
        let healing = told(&target(Action::Renegotiate), &Asked::Unknown, 406, body).unwrap();
        assert_eq!(json(&healing), json!({"failureCode": "x", "failureDescription": "y"}));
        let healing = told(&target(Action::CloseTracks), &Asked::Unknown, 406, body).unwrap();
        assert_eq!(json(&healing)["sessionDescription"]["type"], "rollback");
    }
}
