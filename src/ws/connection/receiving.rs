//! What is done with what a client sent.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::error::TrySendError;
use tungstenite::Utf8Bytes;

use super::super::phase::Phase;
use super::super::socket::Received;
use super::super::throttle::Charge;
use super::{Connection, Owed, now};
use crate::metrics::ByType;
use crate::protocol::client::{ClientMessage, InvalidMessage};
use crate::protocol::close::Close;
use crate::room::mailbox::Incoming;
use crate::room::outbox::Acknowledged;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes in what the client sent. Where there are no tokens for it, nothing more is read until there are: what
    /// waited for them in memory could be long, and compressed it costs its sender almost nothing.
    pub(super) fn receive(&mut self, received: Received) {
        if !self.phase.heeds_messages() {
            return;
        }
        if let Received::Pong(payload) = &received
            && let Ok(number) = <[u8; 8]>::try_from(&**payload)
            && self.seat.outbox.acknowledge(now(), u64::from_be_bytes(number)) == Acknowledged::News
        {
            // It answers us, and is none of the client's own messages.
            return;
        }
        let charge = self.throttle.charge(&received);
        self.settle(charge);
        match received {
            Received::Text(text) => {
                self.arriving.set(0);
                if self.phase.heeds_messages() {
                    self.said(&text);
                }
            }
            Received::Binary(_) => self.arriving.set(0),
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
                self.owed = Some(Owed { tokens, since, until: since + wait });
            }
            Charge::TooFast => self.close(Close::TooFast),
        }
    }

    /// Counts what arrived of a message that is not whole. Where that is too much in all, those go who have the most of
    /// it: first those whose messages are longer than any that counts.
    fn count_arriving(&mut self) {
        let own = self.socket.arriving_bytes();
        self.arriving.set(own);
        let all = usize::try_from(self.metrics.arriving_bytes.get()).unwrap_or_default();
        let most = self.limits.arriving_bytes;
        if all > 2 * most || all > most && own > self.limits.message.frame_bytes {
            self.arriving.set(0);
            self.socket.queue_close(Close::TooMuchArrives);
            self.phase = Phase::Draining(Close::TooMuchArrives);
        }
    }

    fn said(&mut self, text: &Utf8Bytes) {
        self.is_let_through = false;
        self.metrics.received_bytes.inc_by(text.len() as u64);
        let message = ClientMessage::parse(text, self.limits.message);
        let kind = message.as_ref().map_or("invalid", ClientMessage::kind);
        self.metrics.messages.get_or_create(&ByType { r#type: kind }).inc();
        if matches!(message, Err(InvalidMessage::TooLong)) {
            self.socket.queue_close(Close::MessageTooBig);
            self.phase = Phase::Draining(Close::MessageTooBig);
            return;
        }
        if matches!(message, Ok(ClientMessage::UserLeft)) {
            self.phase = Phase::Left;
        }
        let incoming = Incoming { connection: self.id, message, bytes: text.len(), permit: None };
        match self.seat.mailbox.try_deliver(incoming) {
            Ok(()) => {}
            Err(TrySendError::Full(incoming)) => self.incoming = Some(incoming),
            // The room is gone; its outbox closes the socket.
            Err(TrySendError::Closed(_)) => self.phase = Phase::Left,
        }
    }
}
