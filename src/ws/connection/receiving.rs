//! Handling of a client's messages.

use tokio::io::{AsyncRead, AsyncWrite};
use tungstenite::Utf8Bytes;

use super::super::phase::Phase;
use super::super::socket::Received;
use super::super::throttle::Charge;
use super::{Connection, TokenDebt, now};
use crate::metrics::ByType;
use crate::protocol::client::{ClientMessage, InvalidMessage};
use crate::protocol::close::Close;
use crate::room::arrivals::ArrivalPermit;
use crate::room::link::{Acknowledged, RoomGone};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Handles received data. If its tokens are not available, nothing more is read until they are:
    /// data that waits for them in memory could be long, and compressed it costs its sender almost nothing.
    pub(super) fn receive(&mut self, received: Received) {
        self.receive_in_turn(received);
        self.link.release_space();
    }

    fn receive_in_turn(&mut self, received: Received) {
        if !self.phase.heeds_messages() {
            return;
        }
        if let Received::Pong(payload) = &received
            && let Ok(number) = <[u8; 8]>::try_from(&**payload)
            && self.link.ack(now(), u64::from_be_bytes(number)) == Acknowledged::News
        {
            // It answers our ping, and is not charged as a message of the client's own.
            return;
        }
        let charge = self.throttle.charge(&received);
        self.settle(charge);
        match received {
            Received::Text(text) => {
                self.has_arrived();
                if self.phase.heeds_messages() {
                    self.said(&text);
                }
            }
            Received::Binary(_) => self.has_arrived(),
            Received::Piece(_) => self.count_arriving(),
            Received::Ping | Received::Pong(_) => {}
        }
    }

    pub(super) fn settle(&mut self, charge: Charge) {
        match charge {
            Charge::Paid => {}
            Charge::Wait { tokens, wait } => {
                self.metrics.held_back.inc();
                let since = now();
                self.debt = Some(TokenDebt { tokens, since, until: since + wait });
            }
            Charge::TooFast => self.close(Close::TooFast),
        }
    }

    /// Counts the received bytes of an incomplete message. Over the server's memory limit, no more
    /// of it is read until others complete theirs.
    fn count_arriving(&mut self) {
        let own = self.socket.arriving_bytes();
        let more = own.saturating_sub(usize::try_from(self.arriving.count()).unwrap_or_default());
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.arriving.set(own);
        if more == 0 || self.arrival.as_ref().is_some_and(ArrivalPermit::is_overrun) {
            return;
        }
        match self.share.try_acquire(more) {
            Some(permit) => self.admit(permit),
            None => {
                self.metrics.held_back.inc();
                self.awaited = Some(Box::pin(self.share.clone().acquire(more)));
            }
        }
    }

    /// Continues to read a message after its next bytes were permitted.
    pub(super) fn admit(&mut self, permit: ArrivalPermit) {
        if permit.is_overrun() {
            self.finish_by = Some(now() + self.limits.write_stall);
        }
        match &mut self.arrival {
            Some(arrival) => arrival.merge(permit),
            arrival @ None => *arrival = Some(permit),
        }
    }

    /// Releases the memory for the client's message: it is complete, or given up.
    pub(super) fn has_arrived(&mut self) {
        self.arriving.set(0);
        (self.arrival, self.finish_by) = (None, None);
    }

    fn said(&mut self, text: &Utf8Bytes) {
        self.is_let_through = false;
        self.metrics.received_bytes.inc_by(text.len() as u64);
        let message = ClientMessage::parse(text, self.limits.message);
        let kind = message.as_ref().map_or("invalid", ClientMessage::kind);
        self.metrics.messages.get_or_create(&ByType { r#type: kind }).inc();
        if matches!(message, Err(InvalidMessage::TooLong)) {
            return self.break_off(Close::MessageTooBig);
        }
        if matches!(message, Ok(ClientMessage::UserLeft)) {
            self.phase = Phase::Left;
        }
        if self.link.send(message, text.len()) == Err(RoomGone) {
            // Its last action is a close.
            self.phase = Phase::Left;
        }
    }
}
