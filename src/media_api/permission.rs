//! Permissions of a call: the tracks that it subscribes to, one by one, and the kinds of media that it sends.
//!
//! The body decides, so nothing in it may be read in two ways: a field that is repeated, or whose name differs from a
//! known one in the case of letters, is refused.

use std::borrow::Cow;
use std::collections::HashMap;

use axum::body::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::api::{Action, CallTarget};
use super::failure::CallFailure;
use crate::id::{PublishGrants, SessionId};

/// The error of a track that the caller may not receive: the same as that of one that does not exist.
const NOT_FOUND: (&str, &str) = ("not_found_track_error", "no such track");

/// Known fields, in any case of letters.
const FIELDS: [&str; 9] = [
    "tracks",
    "datachannels",
    "sessiondescription",
    "location",
    "sessionid",
    "trackname",
    "kind",
    "sdp",
    "type",
];

/// A call's body with those tracks alone that the caller may receive.
#[derive(Debug, PartialEq)]
pub(super) enum Permitted {
    /// All of them.
    Whole,
    /// Some; the body without the others, and the others.
    Partly(Bytes, Vec<RefusedTrack>),
    /// None of them.
    Nothing(Vec<RefusedTrack>),
}

/// A track that is left out of a call.
#[derive(Debug, PartialEq)]
pub(super) struct RefusedTrack {
    /// Its place in the call.
    at: usize,
    /// Its part of the answer.
    answer: Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    tracks: Option<Vec<AskedTrack>>,
    data_channels: Option<Vec<AskedTrack>>,
    #[serde(borrow)]
    session_description: Option<AskedDescription<'a>>,
    #[serde(flatten)]
    other: HashMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AskedTrack {
    session_id: Option<String>,
    track_name: Option<String>,
    location: Option<String>,
    kind: Option<String>,
    #[serde(flatten)]
    other: HashMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct AskedDescription<'a> {
    #[serde(borrow)]
    sdp: Option<Cow<'a, str>>,
    #[serde(flatten)]
    other: HashMap<String, IgnoredAny>,
}

/// Decides which part of a call is permitted: `may_subscribe` says if the caller may receive tracks of a session,
/// `publish` which kinds of media it may send.
///
/// # Errors
/// [`CallFailure`] if the whole call is not.
pub(super) fn check(
    target: &CallTarget,
    body: &Bytes,
    publish: PublishGrants,
    may_subscribe: impl Fn(&SessionId) -> bool,
) -> Result<Permitted, CallFailure> {
    let action = match target {
        CallTarget::Session { action: Action::Get, .. } => return Ok(Permitted::Whole),
        CallTarget::NewSession if body.is_empty() => return Ok(Permitted::Whole),
        CallTarget::NewSession => None,
        CallTarget::Session { action, .. } => Some(*action),
    };
    // Another parser may read what this one cannot: lists instead of objects, deep nesting, numbers out of range.
    let asked: Asked = serde_json::from_slice(body)
        .map_err(|error| if error.is_data() { CallFailure::Ambiguous } else { CallFailure::Malformed })?;
    asked.check_names()?;
    asked.check_publishing(publish)?;
    let may = |track: &AskedTrack| match track.session_id.as_deref().map(SessionId::parse) {
        None => true,
        Some(session) => session.is_ok_and(|session| may_subscribe(&session)),
    };
    if !asked.data_channels.iter().flatten().all(may) {
        return Err(CallFailure::NoSuchTrack);
    }
    let is_of_tracks = matches!(action, Some(Action::NewTracks | Action::UpdateTracks));
    let tracks = asked.tracks.unwrap_or_default();
    let refused: Vec<RefusedTrack> = tracks
        .iter()
        .enumerate()
        .filter(|(_, track)| is_of_tracks && !may(track))
        .map(|(at, track)| RefusedTrack { at, answer: track.refused() })
        .collect();
    if refused.is_empty() {
        Ok(Permitted::Whole)
    } else if refused.len() == tracks.len() {
        Ok(Permitted::Nothing(refused))
    } else {
        let body = without(body, &refused).ok_or(CallFailure::Ambiguous)?;
        Ok(Permitted::Partly(body, refused))
    }
}

/// The body that answers a call of which nothing is permitted.
pub(super) fn refusal(refused: Vec<RefusedTrack>) -> String {
    let tracks: Vec<Value> = refused.into_iter().map(|track| track.answer).collect();
    json!({"requiresImmediateRenegotiation": false, "tracks": tracks}).to_string()
}

/// Adds the tracks that were left out to the answer to the others; `None` if that lists no tracks.
pub(super) fn merge(answer: &[u8], refused: Vec<RefusedTrack>) -> Option<String> {
    let mut answer: Value = serde_json::from_slice(answer).ok()?;
    let tracks = answer.get_mut("tracks")?.as_array_mut()?;
    for RefusedTrack { at, answer } in refused {
        tracks.insert(at.min(tracks.len()), answer);
    }
    Some(answer.to_string())
}

fn without(body: &[u8], refused: &[RefusedTrack]) -> Option<Bytes> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    let tracks = value.get_mut("tracks")?.as_array_mut()?;
    for RefusedTrack { at, .. } in refused.iter().rev() {
        (*at < tracks.len()).then(|| tracks.remove(*at))?;
    }
    Some(value.to_string().into())
}

