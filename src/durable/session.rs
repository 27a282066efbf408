//! The protocol of an object's sockets: the state at once, then every change; JSON texts in both directions.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use super::command::{Ask, Command, SocketMessage};
use super::feed::Taken;
use super::intake::Intake;
use super::keys::KeyNumber;
use super::rates::CallRates;
use super::registry::ObjectLink;
use crate::clock::now;
use crate::id::{ConnectionId, ObjectId};
use crate::protocol::close::Close;
use crate::ws::session::{Next, Output, Session};

/// The key that `update` sets if the client names none.
const VALUE: &str = "value";

/// Length in bytes from which a message counts in the memory for waiting messages.
const LONG_BYTES: usize = 4 << 10;

/// The session of a socket on an object.
pub struct ObjectSession {
    socket: ConnectionId,
    object: ObjectId,
    key: KeyNumber,
    link: ObjectLink,
    rates: Arc<CallRates>,
    intake: Intake,
    sending: Option<BoxFuture<'static, Next>>,
}

impl ObjectSession {
    /// The session of a socket that is subscribed to the object.
    pub fn new(
        socket: ConnectionId,
        (object, key): (ObjectId, KeyNumber),
        link: ObjectLink,
        rates: Arc<CallRates>,
        intake: Intake,
    ) -> Self {
        Self { socket, object, key, link, rates, intake, sending: None }
    }

    /// Asks the object, at the cost of a call; the answer repeats the id.
    pub(super) fn ask(&mut self, id: Option<Box<RawValue>>, ask: Ask, bytes: usize) -> Next {
        let refusal = self.rates.check(self.key, &self.object).err();
        self.send(SocketMessage { socket: self.socket, key: self.key, id, ask, refusal, permit: None }, bytes)
    }

    /// The next action for the client.
    pub(super) fn poll_taken(&mut self, context: &Context<'_>) -> Poll<Taken> {
        self.link.feed.poll_take(now, context)
    }

    /// Ready, with the reason, once the object has ended the subscription, even if messages are still queued.
    pub(super) fn poll_close(&mut self, context: &Context<'_>) -> Poll<Close> {
        self.link.feed.poll_end(context)
    }

    /// Sends a message to the object; if that has no space for it yet, it waits here.
    fn send(&mut self, mut message: SocketMessage, bytes: usize) -> Next {
        self.link.feed.expect_answer();
        let commands = self.link.commands.clone();
        let bytes = if bytes < LONG_BYTES { 0 } else { bytes };
        message.permit = self.intake.try_reserve(bytes);
        if message.permit.is_none() {
            let intake = self.intake.clone();
            let sending = async move {
                message.permit = intake.wait(bytes).await;
                after(commands.send(Command::Message(message)).await.is_ok())
            };
            self.sending = Some(sending.boxed());
            return Next::Read;
        }
        match commands.try_send(Command::Message(message)) {
            Ok(()) => Next::Read,
            Err(TrySendError::Closed(_)) => Next::Stop,
            Err(TrySendError::Full(command)) => {
                self.sending = Some(async move { after(commands.send(command).await.is_ok()) }.boxed());
                Next::Read
            }
        }
    }
}

/// An object that is gone has queued a close, which ends the socket.
fn after(is_sent: bool) -> Next {
    if is_sent { Next::Read } else { Next::Stop }
}

impl Session for ObjectSession {
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Output> {
        self.poll_taken(context).map(|taken| match taken {
            Taken::Message(payload) => Output::Text(payload),
            Taken::Close(close) => Output::Close(close),
        })
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_close(context).map(|_| ())
    }

    fn receive(&mut self, text: &Utf8Bytes) -> Next {
        let (id, ask) = parse(text);
        self.ask(id, ask, text.len())
    }

    fn receive_pong(&mut self, _: Instant, _: &[u8]) -> bool {
        false
    }

