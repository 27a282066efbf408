//! The AI handshake's data: queries, request bodies, and required fields of answers.
//!
//! Source: protocol section 6.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::calls::call::UpstreamError;
use crate::id::{MeetingId, SessionId, text_is_valid};
use crate::protocol::ai::{AiWish, TrackReference};

/// Name of the AI's bidirectional track.
pub(super) const TRACK_NAME: &str = "ai-generated-voice";

/// The API's name of that track if its `mid` is unknown.
pub(super) const OWN_MID: &str = "#ai-generated-voice";

/// Body that publishes the AI's track; the API makes the offer, since there is no browser.
pub(super) const NEW_TRACK: &str = r#"{"tracks":[{"location":"local","trackName":"ai-generated-voice","bidirectionalMediaStream":true,"kind":"audio"}]}"#;

/// Maximum length of a `mid` and of an error code in characters.
const WORD_CHARS: usize = 64;

/// A failed step of a job, for the log; it contains no secret and no body.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{step}: {cause}")]
pub(super) struct StepFailure {
    /// The step.
    pub(super) step: JobStep,
    /// The cause.
    pub(super) cause: Cause,
}

/// A step of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JobStep {
    /// Opening the AI's session.
    #[error("sessions/new")]
    NewSession,
    /// Adding a track to the session.
    #[error("tracks/new")]
    NewTracks,
    /// Sending the offer to the model.
    #[error("the model")]
    Model,
    /// Sending the model's answer to the media API.
    #[error("renegotiate")]
    Renegotiate,
    /// Closing the AI's track.
    #[error("tracks/close")]
    CloseTracks,
}

/// The cause of a step's failure.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Cause {
    /// No answer from the media API.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// No answer from the model.
    #[error("{0}")]
    Model(&'static str),
    /// The answer has an error status.
    #[error("answered {status}{}", shown(code))]
    Status {
        /// The status.
        status: StatusCode,
        /// The error code, if any.
        code: Option<String>,
    },
    /// The answer has a success status, but its body has an error.
    #[error("refused{}", shown(code))]
    Refused {
        /// The error code.
        code: Option<String>,
    },
    /// The answer lacks a required field.
    #[error("the answer has no {0}")]
    Lacks(&'static str),
    /// The answer is incomplete, or exceeds the limit.
    #[error("the answer is too long or incomplete")]
    Unreadable,
    /// The server is stopping.
    #[error("the server stops")]
    Stopping,
}

impl Cause {
    /// True if the track to be closed no longer exists.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE),
            Self::Refused { code } => code.as_deref() == Some("not_found_track_error"),
            _ => false,
        }
    }

    /// True if the call may have succeeded all the same.
    pub(super) fn is_ambiguous(&self) -> bool {
        match self {
            Self::Upstream(error) => {
                !matches!(error, UpstreamError::NotConfigured(_) | UpstreamError::CircuitOpen)
            }
            Self::Status { status, .. } => status.is_server_error(),
            Self::Refused { .. } => false,
            Self::Model(_) | Self::Lacks(_) | Self::Unreadable | Self::Stopping => true,
        }
    }

    /// True if a retry might succeed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Upstream(error) => !matches!(error, UpstreamError::NotConfigured(_)),
            // 406: concurrent changes of one session; 425: not connected yet; 429: too many calls.
            Self::Status { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 406 | 408 | 425 | 429)
            }
            _ => true,
        }
    }
}

