//! The operators' view of durable objects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::Operators;
use crate::durable::command::{Answer, Request};
use crate::durable::error::ObjectError;
use crate::durable::registry::ObjectRegistry;
use crate::http::error::ApiError;
use crate::id::ObjectId;
use crate::store::objects::{ObjectLine, ObjectRow, ObjectsError};

const DEFAULT_LIMIT: u32 = 50;
const MOST: u32 = 200;

/// Time that a removal waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// The routes, which require the operator token.
pub(super) fn routes() -> Router<Arc<Operators>> {
    Router::new().route("/admin/objects", get(list)).route("/admin/objects/{id}", get(one).delete(remove))
}

/// A page of objects, in order of their ids.
#[derive(Debug, Serialize)]
struct ObjectPage {
    /// The `after` of the next page; null at the end.
    next: Option<ObjectId>,
    /// A row for each object.
    objects: Vec<ObjectSummary>,
}

/// A stored object in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectSummary {
    /// The time at which its alarm is due; null if there is none.
    alarm: Option<String>,
    /// Bytes of its keys and values.
    bytes: u64,
    /// The time of its last change.
    changed_at: String,
    /// Its id.
    id: ObjectId,
    /// Number of its keys.
    keys: u64,
    /// Number of its changes.
    version: u64,
}

/// A stored object and its values.
#[derive(Debug, Serialize)]
struct ObjectDetails {
    #[serde(flatten)]
    summary: ObjectSummary,
    /// Its values by key.
    values: BTreeMap<Arc<str>, Arc<RawValue>>,
}

impl ObjectSummary {
    fn new(id: ObjectId, row: &ObjectRow) -> Self {
        let ObjectRow { keys, bytes, version, changed_at, alarm } = *row;
        let alarm = alarm.map(|alarm| shown(alarm.due));
        Self { alarm, bytes, changed_at: shown(changed_at), id, keys, version }
    }
}

fn shown(millis: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis.min(LAST))).to_string()
}

fn registry(operators: &Operators) -> Result<&ObjectRegistry, ApiError> {
    operators.objects.as_ref().ok_or(ApiError::NotFound)
}

fn failing(_: ObjectsError) -> ApiError {
    ApiError::StoreFailing
}

/// The answer for objects of a cluster that cannot be read from its engine.
fn unlisted(error: ObjectError) -> ApiError {
    let sentence = match error {
        ObjectError::Full(sentence) => sentence,
        ObjectError::Unreadable => "the object is that of another release",
        _ => "the cluster's engine does not answer; try again later",
    };
    ApiError::refused(error.status(), error.reason(), sentence)
}

fn parsed(id: &str) -> Result<ObjectId, ApiError> {
    ObjectId::parse(id).map_err(|_| ApiError::NotFound)
}

/// `GET /admin/objects`: the stored objects whose ids begin with `prefix`, a page after the id `after`.
async fn list(State(operators): State<Arc<Operators>>, uri: Uri) -> Result<Json<ObjectPage>, ApiError> {
    let (mut prefix, mut after, mut limit) = (String::new(), None, DEFAULT_LIMIT);
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "prefix" => prefix = value.into_owned(),
            "after" => {
                let wrong = ApiError::InvalidQuery("after is what an answer gave as next");
                after = Some(ObjectId::parse(&value).map_err(|_| wrong)?);
            }
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                limit = number.ok_or(ApiError::InvalidQuery("limit is 1 to 200"))?;
            }
            _ => return Err(ApiError::InvalidQuery("parameters are prefix, after and limit")),
        }
    }
    let deps = registry(&operators)?.deps();
    let mut lines = match &deps.cluster {
        Some(cluster) => cluster.list(&prefix, after.as_ref(), limit + 1).await.map_err(unlisted)?,
        None => deps.store.list(&prefix, after.as_ref(), limit + 1).await.map_err(failing)?,
    };
    let is_more = lines.len() > limit as usize;
    lines.truncate(limit as usize);
    let next = lines.last().filter(|_| is_more).map(|line| line.id.clone());
    let objects = lines.into_iter().map(|ObjectLine { id, row }| ObjectSummary::new(id, &row)).collect();
    Ok(Json(ObjectPage { next, objects }))
}

/// `GET /admin/objects/{id}`: an object as it is stored.
async fn one(
    State(operators): State<Arc<Operators>>,
    Path(id): Path<String>,
) -> Result<Json<ObjectDetails>, ApiError> {
    let id = parsed(&id)?;
    let deps = registry(&operators)?.deps();
    let saved = match &deps.cluster {
        Some(cluster) => cluster.read(&id).await.map_err(unlisted)?,
        None => deps.store.load(&id).await.map_err(failing)?,
    };
    if !saved.row.is_stored() {
        return Err(ApiError::NotFound);
    }
    Ok(Json(ObjectDetails { summary: ObjectSummary::new(id, &saved.row), values: saved.values }))
}

/// `DELETE /admin/objects/{id}`: removes an object with its alarm; its sockets are told of each key.
async fn remove(
    State(operators): State<Arc<Operators>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = parsed(&id)?;
    match registry(&operators)?.request(&id, Request::Remove, PATIENCE, None).await {
        Ok(Answer::Done(true)) => Ok(StatusCode::NO_CONTENT),
        Ok(_) => Err(ApiError::NotFound),
        Err(ObjectError::StoreFailing | ObjectError::Hanging) => Err(ApiError::StoreFailing),
        Err(error) => Err(ApiError::refused(
            error.status(),
            error.reason(),
            "the object is busy, or the server stops; try again later",
        )),
    }
}
