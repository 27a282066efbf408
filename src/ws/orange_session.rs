//! Orange's protocol on a socket: one room for each socket, JSON texts in both directions.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;
use tungstenite::Utf8Bytes;

use super::session::{Next, Output, Session};
use crate::metrics::{ByType, Metrics};
use crate::protocol::client::{ClientMessage, InvalidMessage, MessageLimits};
use crate::protocol::close::Close;
use crate::room::link::{Acknowledged, MemberLink, RoomGone, Taken};

/// A member's session in Orange's protocol.
#[derive(Debug)]
pub struct OrangeSession {
    link: MemberLink,
    limits: MessageLimits,
    metrics: Arc<Metrics>,
}

impl OrangeSession {
    /// A session of an admitted member.
    pub fn new(link: MemberLink, limits: MessageLimits, metrics: Arc<Metrics>) -> Self {
        Self { link, limits, metrics }
    }
}

impl Session for OrangeSession {
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Output> {
        self.link.poll_next(context).map(|taken| match taken {
            Taken::Message(payload) => Output::Text(payload),
            Taken::Ping(number) => Output::Ping(Bytes::copy_from_slice(&number.to_be_bytes())),
            Taken::Close(close) => Output::Close(close),
        })
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.link.poll_end(context).map(|_| ())
    }

    fn receive(&mut self, text: &Utf8Bytes) -> Next {
        let message = ClientMessage::parse(text, self.limits);
        let kind = message.as_ref().map_or("invalid", ClientMessage::kind);
        self.metrics.messages.get_or_create(&ByType { r#type: kind }).inc();
        if matches!(message, Err(InvalidMessage::TooLong)) {
            return Next::Reject(Close::MessageTooBig);
        }
        // The room closes the socket of a member that left.
        let is_last = matches!(message, Ok(ClientMessage::UserLeft));
        let sent = self.link.send(message.map_err(|defect| defect.to_string()), text.len(), None);
        if is_last { Next::Stop } else { read_on(sent) }
    }

    fn receive_pong(&mut self, now: Instant, payload: &[u8]) -> bool {
        <[u8; 8]>::try_from(payload)
            .is_ok_and(|number| self.link.ack(now, u64::from_be_bytes(number)) == Acknowledged::News)
    }

    fn poll_handed_on(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        self.link.poll_sent(context).map(read_on)
    }

    fn poll_space(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.link.poll_space(context)
    }

    fn release_space(&mut self) {
        self.link.release_space();
    }

    fn is_congested(&self) -> bool {
        self.link.is_congested()
    }

    fn poll_keeps_up(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.link.poll_keeps_up(context)
    }

    fn set_throttled(&mut self, now: Instant, throttled: bool) {
        self.link.set_throttled(now, throttled);
    }

    fn revoke(&mut self) {
        self.link.revoke();
    }

    fn end(self, is_page_left: bool) -> impl Future<Output = ()> + Send {
        self.link.disconnect(is_page_left)
    }
}

/// A room that is gone has queued a close, which ends the socket.
fn read_on(sent: Result<(), RoomGone>) -> Next {
    match sent {
        Ok(()) => Next::Read,
        Err(RoomGone) => Next::Stop,
    }
}
