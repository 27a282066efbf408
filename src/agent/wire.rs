//! The calls of agents at the media API: queries, request bodies, and required fields of answers.
//!
//! Source: protocol section 6.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::failure::Cause;
use crate::id::{MeetingId, SessionId, text_is_valid};

/// Maximum length of a `mid` and of an error code in characters.
const WORD_CHARS: usize = 64;

/// The relevant fields of an answer of the media API.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Answered {
    session_id: Option<String>,
    session_description: Option<SdpBody>,
    tracks: Vec<AnsweredTrack>,
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
struct AnsweredTrack {
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

    /// Returns the `mid` and the name of the new track, which was requested as `name`.
    pub(super) fn track<'a>(&'a self, name: &'a str) -> Result<(&'a str, &'a str), Cause> {
        let track = self.tracks.first().ok_or(Cause::Lacks("track"))?;
        let is_word = |word: &&str| text_is_valid(word, WORD_CHARS);
        let mid = track.mid.as_deref().filter(is_word).ok_or(Cause::Lacks("mid of the track"))?;
        Ok((mid, track.track_name.as_deref().filter(is_word).unwrap_or(name)))
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
pub fn is_sdp(text: &str) -> bool {
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

/// Builds the body with an SDP answer for the media API.
pub(super) fn answer_body(sdp: &str) -> String {
    format!(r#"{{"sessionDescription":{{"type":"answer","sdp":{}}}}}"#, Value::from(sdp))
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
        assert_eq!(answered.track("requested"), Ok(("7", "voice")));
        assert_eq!(answered.offer(), Ok("v=0\r\n".to_owned()));
        let unnamed = read(r#"{"tracks":[{"mid":"0"}]}"#).unwrap();
        assert_eq!(unnamed.track("requested"), Ok(("0", "requested")));
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
        assert_eq!(read("{}").unwrap().track("requested"), Err(Cause::Lacks("track")));
        assert_eq!(
            read(r#"{"tracks":[{"mid":""}]}"#).unwrap().track("requested"),
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
    fn queries_and_bodies_match_exactly() {
        let meeting = MeetingId::parse("6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f").unwrap();
        let label = "correlationId=6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f";
        assert_eq!(query(meeting, &["", "&"]), label);
        assert_eq!(
            query(meeting, &["thirdparty=true", "?a=1&b=2&"]),
            format!("{label}&thirdparty=true&a=1&b=2")
        );
        assert_eq!(answer_body("v=0\r\n"), r#"{"sessionDescription":{"type":"answer","sdp":"v=0\r\n"}}"#);
        assert_eq!(close_body("7"), r#"{"tracks":[{"mid":"7"}],"force":true}"#);
    }
}
