//! Objects as topics of Phoenix Channels, as the Phoenix adapter of `cloudflare_durable` has them: `durable_object:{id}`.
//!
//! A topic is a socket of its object in another form, so it has that socket's order, limits and memory.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::DurableApi;
use super::command::Ask;
use super::error::ObjectError;
use super::feed::Taken;
use super::session::{ObjectSession, no_params};
use super::token;
use crate::clock::wall_clock;
use crate::id::ObjectId;
use crate::limit::ConcurrencyPermit;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::server::json_text;
use crate::ws::phoenix::feature::{
    FeatureJoin, FeatureLink, FeatureOutput, FeatureRefusal, FeatureTopics, JoinedTopic,
};
use crate::ws::session::Session;

/// The prefix of the topics; the object's id follows, as it is.
const PREFIX: &str = "durable_object:";

/// The event of changed values.
const STATE_UPDATED: &str = "state_updated";

/// The topics of all objects.
#[derive(Debug)]
pub struct ObjectTopics {
    /// Weak, since the API knows the sockets, and they know this.
    api: Weak<DurableApi>,
}

impl ObjectTopics {
    /// The topics of the objects that the API serves.
    pub fn new(api: &Arc<DurableApi>) -> Self {
        Self { api: Arc::downgrade(api) }
    }
}

impl FeatureTopics for ObjectTopics {
    fn prefix(&self) -> &'static str {
        PREFIX
    }

    fn opens_socket(&self, token: &[u8]) -> bool {
        self.api.upgrade().is_some_and(|api| token::verify(api.signing_key(), token, wall_clock()).is_some())
    }

    fn join(&self, join: FeatureJoin) -> BoxFuture<'static, Result<JoinedTopic, FeatureRefusal>> {
        let api = self.api.upgrade();
        async move {
            let joined = match api {
                Some(api) => subscribe(&api, join).await,
                None => Err(ObjectError::Stopping),
            };
            joined.map_err(|error| FeatureRefusal { label: error.reason(), reason: error.to_string() })
        }
        .boxed()
    }
}

/// Parameters of a join.
#[derive(Deserialize)]
struct Parameters<'a> {
    /// A token of this object, unless that of the socket is one.
    #[serde(borrow, default)]
    token: Option<Cow<'a, str>>,
}

