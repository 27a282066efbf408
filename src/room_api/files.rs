//! Files in the chat over HTTP: members put them there, and members alone get them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{DefaultBodyLimit, Extension, FromRef, Path, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::BoxStream;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::ReaderStream;
use tracing::warn;

use super::{RoomApi, TOO_MANY, refused};
use crate::auth::Identity;
use crate::auth::peer::RemotePeer;
use crate::clock::{now, wall_clock};
use crate::config::{FilesConfig, Sharing};
use crate::http::context::HttpContext;
use crate::http::error::{ApiError, Refusal};
use crate::http::extract::CurrentUser;
use crate::http::listener::RequestGrace;
use crate::id::{IdentityId, MeetingId, RoomName, UserId, text_is_valid};
use crate::limit::{KeyedLimit, Permit, Rate};
use crate::network::ClientNetwork;
use crate::protocol::server::SharedFile;
use crate::room::io::ShareFile;
use crate::room::registry::ShareError;
use crate::room::shared_files::{FoundFile, NoFile, SharedFiles};
use crate::room::state::CannotShareFile;
use crate::store::files::{FileError, FileId, FileInfo, FileOwner, Files, Upload};

/// Maximum characters of a name.
const MAX_NAME_CHARS: usize = 128;

/// Bytes at the beginning of a file that tell its type.
const HEAD_BYTES: usize = 8 << 10;

/// The type of a file whose content is of no known one.
const UNKNOWN: &str = "application/octet-stream";

/// Maximum time between two parts of a file, and for all of it.
const STALL: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(15 * 60);

/// Time for the rest of a file that is refused.
const DRAINED: Duration = Duration::from_secs(10);

/// Files that one identity may send at once, and those that it may get.
const SENT_AT_ONCE: usize = 2;
const GOT_AT_ONCE: usize = 8;

/// Files that one identity may get in a minute.
const GOT_A_MINUTE: u32 = 60;

/// A policy for whoever opens a file in spite of its headers: it runs nothing and loads nothing.
const SANDBOX: &str = "default-src 'none'; sandbox";

const OFF: ApiError =
    ApiError::refused(StatusCode::FORBIDDEN, "files_off", "this server does not let members share files");
const TOO_MANY_OF_NETWORK: ApiError = ApiError::Refused(Refusal {
    status: StatusCode::TOO_MANY_REQUESTS,
    label: "too_many_files_of_network",
    message: "too many files were shared from this network; try again in a minute",
    network_limit: Some("files.per_minute_per_network"),
});
const NOT_STORED: ApiError =
    ApiError::refused(StatusCode::SERVICE_UNAVAILABLE, "file_not_stored", "the file could not be stored");
const STALLED: ApiError =
    ApiError::refused(StatusCode::REQUEST_TIMEOUT, "file_stalled", "the file arrived too slowly");
const GONE: ApiError = ApiError::refused(
    StatusCode::GONE,
    "file_gone",
    "the server that had this file was stopped, and the file is gone with it",
);
const SILENT: ApiError = ApiError::refused(
    StatusCode::GATEWAY_TIMEOUT,
    "file_silent",
    "the server that has this file does not answer; try again in a moment",
);

/// The files, and the limits on their senders.
pub struct FileApi {
    files: Files,
    /// Those of the other nodes, if there are any.
    others: Option<Arc<dyn SharedFiles>>,
    is_on: bool,
    sent: KeyedLimit<IdentityId>,
    sent_of_network: KeyedLimit<ClientNetwork>,
    got: KeyedLimit<IdentityId>,
}

impl FileApi {
    /// The routes' state. Other nodes, if there are any, get the files from here.
    pub fn new(files: Files, others: Option<Arc<dyn SharedFiles>>, config: &FilesConfig) -> Self {
        if let Some(others) = &others {
            others.serve(files.clone());
        }
        Self {
            files,
            others,
            is_on: config.sharing != Sharing::Nobody,
            sent: KeyedLimit::new(SENT_AT_ONCE, Rate::per_minute(config.per_minute)),
            sent_of_network: KeyedLimit::rate(Rate::per_minute(config.per_minute_per_network)),
            got: KeyedLimit::new(GOT_AT_ONCE, Rate::per_minute(GOT_A_MINUTE)),
        }
    }

    /// Prunes rate limit entries of idle identities and networks.
    pub fn prune(&self) {
        self.sent.prune();
        self.sent_of_network.prune();
        self.got.prune();
    }
}

/// Returns the routes, whose long bodies arrive slowly: they have their own limits.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<HttpContext>: FromRef<S>,
    Arc<RoomApi>: FromRef<S>,
{
    Router::new()
        .route("/api/rooms/{room}/files", post(share).layer(DefaultBodyLimit::disable()))
        .route("/api/rooms/{room}/files/{id}", get(download))
}

