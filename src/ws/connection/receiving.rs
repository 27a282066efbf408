//! Charging and handling of what a client sends.

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::session::Session;
use super::super::socket::Received;
use super::super::throttle::Charge;
use super::{Connection, now};
use crate::protocol::close::Close;

impl<S: AsyncRead + AsyncWrite + Unpin, P: Session> Connection<S, P> {
    /// Handles received data. If its tokens are not available, nothing more is read until they are:
    /// data that waits for them in memory could be long, and compressed it costs its sender almost nothing.
    pub(super) fn receive(&mut self, received: Received) {
        if self.phase.heeds_messages() {
            let is_keep_alive =
                matches!(&received, Received::Pong(payload) if self.silence.is_answered_by(payload));
            self.silence.end(now);
            // A pong that answers a ping of the transport is not charged either.
            if !is_keep_alive {
                self.charge_and_handle(received);
            }
        }
        self.session.release_space();
    }

    fn charge_and_handle(&mut self, received: Received) {
        if let Received::Pong(payload) = &received
            && self.session.receive_pong(now(), payload)
        {
            // It answers a ping of ours, and is not charged as a message of the client's own.
            return;
        }
        let charge = self.throttle.charge(&received);
        self.settle(charge);
        match received {
            Received::Text(text) => {
                self.arriving.clear();
                // The charge may have closed the socket.
                if self.phase.heeds_messages() {
                    self.pause.message_read();
                    self.metrics.received_bytes.inc_by(text.len() as u64);
                    let next = self.session.receive(&text);
                    self.follow(next);
                }
            }
            Received::Binary(bytes) => {
                self.arriving.clear();
                if self.phase.heeds_messages() {
                    self.pause.message_read();
                    let next = self.session.receive_binary(&bytes);
                    self.follow(next);
                }
            }
            Received::Piece(_) => {
                if self.arriving.count(now(), self.socket.arriving_bytes()) {
                    self.metrics.throttled.inc();
                }
            }
            Received::Ping | Received::Pong(_) => {}
        }
    }

    /// Carries out the consequence of a charge.
    pub(super) fn settle(&mut self, charge: Charge) {
        match charge {
            Charge::Paid => {}
            Charge::Owed => {
                self.metrics.throttled.inc();
            }
            Charge::TooFast => self.close(Close::TooFast),
        }
    }
}
