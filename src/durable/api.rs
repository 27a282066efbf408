//! The HTTP API of durable objects, which the library `cloudflare_durable` speaks.

mod answer;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{Instrument, debug, debug_span};

use self::answer::{failed, json, of_method, of_success, of_text, of_token, of_value};
use super::address::Target;
use super::command::{Answer, Entries, Request};
use super::error::ObjectError;
use super::intake::Intake;
use super::keys::{AccessKeys, KeyNumber};
use super::object::{MAX_DEPTH, depth};
use super::rates::CallRates;
use super::registry::ObjectRegistry;
use super::session::no_params;
use super::token;
use crate::auth::token::SigningKey;
use crate::clock::{now, wall_clock};
use crate::config::Config;
use crate::http::context::HttpContext;
use crate::http::error::ApiError;
use crate::id::ObjectId;
use crate::limit::{ConcurrencyLimit, ConcurrencyPermit};
use crate::metrics::{ByOutcome, Counted, Metrics};
use crate::ws::Sockets;

/// The state of the API.
pub struct DurableApi {
    registry: ObjectRegistry,
    keys: AccessKeys,
    rates: Arc<CallRates>,
    intake: Intake,
    /// The path of the mount, without a slash at its end.
    path: String,
    body_bytes: usize,
    /// Time for a body to arrive, and for a call to get its turn.
    patience: Duration,
    /// Sockets of all objects.
    socket_limit: ConcurrencyLimit,
    sockets: Arc<Sockets>,
    http: Arc<HttpContext>,
    metrics: Arc<Metrics>,
}

impl DurableApi {
    /// The API of the objects in `registry`.
    pub fn new(
        config: &Config,
        registry: ObjectRegistry,
        keys: AccessKeys,
        sockets: Arc<Sockets>,
        http: Arc<HttpContext>,
    ) -> Self {
        let durable = &config.durable;
        Self {
            registry,
            keys,
            rates: Arc::new(CallRates::new(durable)),
            intake: Intake::new(durable.arriving_bytes),
            path: durable.path.clone(),
            body_bytes: durable.body_bytes,
            patience: config.limits.request_timeout,
            socket_limit: ConcurrencyLimit::new(durable.sockets, 0),
            sockets,
            metrics: http.metrics.clone(),
            http,
        }
    }

    /// The objects.
    pub fn registry(&self) -> &ObjectRegistry {
        &self.registry
    }

    /// The key that signs the tokens of objects.
    pub(super) fn signing_key(&self) -> &SigningKey {
        self.http.identities.signing_key()
    }

    /// True if a key opens the object.
    pub(super) fn opens(&self, key: KeyNumber, object: &ObjectId) -> bool {
        self.keys.opens(key, object)
    }

    /// The rates of calls.
    pub(super) fn rates(&self) -> &Arc<CallRates> {
        &self.rates
    }

    /// The memory for messages that arrive.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// The permit of a socket on an object.
    pub(super) fn socket_permit(&self) -> Result<ConcurrencyPermit, ObjectError> {
        self.socket_limit.try_acquire(None).map_err(|_| ObjectError::Full("there are too many sockets"))
    }

    /// Removes unused entries of the limits.
    pub fn prune(&self) {
        self.rates.prune();
    }
}

/// Returns the routes of the API, which has its own limits of bodies and times.
pub fn router<S>(api: Arc<DurableApi>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let path = format!("{}/{{*path}}", api.path);
    Router::new().route(&path, any(serve)).with_state(api)
}

/// Middleware that formats a refusal by the request guard as the API's own.
pub async fn refusals(State(api): State<Arc<DurableApi>>, request: HttpRequest, next: Next) -> Response {
    let is_ours = request.uri().path().strip_prefix(&*api.path).is_some_and(|rest| rest.starts_with('/'));
    let response = next.run(request).await;
    match response.extensions().get::<ApiError>() {
        Some(error) if is_ours => json(error.status(), &answer::Failure { error: &error.to_string() }),
        _ => response,
    }
}

async fn serve(State(api): State<Arc<DurableApi>>, request: HttpRequest) -> Response {
    let started = now();
    let _active = Counted::new(&api.metrics.durable_requests_active, 1);
    let (kind, result) = answer(&api, request).await;
    let outcome = result.as_ref().map_or_else(ObjectError::reason, |_| "ok");
    let labels = ByOutcome { kind, outcome };
    api.metrics.durable_requests.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    result.unwrap_or_else(|error| {
        Metrics::count(&api.metrics.durable_errors, error.reason());
        debug!(event = "objectRequestFailed", operation = kind, status = error.status().as_u16());
        failed(&error)
    })
}

/// Answers a request; returns the operation with it.
async fn answer(
    api: &Arc<DurableApi>,
    request: HttpRequest,
) -> (&'static str, Result<Response, ObjectError>) {
    let path = request.uri().path().strip_prefix(&*api.path).unwrap_or_default();
    let Some((key, path)) = api.keys.find(request.headers(), path) else {
        return ("unknown", Err(ObjectError::Unauthorized));
    };
    let target = match Target::parse(request.method(), path) {
        Ok(target) => target,
        Err(error) => return ("unknown", Err(error)),
    };
    let operation = target.operation();
    let span = debug_span!("object_request", operation, object = target.object().as_str());
    (operation, api.respond(key, target, request).instrument(span).await)
}