/// The query of a file that is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: String,
    /// The member that shares it, if the identity has several.
    from: Option<String>,
}

/// `POST /api/rooms/{room}/files?name=`: shares the file in the body.
async fn share(
    State(api): State<Arc<RoomApi>>,
    CurrentUser(identity): CurrentUser,
    (peer, Extension(grace), headers): (RemotePeer, Extension<RequestGrace>, HeaderMap),
    Path(room): Path<String>,
    Query(asked): Query<Asked>,
    body: Body,
) -> Response {
    let _grace = grace.extend(WHOLE);
    let mut body = body.into_data_stream();
    let owner = FileOwner { identity: identity.id.clone(), network: peer.network() };
    let shared = match admit(&api, &identity, &room, owner, &asked, &headers).await {
        Ok(admitted) => share_admitted(api, admitted, asked, &mut body).await,
        Err(refused) => Err(refused),
    };
    if shared.is_err() {
        // Whoever is still sending may never see the answer.
        let _ = timeout(DRAINED, body.by_ref().take_while(|part| ready(part.is_ok())).count()).await;
    }
    shared.unwrap_or_else(|refused| refused)
}

/// A file that its sender may share.
struct Admitted {
    room: RoomName,
    meeting: MeetingId,
    owner: IdentityId,
    from: Option<UserId>,
    upload: Upload,
    permit: Permit<IdentityId>,
}

async fn admit(
    api: &RoomApi,
    identity: &Identity,
    room: &str,
    owner: FileOwner,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<Admitted, Response> {
    let room = api.admit(identity, room).map_err(ApiError::into_response)?;
    if !api.files.is_on {
        return Err(OFF.into_response());
    }
    // A path would be one of the recipient's computer.
    if !text_is_valid(&asked.name, MAX_NAME_CHARS) || asked.name.contains(['/', '\\']) {
        let rule = "has 1 to 128 characters, and no slashes, control or invisible characters";
        return Err(ApiError::InvalidField { field: "name", rule }.into_response());
    }
    let from = asked.from.as_deref().map(UserId::parse).transpose();
    let from = from.map_err(|error| ApiError::from(error).into_response())?;
    let meeting = api.registry.admits_files(&room, &identity.id).await.map_err(not_shared)?;
    // Nothing is charged to whoever may not share files.
    let permit = api.files.sent.acquire(&identity.id).map_err(|_| TOO_MANY.into_response())?;
    if owner.network.is_some_and(|network| api.files.sent_of_network.check(&network).is_err()) {
        return Err(TOO_MANY_OF_NETWORK.into_response());
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let upload = api.files.files.begin(meeting, &owner, length).await.map_err(not_stored)?;
    Ok(Admitted { room, meeting, owner: owner.identity, from, upload, permit })
}

async fn share_admitted(
    api: Arc<RoomApi>,
    admitted: Admitted,
    asked: Asked,
    body: &mut BodyDataStream,
) -> Result<Response, Response> {
    let Admitted { room, meeting, owner, from, mut upload, permit } = admitted;
    let kind = receive(&mut upload, body).await?;
    let finished = async move {
        let _permit = permit;
        let (id, info) = upload.finish(asked.name, kind.to_owned()).await.map_err(not_stored)?;
        let FileInfo { name, kind, bytes, .. } = info;
        let file = SharedFile { id: id.as_str().to_owned(), name, bytes, kind };
        let at = wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let share = ShareFile { at, identity: owner, from, meeting, file: file.clone() };
        if let Err(error) = api.registry.share_file(&room, share).await {
            // A line that may be told after all needs its file.
            if error != ShareError::Unknown {
                api.files.files.remove(meeting, &id);
            }
            return Err(not_shared(error));
        }
        Ok((StatusCode::CREATED, Json(file)).into_response())
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "it is awaited here unless its client goes, and soon ends by itself"
    )]
    // A client that goes would stop it in the middle, and leave a file that nobody knows.
    let finished = tokio::spawn(finished).await;
    match finished {
        Ok(shared) => shared,
        Err(_) => Err(NOT_STORED.into_response()),
    }
}

/// Receives a file, and returns its type.
async fn receive(upload: &mut Upload, body: &mut BodyDataStream) -> Result<&'static str, Response> {
    let end = now() + WHOLE;
    let mut head = Vec::new();
    while let Some(part) = next(body, end).await.map_err(ApiError::into_response)? {
        head.extend_from_slice(&part[..part.len().min(HEAD_BYTES - head.len())]);
        upload.write(part).await.map_err(not_stored)?;
    }
    Ok(infer::get(&head).map_or(UNKNOWN, |kind| kind.mime_type()))
}

