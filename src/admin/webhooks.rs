//! The operators' view of webhooks, and of the events that they did not take.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::Operators;
use crate::config::WebhookConfig;
use crate::events::webhook::{host, webhook_name};
use crate::http::error::ApiError;
use crate::id::EventId;
use crate::store::dead_letters::{DeadLetter, QueueState};

const DEFAULT_LIMIT: u32 = 50;
const MOST: u32 = 200;

const NO_WEBHOOK: ApiError = ApiError::refused(
    StatusCode::NOT_FOUND,
    "no_webhook",
    "no webhook has this name; /admin/webhooks lists them",
);

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new()
        .route("/admin/webhooks", get(list))
        .route("/admin/webhooks/dead", get(dead))
        .route("/admin/webhooks/{webhook}/replay", post(replay))
        .route("/admin/webhooks/{webhook}/test", post(test))
}

/// All webhooks.
#[derive(Serialize)]
struct WebhookList {
    /// A row for each webhook.
    webhooks: Vec<WebhookView>,
}

/// A webhook and its queue.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookView {
    /// True if it gets chat messages.
    chat: bool,
    /// Events that were given up.
    dead: i64,
    /// Types of the events that it gets; empty for all.
    events: Vec<String>,
    /// The host of its URL, the rest of which is secret.
    host: String,
    /// Error of the last attempt of an event that is tried again.
    last_error: Option<String>,
    /// Its name.
    name: String,
    /// Rooms whose events it gets; empty for all.
    rooms: Vec<String>,
    /// Events that wait for delivery.
    waiting: i64,
}

/// A page of events that were given up, newest first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadPage {
    /// The events.
    dead_letters: Vec<DeadView>,
    /// The `before` of the next page; null if this page is not full.
    next: Option<i64>,
}

/// An event that was given up.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadView {
    /// Number of attempts.
    attempts: i64,
    /// Time of the event.
    created: String,
    /// The event as it was posted.
    event: Box<RawValue>,
    /// The event's id.
    id: String,
    /// Error of the last attempt.
    last_error: Option<String>,
    /// Its type.
    r#type: String,
    /// The webhook.
    webhook: String,
}

/// The events to replay.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Replay {
    /// One event; none for all of the webhook.
    id: Option<String>,
}

/// The result of a replay.
#[derive(Serialize)]
struct Replayed {
    /// Number of events that are tried again.
    replayed: u64,
}

/// The result of a test.
#[derive(Serialize)]
struct Tested {
    /// The id of the event.
    id: String,
}

impl WebhookView {
    fn new(config: &WebhookConfig, queue: QueueState) -> Self {
        let QueueState { waiting, dead, last_error } = queue;
        let WebhookConfig { name, events, rooms, chat, .. } = config.clone();
        Self { chat, dead, events, host: host(config), last_error, name, rooms, waiting }
    }
}

impl DeadView {
    fn new(letter: DeadLetter) -> Self {
        let DeadLetter { id, destination, kind, body, attempts, created, last_error, .. } = letter;
        // It was written as JSON.
        let event = RawValue::from_string(body).unwrap_or_else(|_| RawValue::NULL.to_owned());
        let (id, webhook) = (EventId::from(id).to_string(), webhook_name(&destination).to_owned());
        Self { attempts, created, event, id, last_error, r#type: kind, webhook }
    }
}

fn failing<E>(_: E) -> ApiError {
    ApiError::StoreFailing
}

/// `GET /admin/webhooks`: all webhooks and their queues.
async fn list(State(operators): State<Arc<Operators>>) -> Result<Json<WebhookList>, ApiError> {
    let webhooks = operators.webhooks.list().await.map_err(failing)?.into_iter();
    Ok(Json(WebhookList {
        webhooks: webhooks.map(|(config, queue)| WebhookView::new(config, queue)).collect(),
    }))
}

/// `GET /admin/webhooks/dead`: a page of events that were given up, of one `webhook` or of all.
async fn dead(State(operators): State<Arc<Operators>>, uri: Uri) -> Result<Json<DeadPage>, ApiError> {
    let (mut webhook, mut before, mut limit) = (None, None, DEFAULT_LIMIT);
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "webhook" => webhook = Some(value.into_owned()),
            "before" => {
                let wrong = ApiError::InvalidQuery("before is what an answer gave as next");
                before = Some(value.parse().map_err(|_| wrong)?);
            }
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                limit = number.ok_or(ApiError::InvalidQuery("limit is 1 to 200"))?;
            }
            _ => return Err(ApiError::InvalidQuery("parameters are webhook, before and limit")),
        }
    }
    let dead = operators.webhooks.dead(webhook.as_deref(), before, limit).await.map_err(failing)?;
    let next = dead.last().filter(|_| dead.len() == limit as usize).map(|last| last.place);
    Ok(Json(DeadPage { dead_letters: dead.into_iter().map(DeadView::new).collect(), next }))
}

/// `POST /admin/webhooks/{webhook}/replay`: tries events again that were given up.
async fn replay(
    State(operators): State<Arc<Operators>>,
    Path(webhook): Path<String>,
    body: Bytes,
) -> Result<Json<Replayed>, ApiError> {
    let Replay { id } = match &*body {
        [] => Replay::default(),
        body => serde_json::from_slice(body).map_err(|_| ApiError::NotJson)?,
    };
    let id = id.map(|id| EventId::parse(&id)).transpose()?;
    // Dead letters of a webhook that is no longer configured stay where they are.
    if !operators.webhooks.has(&webhook) {
        return Err(NO_WEBHOOK);
    }
    let replayed = operators.webhooks.replay(&webhook, id).await.map_err(failing)?;
    if id.is_some() && replayed == 0 {
        return Err(ApiError::NotFound);
    }
    Ok(Json(Replayed { replayed }))
}

/// `POST /admin/webhooks/{webhook}/test`: sends the webhook a `webhook.test`.
async fn test(
    State(operators): State<Arc<Operators>>,
    Path(webhook): Path<String>,
) -> Result<Json<Tested>, ApiError> {
    if !operators.webhooks.has(&webhook) {
        return Err(NO_WEBHOOK);
    }
    let id = operators.webhooks.test(&webhook).await.map_err(failing)?;
    Ok(Json(Tested { id: id.to_string() }))
}
