//! The end of the right by which a client holds a socket.

use std::pin::Pin;

use crate::auth::lease::LeaseEnd;
use crate::auth::{Identities, Identity};
use crate::clock::wall_clock;

/// Waits for the end of a right.
pub type Lease = Pin<Box<dyn Future<Output = LeaseEnd> + Send>>;

/// The right of an identity; none if it has no end, so that only holders of tokens have the cost.
pub(super) fn lease(identities: &Identities, identity: &Identity) -> Option<Lease> {
    let end = identities.lease_end(identity, wall_clock())?;
    Some(Box::pin(end))
}