impl AskedTrack {
    fn refused(&self) -> Value {
        let (code, description) = NOT_FOUND;
        json!({"sessionId": self.session_id, "trackName": self.track_name,
               "errorCode": code, "errorDescription": description})
    }
}

impl Asked<'_> {
    /// Refuses names that another parser may take for those of known fields.
    fn check_names(&self) -> Result<(), CallFailure> {
        let tracks = self.tracks.iter().chain(&self.data_channels).flatten().map(|track| &track.other);
        let description = self.session_description.iter().map(|description| &description.other);
        let mut names = [&self.other].into_iter().chain(tracks).chain(description).flat_map(HashMap::keys);
        let is_known = |name: &String| {
            let exact = matches!(name.as_str(), "type" | "location" | "kind" | "sdp" | "tracks");
            !exact && FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field))
        };
        if names.any(is_known) { Err(CallFailure::Ambiguous) } else { Ok(()) }
    }

    /// Refuses media of kinds that may not be sent. A screen is video, and its sound is audio.
    fn check_publishing(&self, publish: PublishGrants) -> Result<(), CallFailure> {
        let PublishGrants { audio, video, screen } = publish;
        for (kind, is_granted) in [("audio", audio || screen), ("video", video || screen)] {
            if is_granted {
                continue;
            }
            let description =
                self.session_description.as_ref().and_then(|description| description.sdp.as_deref());
            let is_asked = |track: &AskedTrack| {
                track.location.as_deref() == Some("local") && track.kind.as_deref() == Some(kind)
            };
            if description.is_some_and(|sdp| sends(sdp, kind)) || self.tracks.iter().flatten().any(is_asked) {
                return Err(CallFailure::MayNotPublish);
            }
        }
        Ok(())
    }
}

/// True if a session description has a section of this kind that sends (RFC 8866 section 6.7). Where two parsers may
/// differ, it does: some end lines at a lone carriage return, and of two directions either may count.
fn sends(sdp: &str, kind: &str) -> bool {
    let (mut session, mut section) = (Direction::default(), None::<(bool, Direction)>);
    let mut sends = false;
    for line in sdp.split(['\r', '\n']).map(str::trim) {
        if let Some(media) = line.strip_prefix("m=") {
            sends |= section.is_some_and(|(is_it, direction)| is_it && direction.sends(session));
            section = Some((media.starts_with(kind), Direction::default()));
        } else {
            let direction = section.as_mut().map_or(&mut session, |(_, direction)| direction);
            direction.read(line);
        }
    }
    sends || section.is_some_and(|(is_it, direction)| is_it && direction.sends(session))
}

/// The directions that a session, or a section of it, names.
#[derive(Clone, Copy, Default)]
struct Direction {
    sends: bool,
    receives_only: bool,
}

