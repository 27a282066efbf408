//! The end of the right by which a client holds its socket.

use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::lease::Lease;
use super::super::session::Session;
use super::Connection;
use crate::auth::lease::LeaseEnd;
use crate::protocol::close::Close;

impl<S: AsyncRead + AsyncWrite + Unpin, P: Session> Connection<S, P> {
    /// Closes the socket when the right of its client ends.
    #[must_use]
    pub fn leased(self, lease: Option<Lease>) -> Self {
        Self { lease, ..self }
    }

    /// Ready once, when the right of the client ends.
    pub(super) fn poll_lease(&mut self, context: &mut Context<'_>) -> Poll<LeaseEnd> {
        let Some(lease) = &mut self.lease else { return Poll::Pending };
        let end = lease.as_mut().poll(context);
        if end.is_ready() {
            self.lease = None;
        }
        end
    }

    /// Sends away a client that may be here no longer.
    pub(super) fn end_lease(&mut self, end: LeaseEnd) {
        if !self.phase.is_before_close() {
            return;
        }
        // One with a new token comes back as the same member. After a revocation nobody is to see a member whose
        // client merely seems away.
        self.is_page_left = end == LeaseEnd::Revoked;
        if self.is_page_left {
            self.session.revoke();
        }
        self.break_off(match end {
            LeaseEnd::Expired => Close::TokenExpired,
            LeaseEnd::Revoked => Close::TokenRevoked,
        });
    }
}
