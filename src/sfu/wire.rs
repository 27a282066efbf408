//! JSON of the Calls API: request bodies to requests, outcomes to responses.
//!
//! Source: Cloudflare's OpenAPI description of the Realtime SFU, version 2024-05-21.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::description::Description;
use super::error::SfuError;
use super::request::{
    Choice, DescriptionType, Ice, LayerWish, MediaDirection, Publish, Reply, Request, RequestResult,
    SessionDescription, Subscribe, TrackDone, TrackFailed, TrackKind, Transceiver, Update,
};
use crate::api::{Action, ApiFailure, CallTarget, Caller};
use crate::id::SessionId;
use crate::network::ClientNetwork;

/// Most tracks in one call (the API's own limit).
const MAX_TRACKS: usize = 64;

/// Longest track name, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Longest `rid`, in bytes.
const MAX_RID_BYTES: usize = 64;

/// A call of the API, not parsed yet.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// The resource and action called.
    pub target: CallTarget,
    /// The query, without its `?`.
    pub query: Option<String>,
    /// The JSON body.
    pub body: Bytes,
    /// The caller.
    pub caller: Caller,
    /// Client network of a person's call, if known.
    pub network: Option<ClientNetwork>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    session_description: Option<Sdp>,
    tracks: Vec<TrackObject>,
    auto_discover: bool,
    force: bool,
}

#[derive(Deserialize)]
struct Sdp {
    r#type: String,
    sdp: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TrackObject {
    location: Option<String>,
    mid: Option<String>,
    session_id: Option<String>,
    track_name: Option<String>,
    bidirectional_media_stream: bool,
    kind: Option<String>,
    simulcast: Option<Simulcast>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Simulcast {
    preferred_rid: Option<String>,
    priority_ordering: Option<String>,
    rid_not_available: Option<String>,
}

/// Parses a call.
///
/// # Errors
/// [`SfuError`] for input that cannot be used.
pub fn read(request: &ApiRequest) -> Result<Request, SfuError> {
    let body = || -> Result<Body, SfuError> {
        // The text of serde_json's error names the field, and quotes only the caller's own input.
        serde_json::from_slice(&request.body).map_err(|error| SfuError::Decoding(error.to_string()))
    };
    let CallTarget::Session { session, action } = &request.target else {
        let body = if request.body.is_empty() { Body::default() } else { body()? };
        let offer = body.session_description.map(|sdp| sdp.read(DescriptionType::Offer)).transpose()?;
        let ice = match &request.caller {
            // A person's browser makes the connectivity checks. If the server made them, it would send
            // datagrams to any address that a caller names.
            Caller::Person(_) => Ice::Lite,
            Caller::Ai | Caller::Server => ice(request.query.as_deref()),
        };
        return Ok(Request::Open { owner: request.caller.clone(), network: request.network, offer, ice });
    };
    let session = session.clone();
    match action {
        Action::Get => Ok(Request::Tracks { session }),
        Action::NewTracks => new_tracks(session, body()?),
        Action::Renegotiate => {
            let missing = SfuError::InvalidParams("sessionDescription is missing");
            let description = body()?.session_description.ok_or(missing)?;
            if description.is_offer() {
                // Beyond the API: a client whose network changed restarts ICE by this call, and closes nothing.
                let offer = Some(description.read(DescriptionType::Offer)?);
                return Ok(Request::Close { session, tracks: Vec::new(), offer });
            }
            Ok(Request::Answer { session, answer: description.read(DescriptionType::Answer)? })
        }
        Action::CloseTracks => {
            let body = body()?;
            count(&body.tracks)?;
            let missing = SfuError::InvalidParams("a track has no mid");
            let tracks = body.tracks.into_iter().map(|track| track.mid.map(Transceiver::named));
            let tracks = tracks.collect::<Option<Vec<_>>>().ok_or(missing)?;
            let offer = body.session_description.map(|sdp| sdp.read(DescriptionType::Offer)).transpose()?;
            if offer.is_none() && !body.force {
                return Err(SfuError::InvalidParams("sessionDescription is missing, and force is not set"));
            }
            Ok(Request::Close { session, tracks, offer })
        }
        Action::UpdateTracks => {
            let body = body()?;
            count(&body.tracks)?;
            let tracks = body.tracks.into_iter().map(update).collect::<Result<_, _>>()?;
            Ok(Request::Update { session, tracks })
        }
        Action::EstablishDataChannels
        | Action::NewDataChannels
        | Action::UpdateDataChannels
        | Action::CloseDataChannels => Err(SfuError::Unsupported("this media server has no data channels")),
    }
}

impl Sdp {
    fn is_offer(&self) -> bool {
        self.r#type == "offer"
    }

    fn read(self, expected: DescriptionType) -> Result<Description, SfuError> {
        let (word, wrong) = match expected {
            DescriptionType::Offer => ("offer", "an offer is due here"),
            DescriptionType::Answer => ("answer", "an answer is due here"),
        };
        if self.r#type != word {
            return Err(SfuError::Description(wrong.into()));
        }
        Description::parse(expected, &self.sdp)
    }
}

/// ICE role by the query: `thirdparty` means that the peer is another server.
fn ice(query: Option<&str>) -> Ice {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(name, _)| *name == "thirdparty").map(|(_, value)| value);
    if values.any(|value| !matches!(value, "false" | "0")) { Ice::Full } else { Ice::Lite }
}