impl Direction {
    fn read(&mut self, line: &str) {
        self.sends |= ["a=sendrecv", "a=sendonly"].contains(&line);
        self.receives_only |= ["a=recvonly", "a=inactive"].contains(&line);
    }

    /// True if a section with these directions, in such a session, sends.
    fn sends(self, session: Self) -> bool {
        let names_none = !self.sends && !self.receives_only;
        self.sends || names_none && (session.sends || !session.receives_only)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Grants;

    const ALL: PublishGrants = Grants::everyone().publish;

    fn target(action: Action) -> CallTarget {
        CallTarget::Session { session: SessionId::parse("own").unwrap(), action }
    }

    fn check_text(action: Action, body: &str, publish: PublishGrants) -> Result<Permitted, CallFailure> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        check(&target(action), &body, publish, |session| session.as_str() == "ours")
    }

    #[test]
    fn tracks_of_other_rooms_are_left_out() {
        let remote =
            |session: &str| format!(r#"{{"location":"remote","sessionId":"{session}","trackName":"t"}}"#);
        let body = |sessions: &[&str]| {
            let tracks: Vec<String> = sessions.iter().map(|session| remote(session)).collect();
            format!(r#"{{"tracks":[{}]}}"#, tracks.join(","))
        };
        for action in [Action::NewTracks, Action::UpdateTracks] {
            assert_eq!(check_text(action, &body(&["ours", "ours"]), ALL), Ok(Permitted::Whole));
            let Permitted::Partly(rest, refused) =
                check_text(action, &body(&["theirs", "ours", "theirs"]), ALL).unwrap()
            else {
                panic!("not partly permitted");
            };
            assert_eq!(
                serde_json::from_slice::<Value>(&rest).unwrap()["tracks"].as_array().unwrap().len(),
                1
            );
            let merged = merge(br#"{"tracks":[{"mid":"0","sessionId":"ours"}],"x":1}"#, refused).unwrap();
            let merged: Value = serde_json::from_str(&merged).unwrap();
            let order: Vec<&str> = merged["tracks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t["sessionId"].as_str().unwrap())
                .collect();
            assert_eq!(order, ["theirs", "ours", "theirs"]);
            assert_eq!(merged["tracks"][2]["errorCode"], "not_found_track_error");
            let Permitted::Nothing(refused) = check_text(action, &body(&["theirs", "a/b"]), ALL).unwrap()
            else {
                panic!("something is permitted");
            };
            assert_eq!(refusal(refused).matches("not_found_track_error").count(), 2);
        }
        assert_eq!(check_text(Action::CloseTracks, r#"{"tracks":[{"mid":"0"}]}"#, ALL), Ok(Permitted::Whole));
        let channel =
            r#"{"dataChannels":[{"location":"remote","sessionId":"theirs","dataChannelName":"d"}]}"#;
        assert_eq!(check_text(Action::NewDataChannels, channel, ALL), Err(CallFailure::NoSuchTrack));
    }

    /// Another parser may take the last of two equal names, or ignore the case of letters.
    #[test]
    fn body_that_can_be_read_in_two_ways_is_refused() {
        for body in [
            r#"{"tracks":[],"tracks":[{"location":"remote","sessionId":"theirs","trackName":"t"}]}"#,
            r#"{"tracks":[{"sessionId":"ours","sessionId":"theirs","trackName":"t"}]}"#,
            r#"{"tracks":[{"SessionID":"theirs","trackName":"t"}]}"#,
            r#"{"Tracks":[{"sessionId":"theirs","trackName":"t"}]}"#,
            r#"{"tracks":[{"sessionId":["theirs"],"trackName":"t"}]}"#,
            r#"{"tracks":{"0":{"sessionId":"theirs"}}}"#,
            r#"{"sessionDescription":{"type":"offer","SDP":"m=audio 9"}}"#,
        ] {
            let checked = check_text(Action::NewTracks, body, ALL);
            assert_eq!(checked, Err(CallFailure::Ambiguous), "{body}");
        }
        for body in [r#"{"tracks":null}"#, r#"{"type":1,"x":{"tracks":1}}"#] {
            assert_eq!(check_text(Action::NewTracks, body, ALL), Ok(Permitted::Whole), "{body}");
        }
    }

    /// The embedded server takes a list for an object, and skips unknown fields at any depth and with any content.
    #[test]
    fn body_that_only_another_parser_can_read_is_refused() {
        let tracks = r#""tracks":[{"location":"remote","sessionId":"theirs","trackName":"t"}]"#;
        let deep = format!(r#"{{{tracks},"x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
        let long = format!(r#"{{{tracks},"x":1e999}}"#);
        let half = format!(r#"{{{tracks},"x":"\ud800"}}"#);
        let marked = format!("\u{feff}{{{tracks}}}");
        let list = r#"[null,[{"location":"remote","sessionId":"theirs","trackName":"t"}]]"#;
        for body in [&deep, &long, &half, &marked, list, "", "{", "null", "7"] {
            let checked = check_text(Action::NewTracks, body, ALL);
            assert!(
                matches!(checked, Err(CallFailure::Malformed | CallFailure::Ambiguous)),
                "{body}: {checked:?}"
            );
        }
    }

    #[test]
    fn description_that_sends_for_some_parsers_sends() {
        for (sdp, expected) in [
            ("v=0\r\na=recvonly\r\nm=audio 9\r\n", false),
            ("v=0\r\na=recvonly\r\nm=audio 9\r\na=x:m=zzz\r\na=sendonly\r\n", true),
            ("v=0\na=recvonly\nm=audio 9\ra=sendonly\n", true),
            ("v=0\r\nm=audio 9\r\na=sendonly\r\na=recvonly\r\n", true),
            ("v=0\r\nm=audio 9\r\n", true),
            ("v=0\r\nm=video 9\r\nm=audio 9\r\na=inactive\r\nm=video 9\r\n", false),
            ("v=0\r\n", false),
        ] {
            assert_eq!(sends(sdp, "audio"), expected, "{sdp:?}");
        }
    }

    #[test]
    fn kinds_without_grant_are_refused() {
        let offer = |direction: &str, kind: &str| {
            let sdp =
                format!("v=0\\r\\nm=application 9\\r\\nm={kind} 9\\r\\na=mid:0\\r\\na={direction}\\r\\n");
            format!(r#"{{"sessionDescription":{{"type":"offer","sdp":"{sdp}"}},"tracks":[]}}"#)
        };
        let audio_only = PublishGrants { audio: true, ..PublishGrants::default() };
        let screen_only = PublishGrants { screen: true, ..PublishGrants::default() };
        let refused = || Err(CallFailure::MayNotPublish);
        for action in [Action::NewTracks, Action::Renegotiate, Action::CloseTracks] {
            for (direction, kind, publish, expected) in [
                ("sendonly", "video", ALL, Ok(Permitted::Whole)),
                ("sendonly", "video", audio_only, refused()),
                ("sendrecv", "video", audio_only, refused()),
                ("recvonly", "video", audio_only, Ok(Permitted::Whole)),
                ("inactive", "audio", PublishGrants::default(), Ok(Permitted::Whole)),
                ("sendonly", "audio", PublishGrants::default(), refused()),
                ("x", "audio", PublishGrants::default(), refused()),
                ("sendonly", "audio", screen_only, Ok(Permitted::Whole)),
            ] {
                let checked = check_text(action, &offer(direction, kind), publish);
                assert_eq!(checked, expected, "{direction} {kind} {publish:?}");
            }
        }
        let body = r#"{"tracks":[{"location":"local","trackName":"t","kind":"audio"}]}"#;
        assert_eq!(check_text(Action::NewTracks, body, PublishGrants::default()), refused());
        let new = check(
            &CallTarget::NewSession,
            &offer("sendonly", "audio").into(),
            PublishGrants::default(),
            |_| true,
        );
        assert_eq!(new, refused());
    }
}