/// The next part of a file; none at its end.
async fn next(body: &mut BodyDataStream, end: Instant) -> Result<Option<Bytes>, ApiError> {
    match timeout_at(end.min(now() + STALL), body.next()).await {
        Err(_) => Err(STALLED),
        Ok(None) => Ok(None),
        Ok(Some(Ok(part))) => Ok(Some(part)),
        Ok(Some(Err(_))) => Err(ApiError::BrokenBody),
    }
}

fn not_shared(error: ShareError) -> Response {
    match error {
        ShareError::Silent | ShareError::Unknown => ApiError::RoomSilent.into_response(),
        // The same for rooms that run and for others.
        ShareError::Refused(why @ CannotShareFile::NoMember) => {
            refused(StatusCode::NOT_FOUND, &why.to_string())
        }
        ShareError::Refused(why) => refused(StatusCode::FORBIDDEN, &why.to_string()),
    }
}

fn not_stored(error: FileError) -> Response {
    let status = match &error {
        FileError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        FileError::TooMany(_)
        | FileError::RoomFull(_)
        | FileError::IdentityFull(_)
        | FileError::NetworkFull(_) => StatusCode::CONFLICT,
        // As for rooms that do not run.
        FileError::Ended => return not_shared(ShareError::Refused(CannotShareFile::NoMember)),
        FileError::Full => StatusCode::INSUFFICIENT_STORAGE,
        FileError::DiskFull => {
            warn!(event = "fileNotStored", %error);
            StatusCode::INSUFFICIENT_STORAGE
        }
        FileError::Disk(cause) => {
            warn!(event = "fileNotStored", error = %cause);
            return NOT_STORED.into_response();
        }
    };
    refused(status, &error.to_string())
}

/// `GET /api/rooms/{room}/files/{id}`: a file, for members of its meeting.
async fn download(
    State(api): State<Arc<RoomApi>>,
    CurrentUser(identity): CurrentUser,
    Extension(grace): Extension<RequestGrace>,
    Path((room, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let room = RoomName::parse(&room)?;
    if !identity.may_enter(&room) {
        return Err(ApiError::ForbiddenRoom);
    }
    let permit = api.files.got.acquire(&identity.id).map_err(|_| TOO_MANY)?;
    let id = FileId::parse(&id).ok_or(ApiError::NotFound)?;
    let meeting = api.registry.meeting_of(&room, &identity.id).await.map_err(|error| match error {
        ShareError::Refused(_) => ApiError::NotFound,
        ShareError::Silent | ShareError::Unknown => ApiError::RoomSilent,
    })?;
    let FoundFile { info, parts } = find(&api.files, meeting, id).await?;
    let disposition =
        format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(&info.name, NON_ALPHANUMERIC));
    let headers: [(HeaderName, String); 5] = [
        (CONTENT_TYPE, shown_kind(&info.kind).to_owned()),
        (CONTENT_LENGTH, info.bytes.to_string()),
        (CONTENT_DISPOSITION, disposition),
        (CONTENT_SECURITY_POLICY, SANDBOX.to_owned()),
        (CACHE_CONTROL, "private, no-store".to_owned()),
    ];
    let held = (permit, grace.extend(WHOLE));
    let parts = parts.map(move |part| {
        // It counts for as long as it is read.
        let _ = &held;
        part
    });
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// Finds a file, here or at another node.
async fn find(files: &FileApi, meeting: MeetingId, id: FileId) -> Result<FoundFile, ApiError> {
    let read = files.files.read(meeting, &id).await;
    let read = read.inspect_err(|error| warn!(event = "fileNotRead", %error));
    if let Some((file, info)) = read.map_err(|_| ApiError::StoreFailing)? {
        let parts: BoxStream<'static, _> = ReaderStream::with_capacity(file, 64 << 10).boxed();
        return Ok(FoundFile { info, parts });
    }
    let others = files.others.as_ref().ok_or(ApiError::NotFound)?;
    others.find(meeting, id).await.map_err(|none| match none {
        NoFile::Unknown => ApiError::NotFound,
        NoFile::Gone => GONE,
        NoFile::Silent => SILENT,
    })
}

/// The type that a browser is told: of documents it is none, since they could run scripts.
fn shown_kind(kind: &str) -> &str {
    let is_media = ["image/", "audio/", "video/"].iter().any(|family| kind.starts_with(family));
    let is_safe = is_media && !kind.contains("svg") || kind == "application/pdf" || kind == "application/zip";
    if is_safe { kind } else { UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_of_no_type() {
        for kind in ["image/png", "video/webm", "application/pdf"] {
            assert_eq!(shown_kind(kind), kind);
        }
        for kind in ["text/html", "text/xml", "image/svg+xml", "application/xhtml+xml", UNKNOWN, ""] {
            assert_eq!(shown_kind(kind), UNKNOWN, "{kind}");
        }
    }
}