fn count(tracks: &[TrackObject]) -> Result<(), SfuError> {
    match tracks.len() {
        0 => Err(SfuError::Empty),
        1..=MAX_TRACKS => Ok(()),
        _ => Err(SfuError::InvalidParams("there are more than 64 tracks")),
    }
}

fn new_tracks(session: SessionId, body: Body) -> Result<Request, SfuError> {
    let Body { tracks, session_description, auto_discover, .. } = body;
    let offer = session_description.map(|sdp| sdp.read(DescriptionType::Offer)).transpose()?;
    let is_remote = |track: &TrackObject| track.location.as_deref() == Some("remote");
    let is_local = |track: &TrackObject| track.location.as_deref() == Some("local");
    if tracks.is_empty()
        && auto_discover
        && let Some(offer) = offer
    {
        return Ok(Request::Publish { session, tracks: discovered(&offer, &[])?, offer: Some(offer) });
    }
    count(&tracks)?;
    if tracks.iter().all(is_remote) {
        if offer.is_some() {
            return Err(SfuError::InvalidParams("remote tracks take no sessionDescription"));
        }
        // An existing transceiver takes another track without a negotiation.
        match tracks.iter().filter(|track| track.mid.is_some()).count() {
            0 => {}
            named if named == tracks.len() => {
                let tracks = tracks.into_iter().map(update).collect::<Result<_, _>>()?;
                return Ok(Request::Update { session, tracks });
            }
            _ => return Err(SfuError::InvalidParams("all remote tracks are to have a mid, or none")),
        }
        let tracks = tracks.into_iter().map(subscribe).collect::<Result<_, _>>()?;
        return Ok(Request::Subscribe { session, tracks });
    }
    if !tracks.iter().all(is_local) {
        return Err(SfuError::InvalidParams("location is to be local for all tracks, or remote for all"));
    }
    let mut tracks: Vec<Publish> = tracks.into_iter().map(publish).collect::<Result<_, _>>()?;
    if auto_discover && let Some(offer) = &offer {
        let more = discovered(offer, &tracks)?;
        tracks.extend(more);
    }
    Ok(Request::Publish { session, tracks, offer })
}

/// The tracks that an offer sends but the call does not name.
fn discovered(offer: &Description, named: &[Publish]) -> Result<Vec<Publish>, SfuError> {
    let sends = offer.sections.iter().filter_map(|section| Some((section, section.sends.clone()?)));
    let unnamed =
        sends.filter(|(section, _)| !named.iter().any(|track| track.mid.as_ref() == Some(&section.mid)));
    let publish = unnamed.map(|(section, id)| {
        let mid = Some(section.mid.clone());
        Ok(Publish { name: name(Some(id))?, mid, kind: None, way: MediaDirection::In })
    });
    publish.take(MAX_TRACKS).collect()
}

fn publish(track: TrackObject) -> Result<Publish, SfuError> {
    let kind = match track.kind.as_deref() {
        None => None,
        Some("audio") => Some(TrackKind::Audio),
        Some("video") => Some(TrackKind::Video),
        Some(_) => return Err(SfuError::InvalidParams("kind is to be audio or video")),
    };
    let way = if track.bidirectional_media_stream { MediaDirection::Both } else { MediaDirection::In };
    Ok(Publish { name: name(track.track_name)?, mid: track.mid, kind, way })
}