/// The relevant fields of an answer of the media API.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Answered {
    session_id: Option<String>,
    session_description: Option<SdpBody>,
    tracks: Vec<AiTrack>,
    error_code: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct SdpBody {
    r#type: String,
    sdp: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AiTrack {
    mid: Option<String>,
    track_name: Option<String>,
    error_code: Option<String>,
}

impl Answered {
    /// Parses an answer; an error anywhere in it, even of a single track, is an error.
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Result<Self, Cause> {
        let answered: Option<Self> = match body {
            b"" => Some(Self::default()),
            body => serde_json::from_slice(body).ok(),
        };
        let failed_track =
            |answered: &Self| answered.tracks.iter().find_map(|track| track.error_code.clone());
        let code = answered
            .as_ref()
            .and_then(|answered| answered.error_code.clone().or_else(|| failed_track(answered)));
        let code = code.map(|code| clipped(&code));
        if !status.is_success() {
            return Err(Cause::Status { status, code });
        }
        if code.is_some() {
            return Err(Cause::Refused { code });
        }
        answered.ok_or(Cause::Lacks("JSON body"))
    }

    /// Returns the new session.
    pub(super) fn session(&self) -> Result<SessionId, Cause> {
        self.session_id.as_deref().and_then(|id| SessionId::parse(id).ok()).ok_or(Cause::Lacks("session id"))
    }

    /// Returns the `mid` and the name of the new track.
    pub(super) fn track(&self) -> Result<(&str, &str), Cause> {
        let track = self.tracks.first().ok_or(Cause::Lacks("track"))?;
        let is_word = |word: &&str| text_is_valid(word, WORD_CHARS);
        let mid = track.mid.as_deref().filter(is_word).ok_or(Cause::Lacks("mid of the track"))?;
        Ok((mid, track.track_name.as_deref().filter(is_word).unwrap_or(TRACK_NAME)))
    }

    /// Returns the API's SDP offer.
    pub(super) fn offer(self) -> Result<String, Cause> {
        let description = self.session_description.filter(|description| description.r#type == "offer");
        description
            .map(|description| description.sdp)
            .filter(|sdp| is_sdp(sdp))
            .ok_or(Cause::Lacks("SDP offer"))
    }
}

/// True if a text may be a session description: all begin with the version.
pub(super) fn is_sdp(text: &str) -> bool {
    text.starts_with("v=")
}

/// Builds the query of a call: the label of the meeting, and `more`, texts with or without `?` or `&`.
pub(super) fn query(meeting: MeetingId, more: &[&str]) -> String {
    let mut query = format!("correlationId={meeting}");
    for part in more.iter().map(|part| part.trim().trim_matches(['?', '&'])) {
        if !part.is_empty() {
            query.push('&');
            query.push_str(part);
        }
    }
    query
}

/// Builds the model's URL with the requested voice and instructions.
pub(super) fn model_url(endpoint: &Url, model: &str, wish: &AiWish) -> Url {
    let mut url = endpoint.clone();
    let wishes = [("voice", &wish.voice), ("instructions", &wish.instructions)];
    let wishes = wishes.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
    url.query_pairs_mut().extend_pairs(wishes.chain([("model", model)]));
    url
}

/// Builds the body with the model's SDP answer for the media API.
pub(super) fn answer_body(sdp: &str) -> String {
    format!(r#"{{"sessionDescription":{{"type":"answer","sdp":{}}}}}"#, Value::from(sdp))
}

/// Builds the body that subscribes the AI to a track.
pub(super) fn hear_body(track: &TrackReference) -> String {
    let TrackReference { session, track_name } = track;
    let track_name = Value::from(&**track_name);
    format!(
        r##"{{"tracks":[{{"location":"remote","sessionId":"{session}","trackName":{track_name},"mid":"#ai-generated-voice"}}]}}"##
    )
}

/// Builds the body that closes a track without an offer, since there is no browser to make one.
pub(super) fn close_body(mid: &str) -> String {
    format!(r#"{{"tracks":[{{"mid":{}}}],"force":true}}"#, Value::from(mid))
}

/// Sanitizes an error code for the log.
fn clipped(code: &str) -> String {
    let is_part = |char: &char| char.is_ascii_alphanumeric() || *char == '_';
    code.chars().filter(is_part).take(WORD_CHARS).collect()
}

fn shown(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(", {code}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Answered, Cause> {
        Answered::read(StatusCode::OK, body.as_bytes())
    }

    fn refused(code: &str) -> Result<Answered, Cause> {
        Err(Cause::Refused { code: Some(code.to_owned()) })
    }

    #[test]
    fn offer_and_track_are_parsed() {
        let answered = read(
            r#"{"requiresImmediateRenegotiation":true,"tracks":[{"trackName":"voice","mid":"7","location":"local"}],"sessionDescription":{"type":"offer","sdp":"v=0\r\n"}}"#,
        );
        let answered = answered.unwrap();
        assert_eq!(answered.track(), Ok(("7", "voice")));
        assert_eq!(answered.offer(), Ok("v=0\r\n".to_owned()));
        let unnamed = read(r#"{"tracks":[{"mid":"0"}]}"#).unwrap();
        assert_eq!(unnamed.track(), Ok(("0", "ai-generated-voice")));
        assert_eq!(unnamed.offer(), Err(Cause::Lacks("SDP offer")));
    }

    #[test]
    fn answer_without_required_field_is_refused() {
        for body in [
            r#"{"sessionDescription":{"type":"answer","sdp":"v=0"}}"#,
            r#"{"sessionDescription":{"type":"offer","sdp":"<html>"}}"#,
            "{}",
            "",
        ] {
            assert_eq!(read(body).unwrap().offer(), Err(Cause::Lacks("SDP offer")), "{body}");
        }
        assert_eq!(read("{}").unwrap().track(), Err(Cause::Lacks("track")));
        assert_eq!(
            read(r#"{"tracks":[{"mid":""}]}"#).unwrap().track(),
            Err(Cause::Lacks("mid of the track"))
        );
        for body in ["{}", r#"{"sessionId":"../x"}"#] {
            assert_eq!(read(body).unwrap().session(), Err(Cause::Lacks("session id")), "{body}");
        }
        for body in ["<html>", "7", r#"{"sessionId":7}"#] {
            assert_eq!(read(body), Err(Cause::Lacks("JSON body")), "{body}");
        }
    }

    #[test]
    fn errors_are_found_at_top_and_in_tracks() {
        assert_eq!(read(r#"{"errorCode":"session_error"}"#), refused("session_error"));
        assert_eq!(
            read(r#"{"tracks":[{"mid":"1"},{"errorCode":"not_found_track_error\n<x>"}]}"#),
            refused("not_found_track_errorx")
        );
        let down = Answered::read(StatusCode::BAD_GATEWAY, b"<html>").unwrap_err();
        assert_eq!(down.to_string(), "answered 502 Bad Gateway");
        let unknown = Answered::read(StatusCode::GONE, br#"{"errorCode":"session_error"}"#).unwrap_err();
        assert_eq!(unknown.to_string(), "answered 410 Gone, session_error");
    }

    #[test]
    fn only_transient_failures_are_retried() {
        let status =
            |status: u16| Cause::Status { status: StatusCode::from_u16(status).unwrap(), code: None };
        for passing in [
            status(500),
            status(503),
            status(406),
            status(425),
            status(429),
            UpstreamError::TimedOut.into(),
            Cause::Unreadable,
        ] {
            assert!(passing.is_passing() && !passing.is_gone(), "{passing}");
        }
        for lasting in [status(400), status(401), status(403), UpstreamError::NotConfigured("x").into()] {
            assert!(!lasting.is_passing() && !lasting.is_gone(), "{lasting}");
        }
        for gone in [status(404), status(410), Cause::Refused { code: Some("not_found_track_error".into()) }]
        {
            assert!(gone.is_gone(), "{gone}");
        }
    }

    #[test]
    fn queries_and_bodies_match_exactly() {
        let meeting = MeetingId::parse("6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f").unwrap();
        let label = "correlationId=6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f";
        assert_eq!(query(meeting, &["", "&"]), label);
        assert_eq!(
            query(meeting, &["thirdparty=true", "?a=1&b=2&"]),
            format!("{label}&thirdparty=true&a=1&b=2")
        );

        let endpoint = Url::parse("https://model.test/v1/realtime?key=1").unwrap();
        let wish = AiWish { voice: Some("alloy".into()), instructions: Some("Be brief & kind.".into()) };
        assert_eq!(
            model_url(&endpoint, "gpt", &wish).as_str(),
            "https://model.test/v1/realtime?key=1&voice=alloy&instructions=Be+brief+%26+kind.&model=gpt"
        );
        let endpoint = Url::parse("https://model.test/v1").unwrap();
        assert_eq!(
            model_url(&endpoint, "gpt", &AiWish::default()).as_str(),
            "https://model.test/v1?model=gpt"
        );

        assert_eq!(answer_body("v=0\r\n"), r#"{"sessionDescription":{"type":"answer","sdp":"v=0\r\n"}}"#);
        assert_eq!(close_body("7"), r#"{"tracks":[{"mid":"7"}],"force":true}"#);
        let track = TrackReference { session: SessionId::parse("s").unwrap(), track_name: "a\"b".into() };
        assert_eq!(
            hear_body(&track),
            r##"{"tracks":[{"location":"remote","sessionId":"s","trackName":"a\"b","mid":"#ai-generated-voice"}]}"##
        );
    }
}