async fn subscribe(api: &Arc<DurableApi>, join: FeatureJoin) -> Result<JoinedTopic, ObjectError> {
    let FeatureJoin { topic, parameters, token, connection, .. } = join;
    let id = ObjectId::parse(topic.strip_prefix(PREFIX).unwrap_or_default())?;
    let own = serde_json::from_str::<Parameters<'_>>(parameters.get()).ok().and_then(|own| own.token);
    let token = own.as_deref().map(str::as_bytes).or(token.as_deref()).unwrap_or_default();
    let key = match token::verify(api.signing_key(), token, wall_clock()) {
        Some((object, key)) if object == id && api.opens(key, &id) => key,
        _ => return Err(ObjectError::TokenNeeded),
    };
    api.rates().check(key, &id)?;
    let permit = api.socket_permit()?;
    // The reply is a copy of the state.
    api.registry().deps().check_queued_bytes()?;
    let link = api.registry().subscribe(&id, connection, Encoding::Identity).await?;
    let (rates, intake) = (api.rates().clone(), api.intake().clone());
    let mut session = ObjectSession::new(connection, (id, key), link, rates, intake);
    // The state is queued with the subscription.
    let state = match poll_fn(|context| session.poll_taken(context)).await {
        Taken::Message(payload) => match serde_json::from_slice(&payload.bytes) {
            Ok(FromObject { state: Some(state), .. }) => state.to_owned(),
            _ => return Err(ObjectError::Internal),
        },
        Taken::Close(_) => return Err(ObjectError::Internal),
    };
    let response = format!(r#"{{"state":{state}}}"#);
    Ok(JoinedTopic { response, link: Box::new(ObjectChannel { session, refreshed: None, _permit: permit }) })
}

/// One socket's way to an object.
struct ObjectChannel {
    session: ObjectSession,
    /// The state, behind the answer to the message that asked for it.
    refreshed: Option<String>,
    _permit: ConcurrencyPermit,
}

impl FeatureLink for ObjectChannel {
    fn receive(&mut self, event: &str, payload: &RawValue) {
        let ask = read(event, payload.get());
        // Answers come in order, so the id tells only the one whose result is the state.
        let id = matches!(ask, Ask::State).then(|| RawValue::TRUE.to_owned());
        self.session.ask(id, ask, payload.get().len());
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<FeatureOutput> {
        if let Some(state) = self.refreshed.take() {
            return Poll::Ready(FeatureOutput::Asked(STATE_UPDATED, state));
        }
        self.session.poll_taken(context).map(|taken| match taken {
            Taken::Message(payload) => {
                let (output, refreshed) = write(&payload.bytes);
                self.refreshed = refreshed;
                output
            }
            Taken::Close(close) => FeatureOutput::End(close),
        })
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Close> {
        self.session.poll_close(context)
    }

    fn poll_handed_on(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Session::poll_handed_on(&mut self.session, context).map(|_| ())
    }

    fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Session::poll_space(&mut self.session, context)
    }

    fn is_congested(&self) -> bool {
        Session::is_congested(&self.session)
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, ()> {
        let Self { session, _permit, .. } = *self;
        async move {
            session.end(false).await;
            drop(_permit);
        }
        .boxed()
    }
}

/// Parses an event of the client.
fn read(event: &str, payload: &str) -> Ask {
    #[derive(Deserialize)]
    struct Update {
        key: String,
        value: Box<RawValue>,
    }
    #[derive(Deserialize)]
    struct Call {
        method: String,
        params: Option<Box<RawValue>>,
    }
    match event {
        "update_state" => match serde_json::from_str(payload) {
            Ok(Update { key, value }) => Ask::Set(key.into(), value.into()),
            Err(_) => Ask::Invalid("update_state needs a text \"key\" and a \"value\""),
        },
        "call_method" => match serde_json::from_str(payload) {
            Ok(Call { method, params }) => {
                Ask::Method { name: method, params: params.unwrap_or_else(no_params) }
            }
            Err(_) => Ask::Invalid("call_method needs a text \"method\""),
        },
        "refresh_state" => Ask::State,
        _ => Ask::Invalid("the event is not known"),
    }
}

/// A message of an object to a socket.
#[derive(Deserialize)]
struct FromObject<'a> {
    r#type: &'a str,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
}

/// The output for a message of an object, and the state to be pushed behind it.
fn write(message: &[u8]) -> (FeatureOutput, Option<String>) {
    let failed = |reason: &str| (FeatureOutput::Answer(Err(reason.to_owned())), None);
    let Ok(message) = serde_json::from_slice::<FromObject<'_>>(message) else {
        return failed("the object's answer is not JSON");
    };
    // A value of null reads as none.
    let or_null = |value: Option<&RawValue>| value.map_or("null", RawValue::get).to_owned();
    match (message.r#type, message.error) {
        ("init", _) => (FeatureOutput::Push(STATE_UPDATED, or_null(message.state)), None),
        ("update", _) => {
            let key = json_text(message.key.as_deref().unwrap_or_default());
            (FeatureOutput::Push(STATE_UPDATED, format!("{{{key}:{}}}", or_null(message.value))), None)
        }
        (_, Some(error)) => failed(&error),
        ("response", None) if message.id.is_some() => {
            (FeatureOutput::Answer(Ok("{}".to_owned())), Some(or_null(message.result)))
        }
        ("response", None) => {
            (FeatureOutput::Answer(Ok(format!(r#"{{"result":{}}}"#, or_null(message.result)))), None)
        }
        _ => (FeatureOutput::Answer(Ok("{}".to_owned())), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_adapter_sends_them() {
        for (event, payload, ask) in [
            ("update_state", r#"{"key":"k","value":null}"#, r#"Set("k", RawValue(null))"#),
            (
                "update_state",
                r#"{"key":"k"}"#,
                r#"Invalid("update_state needs a text \"key\" and a \"value\"")"#,
            ),
            (
                "call_method",
                r#"{"method":"m","params":{"a":1}}"#,
                r#"Method { name: "m", params: RawValue({"a":1}) }"#,
            ),
            ("call_method", r#"{"method":"m"}"#, r#"Method { name: "m", params: RawValue({}) }"#),
            ("call_method", "{}", r#"Invalid("call_method needs a text \"method\"")"#),
            ("refresh_state", "{}", "State"),
            ("chat", "{}", r#"Invalid("the event is not known")"#),
        ] {
            assert_eq!(format!("{:?}", read(event, payload)), ask, "{event} {payload}");
        }
    }

    #[test]
    fn messages_are_written_as_the_adapter_reads_them() {
        let push = |payload: &str| FeatureOutput::Push(STATE_UPDATED, payload.to_owned());
        let answer = |response: &str| FeatureOutput::Answer(Ok(response.to_owned()));
        for (message, output) in [
            (r#"{"type":"init","state":{"a":1}}"#, push(r#"{"a":1}"#)),
            (r#"{"type":"update","key":"\"k","value":1.0,"timestamp":"x"}"#, push(r#"{"\"k":1.0}"#)),
            (r#"{"type":"update","key":"k","value":null}"#, push(r#"{"k":null}"#)),
            (r#"{"type":"set_response","key":"k","value":1}"#, answer("{}")),
            (
                r#"{"type":"response","success":true,"result":{"value":1}}"#,
                answer(r#"{"result":{"value":1}}"#),
            ),
            (r#"{"type":"response","success":true}"#, answer(r#"{"result":null}"#)),
            (
                r#"{"type":"response","success":false,"error":"Method not found"}"#,
                FeatureOutput::Answer(Err("Method not found".to_owned())),
            ),
            (r#"{"type":"error","error":"no"}"#, FeatureOutput::Answer(Err("no".to_owned()))),
        ] {
            assert_eq!(write(message.as_bytes()), (output, None), "{message}");
        }
        let refreshed = write(br#"{"type":"response","id":true,"success":true,"result":{"a":1}}"#);
        assert_eq!(refreshed, (answer("{}"), Some(r#"{"a":1}"#.to_owned())));
    }
}