fn subscribe(track: TrackObject) -> Result<Subscribe, SfuError> {
    let publisher = publisher(track.session_id)?;
    Ok(Subscribe { publisher, name: name(track.track_name)?, layer: layer(track.simulcast)? })
}

fn update(track: TrackObject) -> Result<Update, SfuError> {
    let layer = layer(track.simulcast)?;
    let carried = match (track.session_id, track.track_name) {
        (None, None) => None,
        (session, track) => Some((publisher(session)?, name(track)?)),
    };
    let Some(mid) = track.mid else {
        let (publisher, name) = carried.ok_or(SfuError::InvalidParams("a track has neither mid nor name"))?;
        return Ok(Update { at: Transceiver::Carrying(publisher, name), track: None, layer });
    };
    Ok(Update { at: Transceiver::named(mid), track: carried, layer })
}

fn publisher(session: Option<String>) -> Result<SessionId, SfuError> {
    let session = session.ok_or(SfuError::InvalidParams("a track has no sessionId"))?;
    SessionId::parse(&session).map_err(|_| SfuError::InvalidParams("a sessionId is none"))
}

fn name(name: Option<String>) -> Result<String, SfuError> {
    let name =
        name.filter(|name| !name.is_empty()).ok_or(SfuError::InvalidParams("a track has no trackName"))?;
    if name.len() > MAX_NAME_BYTES {
        return Err(SfuError::InvalidParams("a trackName is longer than 256 bytes"));
    }
    Ok(name)
}

fn layer(simulcast: Option<Simulcast>) -> Result<LayerWish, SfuError> {
    let Some(Simulcast { preferred_rid, priority_ordering, rid_not_available }) = simulcast else {
        return Ok(LayerWish::default());
    };
    if preferred_rid.as_ref().is_some_and(|rid| rid.len() > MAX_RID_BYTES) {
        return Err(SfuError::InvalidParams("a preferredRid is longer than 64 bytes"));
    }
    Ok(LayerWish {
        preferred: preferred_rid.filter(|rid| !rid.is_empty()),
        by_bandwidth: choice(priority_ordering.as_deref())?,
        when_missing: choice(rid_not_available.as_deref())?,
    })
}

fn choice(word: Option<&str>) -> Result<Choice, SfuError> {
    match word {
        None | Some("asciibetical") => Ok(Choice::Free),
        Some("none") => Ok(Choice::Fixed),
        Some(_) => Err(SfuError::InvalidParams("a simulcast ordering is to be none or asciibetical")),
    }
}