    fn poll_handed_on(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Next::Read) };
        sending.poll_unpin(context).map(|next| {
            self.sending = None;
            next
        })
    }

    fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.link.feed.poll_answered(context)
    }

    fn release_space(&mut self) {}

    fn is_congested(&self) -> bool {
        self.sending.is_some() || !self.link.feed.is_answered()
    }

    fn poll_keeps_up(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn set_throttled(&mut self, _: Instant, _: bool) {}

    async fn end(mut self, _: bool) {
        if let Some(sending) = mem::take(&mut self.sending) {
            sending.await;
        }
        // Fails for an object that is gone.
        let _ = self.link.commands.send(Command::Gone(self.socket)).await;
    }
}

/// Parses a message: the client's id of it, and what it asks for.
fn parse(text: &str) -> (Option<Box<RawValue>>, Ask) {
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        r#type: Option<String>,
        #[serde(default, deserialize_with = "present")]
        id: Option<Box<RawValue>>,
        method: Option<String>,
        params: Option<Box<RawValue>>,
        key: Option<String>,
        #[serde(default, deserialize_with = "present")]
        value: Option<Box<RawValue>>,
        #[serde(default, deserialize_with = "present")]
        data: Option<Box<RawValue>>,
    }
    let Ok(message) = serde_json::from_str::<Message>(text) else {
        return (None, Ask::Invalid("Failed to process message"));
    };
    let key = || message.key.clone().map(Arc::<str>::from);
    let value = || message.value.clone().map(Arc::<RawValue>::from);
    let ask = match message.r#type.as_deref() {
        Some("method") => {
            message.method.map(|name| Ask::Method { name, params: message.params.unwrap_or_else(no_params) })
        }
        Some("echo") => Some(Ask::Echo(message.data)),
        Some("get") => key().map(Ask::Get),
        Some("set") => key().zip(value()).map(|(key, value)| Ask::Set(key, value)),
        Some("update") => value().map(|value| Ask::Update(key().unwrap_or_else(|| VALUE.into()), value)),
        _ => return (message.id, Ask::Invalid("Unknown message type")),
    };
    (message.id, ask.unwrap_or(Ask::Invalid("The message lacks a field of its type")))
}

/// The parameters of a call without any.
pub fn no_params() -> Box<RawValue> {
    serde_json::value::to_raw_value(&serde_json::Map::new()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A field that is there, also as null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_parsed() {
        for (text, id, ask) in [
            (
                r#"{"type":"method","id":1,"method":"m","params":{"a":1}}"#,
                Some("1"),
                r#"Method { name: "m", params: RawValue({"a":1}) }"#,
            ),
            (r#"{"type":"method","method":"m"}"#, None, r#"Method { name: "m", params: RawValue({}) }"#),
            (r#"{"type":"echo","id":null,"data":null}"#, Some("null"), "Echo(Some(RawValue(null)))"),
            (r#"{"type":"echo"}"#, None, "Echo(None)"),
            (r#"{"type":"get","id":"x","key":"k"}"#, Some("\"x\""), r#"Get("k")"#),
            (r#"{"type":"set","key":"__proto__","value":null}"#, None, r#"Set("__proto__", RawValue(null))"#),
            (r#"{"type":"update","value":42}"#, None, r#"Update("value", RawValue(42))"#),
            (r#"{"type":"update","key":"k","value":42}"#, None, r#"Update("k", RawValue(42))"#),
            (
                r#"{"type":"set","id":2,"key":"k"}"#,
                Some("2"),
                r#"Invalid("The message lacks a field of its type")"#,
            ),
            (r#"{"type":"join","id":2}"#, Some("2"), r#"Invalid("Unknown message type")"#),
            (r#"{}"#, None, r#"Invalid("Unknown message type")"#),
            ("[1]", None, r#"Invalid("Failed to process message")"#),
            ("{", None, r#"Invalid("Failed to process message")"#),
        ] {
            let (found, asked) = parse(text);
            assert_eq!((found.as_deref().map(RawValue::get), &*format!("{asked:?}")), (id, ask), "{text}");
        }
    }
}
