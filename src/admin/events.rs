//! Events and messages for operators: as for programs outside, in all rooms.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;

use super::Operators;
use super::access::{Access, access};
use crate::clock::now;
use crate::events::acting::Actor;
use crate::events::filter::EventFilter;
use crate::events::stream::StreamAccess;
use crate::http::error::ApiError;
use crate::id::{IdentityId, RoomName};

/// The name of messages that do not name another author.
const NAME: &str = "Operator";

/// The path of the events.
const PATH: &str = "/admin/events";

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new()
        .route("/admin/events", get(events))
        .route("/admin/rooms/{room}/chat", post(chat))
        .route("/admin/rooms/{room}/messages", post(messages))
}

/// The right of whoever may use the API: with a session of the console, or an access token, while that lasts.
struct OperatorAccess {
    operators: Arc<Operators>,
    access: Access,
    headers: HeaderMap,
}

impl StreamAccess for OperatorAccess {
    async fn lasts(&self) -> bool {
        let operators = &self.operators;
        match self.access.session {
            // A stream is no use of the session, which would otherwise last for as long as its page is open.
            Some(session) => operators.console.sessions.lasts(&session, now()),
            // Its token was valid, so it is no guess.
            None => access(operators, None, &Method::GET, PATH, &self.headers).await.is_ok(),
        }
    }
}

fn operator() -> Actor {
    Actor { id: IdentityId::new("operator"), name: NAME.into() }
}

/// `GET /admin/events`: the events of all rooms, as they happen.
async fn events(
    State(operators): State<Arc<Operators>>,
    Extension(access): Extension<Access>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter = EventFilter::read(&uri, None)?;
    let access = OperatorAccess { operators: operators.clone(), access, headers: headers.clone() };
    operators.events.streams.open(filter, &headers, None, access).await
}

/// `POST /admin/rooms/{room}/chat`: a chat message.
async fn chat(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let room = RoomName::parse(&room)?;
    operators.events.acting.chat(&operator(), &room, &headers, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /admin/rooms/{room}/messages`: a message to one member.
async fn messages(
    State(operators): State<Arc<Operators>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let room = RoomName::parse(&room)?;
    operators.events.acting.direct(&operator(), &room, &headers, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}