/// Status and body of the response to a call.
pub fn answer(target: &CallTarget, outcome: RequestResult) -> (StatusCode, String) {
    let reply = match outcome {
        Ok(reply) => reply,
        Err(error) => {
            let failure =
                ApiFailure { error_code: error.code().to_owned(), error_description: error.to_string() };
            return (error.status(), json!(failure).to_string());
        }
    };
    let (status, value) = match reply {
        Reply::Opened { session, description } => {
            let mut value = json!({"sessionId": session.as_str()});
            describe(&mut value, description);
            (StatusCode::CREATED, value)
        }
        Reply::Tracks { description, tracks } => {
            let wants_answer =
                description.as_ref().is_some_and(|description| description.r#type == DescriptionType::Offer);
            let is_close = matches!(target, CallTarget::Session { action: Action::CloseTracks, .. });
            let tracks: Vec<Value> = tracks.into_iter().map(|track| track_json(track, is_close)).collect();
            let mut value = json!({"requiresImmediateRenegotiation": wants_answer, "tracks": tracks});
            describe(&mut value, description);
            (StatusCode::OK, value)
        }
        Reply::Answered(refused) if !refused.is_empty() => {
            let tracks = refused.into_iter().map(|track| track_json(Err(track), false));
            (StatusCode::OK, json!({"tracks": tracks.collect::<Vec<_>>()}))
        }
        Reply::Answered(_) | Reply::Report(_) | Reply::Ended(_) => (StatusCode::OK, json!({})),
        Reply::Session(tracks) => {
            let tracks: Vec<Value> = tracks
                .into_iter()
                .map(|track| {
                    let location = if track.publisher.is_some() { "remote" } else { "local" };
                    let mut object = Map::new();
                    object.insert("location".into(), location.into());
                    object.insert("mid".into(), track.mid.into());
                    object.insert("trackName".into(), track.name.into());
                    object.insert("status".into(), json!(track.status));
                    if let Some(publisher) = track.publisher {
                        object.insert("sessionId".into(), publisher.as_str().into());
                    }
                    object.into()
                })
                .collect();
            (StatusCode::OK, json!({"tracks": tracks, "dataChannels": []}))
        }
    };
    (status, value.to_string())
}

fn describe(value: &mut Value, description: Option<SessionDescription>) {
    if let Some(SessionDescription { r#type, sdp }) = description {
        value["sessionDescription"] = json!({"type": r#type, "sdp": sdp});
    }
}

/// JSON of a track in a response. A closed track has only its `mid`.
fn track_json(track: Result<TrackDone, TrackFailed>, is_close: bool) -> Value {
    let (mid, publisher, name, error) = match track {
        Ok(TrackDone { mid, publisher, name }) => (Some(mid), publisher, name, None),
        Err(TrackFailed { mid, publisher, name, error }) => (mid, publisher, name, Some(error)),
    };
    let mut object = Map::new();
    if let Some(mid) = mid {
        object.insert("mid".into(), mid.into());
    }
    if !is_close {
        if let Some(publisher) = publisher {
            object.insert("sessionId".into(), publisher.as_str().into());
        }
        if let Some(name) = name {
            object.insert("trackName".into(), name.into());
        }
    }
    if let Some(error) = error {
        object.insert("errorCode".into(), error.code().into());
        object.insert("errorDescription".into(), error.to_string().into());
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn target(method: &str, path: &str) -> CallTarget {
        CallTarget::parse(&Method::from_bytes(method.as_bytes()).unwrap(), path).unwrap()
    }

    fn read_text(method: &str, path: &str, body: &str) -> Result<Request, SfuError> {
        let target = target(method, path);
        read(&ApiRequest {
            target,
            query: None,
            body: body.to_owned().into(),
            caller: Caller::Ai,
            network: None,
        })
    }

    #[test]
    fn session_opens_without_body() {
        for body in ["", "{}"] {
            let opened = read_text("POST", "sessions/new", body).unwrap();
            assert!(matches!(opened, Request::Open { offer: None, ice: Ice::Lite, .. }), "{opened:?}");
        }
        for (query, expected) in [
            ("correlationId=x&thirdparty=true", Ice::Full),
            ("thirdparty", Ice::Full),
            ("thirdparty=false", Ice::Lite),
            ("correlationId=thirdparty", Ice::Lite),
        ] {
            assert_eq!(ice(Some(query)), expected, "{query}");
        }
    }

    #[test]
    fn subscription_of_client_library_is_parsed() {
        let body = r#"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t","mid":null,
                       "simulcast":{"preferredRid":"a"}}]}"#;
        let Request::Subscribe { tracks, .. } = read_text("POST", "sessions/s/tracks/new", body).unwrap()
        else {
            panic!("not a subscription");
        };
        assert_eq!(tracks[0].name, "t");
        assert_eq!(tracks[0].publisher.as_str(), "p");
        assert_eq!(tracks[0].layer.preferred.as_deref(), Some("a"));
        assert_eq!(tracks[0].layer.by_bandwidth, Choice::Free);
    }

    #[test]
    fn calls_of_the_ai_are_parsed() {
        let body = r#"{"tracks":[{"location":"local","trackName":"ai-generated-voice",
                       "bidirectionalMediaStream":true,"kind":"audio"}]}"#;
        let Request::Publish { tracks, offer: None, .. } =
            read_text("POST", "sessions/s/tracks/new", body).unwrap()
        else {
            panic!("not a publication");
        };
        assert_eq!((tracks[0].kind, tracks[0].way), (Some(TrackKind::Audio), MediaDirection::Both));
        let body = r##"{"tracks":[{"location":"remote","sessionId":"p","trackName":"t","mid":"#ai-generated-voice"}]}"##;
        for (method, path) in [("POST", "sessions/s/tracks/new"), ("PUT", "sessions/s/tracks/update")] {
            let Request::Update { tracks, .. } = read_text(method, path, body).unwrap() else {
                panic!("no change");
            };
            assert_eq!(tracks[0].at, Transceiver::Published("ai-generated-voice".into()));
            assert_eq!(tracks[0].track, Some((SessionId::parse("p").unwrap(), "t".into())));
        }
    }

    #[test]
    fn malformed_call_is_refused_with_api_code() {
        let many = format!(r#"{{"tracks":[{}]}}"#, vec![r#"{"location":"remote"}"#; 65].join(","));
        for (method, path, body, code) in [
            ("POST", "sessions/new", "{", "decoding_error"),
            ("POST", "sessions/s/tracks/new", "", "decoding_error"),
            ("POST", "sessions/s/tracks/new", "7", "decoding_error"),
            ("POST", "sessions/s/tracks/new", "{}", "empty_track_error"),
            ("POST", "sessions/s/tracks/new", r#"{"tracks":[]}"#, "empty_track_error"),
            ("POST", "sessions/s/tracks/new", &many, "invalid_params"),
            ("POST", "sessions/s/tracks/new", r#"{"tracks":[{}]}"#, "invalid_params"),
            ("POST", "sessions/s/tracks/new", r#"{"tracks":[{"location":"remote"}]}"#, "invalid_params"),
            (
                "POST",
                "sessions/s/tracks/new",
                r#"{"tracks":[{"location":"local","trackName":"a"},{"location":"remote","sessionId":"p","trackName":"a"}]}"#,
                "invalid_params",
            ),
            (
                "POST",
                "sessions/s/tracks/new",
                r#"{"tracks":[{"location":"remote","sessionId":"p","trackName":"a","mid":"0"},{"location":"remote","sessionId":"p","trackName":"a"}]}"#,
                "invalid_params",
            ),
            (
                "POST",
                "sessions/s/tracks/new",
                r#"{"tracks":[{"location":"local","trackName":"a","kind":"smell"}]}"#,
                "invalid_params",
            ),
            ("PUT", "sessions/s/renegotiate", "{}", "invalid_params"),
            (
                "PUT",
                "sessions/s/renegotiate",
                r#"{"sessionDescription":{"type":"offer","sdp":""}}"#,
                "invalid_session_description",
            ),
            ("PUT", "sessions/s/tracks/close", r#"{"tracks":[{"mid":"0"}]}"#, "invalid_params"),
            ("PUT", "sessions/s/tracks/close", r#"{"tracks":[{}],"force":true}"#, "invalid_params"),
            ("PUT", "sessions/s/tracks/update", r#"{"tracks":[{}]}"#, "invalid_params"),
            ("POST", "sessions/s/datachannels/new", "{}", "invalid_params"),
        ] {
            assert_eq!(read_text(method, path, body).unwrap_err().code(), code, "{path} {body}");
        }
    }

    #[test]
    fn responses_have_the_api_format() {
        let session = SessionId::parse("0123").unwrap();
        let (status, body) = answer(
            &CallTarget::NewSession,
            Ok(Reply::Opened { session: session.clone(), description: None }),
        );
        assert_eq!((status.as_u16(), &*body), (201, r#"{"sessionId":"0123"}"#));
        let done = TrackDone { mid: "0".into(), publisher: Some(session), name: Some("t".into()) };
        let failed =
            TrackFailed { mid: None, publisher: None, name: Some("u".into()), error: SfuError::NoTrack };
        let description = Some(SessionDescription { r#type: DescriptionType::Offer, sdp: "v=0".into() });
        let reply = Reply::Tracks { description, tracks: vec![Ok(done), Err(failed)] };
        let (status, body) = answer(&target("POST", "sessions/s/tracks/new"), Ok(reply));
        assert_eq!(status.as_u16(), 200);
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"requiresImmediateRenegotiation": true,
                   "sessionDescription": {"type": "offer", "sdp": "v=0"},
                   "tracks": [{"mid": "0", "sessionId": "0123", "trackName": "t"},
                              {"trackName": "u", "errorCode": "not_found_track_error",
                               "errorDescription": "no such track"}]})
        );
        let (status, body) = answer(&target("GET", "sessions/s"), Err(SfuError::NoSession));
        assert_eq!(status.as_u16(), 410);
        assert!(body.contains("session_error"), "{body}");
    }
}