impl DurableApi {
    async fn respond(
        self: &Arc<Self>,
        key: KeyNumber,
        target: Target,
        request: HttpRequest,
    ) -> Result<Response, ObjectError> {
        // To a key of others' objects there is nothing here.
        if !self.keys.opens(key, target.object()) {
            return Err(ObjectError::NotFound);
        }
        self.rates.check(key, target.object())?;
        let id = target.object().clone();
        let charge = |bytes| self.rates.charge(key, &id, bytes);
        match target {
            Target::GetNamespaceObject(id) => Ok(of_text(id.as_str())),
            Target::Socket(id) => self.upgrade(id, key, request).await,
            Target::Token(id) => {
                let token = token::sign(self.signing_key(), &id, key, wall_clock());
                Ok(of_token(&token))
            }
            Target::Initialize(id) => {
                let (body, permit) = self.read(request).await?;
                charge(body.len());
                let values = members(&body, self.registry.deps().limits.keys)?;
                self.ask(&id, Request::Initialize(values), Some(permit)).await?;
                Ok(of_success(None))
            }
            Target::CallMethod(id, name) => {
                let (body, permit) = self.read(request).await?;
                charge(body.len());
                let params = match &*body {
                    [] => no_params(),
                    body => parse(body, "the body is to be JSON")?,
                };
                if depth(params.get()) > MAX_DEPTH {
                    return Err(ObjectError::InvalidBody("the body is nested too deeply".to_owned()));
                }
                match self.ask(&id, Request::Method { name, params, key }, Some(permit)).await? {
                    Answer::Result(result) => {
                        charge(result.get().len());
                        Ok(of_method(&result))
                    }
                    _ => Err(ObjectError::Internal),
                }
            }
            Target::GetState(id) => match self.ask(&id, Request::State, None).await? {
                Answer::State(state) => {
                    charge(state.json().len());
                    Ok(answer::of_state(state))
                }
                _ => Err(ObjectError::Internal),
            },
            Target::GetValue(id, name) => match self.ask(&id, Request::Value(name.clone()), None).await? {
                Answer::Value(value) => {
                    charge(value.get().len());
                    Ok(of_value(&name, &value))
                }
                _ => Err(ObjectError::Internal),
            },
            Target::UpdateState(id, name) => {
                let (body, permit) = self.read(request).await?;
                charge(body.len());
                let Put { value } = parse(&body, "the body is to be a JSON object with a value")?;
                let value =
                    value.ok_or_else(|| ObjectError::InvalidBody("the body lacks a value".to_owned()))?;
                let put = Request::Put { key: name.clone(), value: Arc::from(value) };
                self.ask(&id, put, Some(permit)).await?;
                Ok(of_success(Some(&name)))
            }
            Target::DeleteState(id, name) => {
                self.ask(&id, Request::Delete(name.clone()), None).await?;
                Ok(of_success(Some(&name)))
            }
        }
    }

    async fn ask(
        &self,
        id: &ObjectId,
        request: Request,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Answer, ObjectError> {
        self.registry.request(id, request, self.patience, permit).await
    }

    /// Reads a body, and the memory that is reserved for it until its object has taken it.
    async fn read(&self, request: HttpRequest) -> Result<(Bytes, OwnedSemaphorePermit), ObjectError> {
        const TOO_LONG: ObjectError = ObjectError::TooLarge("the body is too long");
        let body: Body = request.into_body();
        let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced.is_some_and(|bytes| bytes > self.body_bytes) {
            return Err(TOO_LONG);
        }
        let reserved = announced.unwrap_or(self.body_bytes);
        let mut permit = self.intake.reserve(reserved).await?;
        let collected = timeout(self.patience, Limited::new(body, self.body_bytes).collect()).await;
        let body = match collected.map_err(|_| ObjectError::BodyTooSlow)? {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(TOO_LONG),
            Err(_) => return Err(ObjectError::InvalidBody("the body is incomplete or malformed".to_owned())),
        };
        drop(permit.split(reserved.saturating_sub(body.len())));
        Ok((body, permit))
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &str) -> Result<T, ObjectError> {
    serde_json::from_slice(body).map_err(|_| ObjectError::InvalidBody(expected.to_owned()))
}

/// The body of a request that sets one key.
#[derive(Deserialize)]
struct Put {
    /// None if it is missing; null is a value.
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Reads the members of a JSON object, in their order.
///
/// More than `most` are not kept: a long body of short members would take many times its length in memory.
struct Members {
    most: usize,
}

impl<'de> Visitor<'de> for Members {
    /// The members; none if there are too many.
    type Value = Option<Entries>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() < self.most {
            let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? else {
                return Ok(Some(members));
            };
            members.push((key.into(), Arc::from(value)));
        }
        let mut is_over = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_over = true;
        }
        Ok((!is_over).then_some(members))
    }
}

/// Parses a JSON object with nothing behind it.
fn members(body: &[u8], most: usize) -> Result<Entries, ObjectError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = reader.deserialize_map(Members { most }).and_then(|members| reader.end().map(|()| members));
    match read {
        Ok(Some(members)) => Ok(members),
        Ok(None) => Err(ObjectError::TooLarge("the object has too many keys")),
        Err(_) => Err(ObjectError::InvalidBody("the body is to be a JSON object".to_owned())),
    }
}
