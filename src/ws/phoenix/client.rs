//! The client of a session, and the right by which it is here.

use std::sync::Arc;

use super::super::lease::{Lease, lease};
use crate::auth::{Identities, Identity};
use crate::network::ClientNetwork;

/// The client of a session.
#[derive(Clone, Debug)]
pub struct SocketClient {
    /// The user.
    pub user: SocketUser,
    /// The client's network, if known.
    pub network: Option<ClientNetwork>,
    /// True if it answers pings, which confirm that events arrived.
    pub answers_pings: bool,
}

/// The user of a session.
#[derive(Clone, Debug)]
pub enum SocketUser {
    /// A user, who may join rooms.
    User(Identity),
    /// The holder of a token that opens topics of a feature, and no room.
    Token(Arc<[u8]>),
}

impl SocketUser {
    /// The right by which the user holds a socket, if that has an end.
    pub(super) fn lease(&self, identities: &Identities) -> Option<Lease> {
        match self {
            Self::User(identity) => lease(identities, identity),
            Self::Token(_) => None,
        }
    }
}
