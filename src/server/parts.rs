//! Settings of the server's parts.

use std::net::SocketAddr;

use crate::auth::Identities;
use crate::auth::access::AccessHandle;
use crate::auth::access_token::AccessTokens;
use crate::auth::token::SigningKey;
use crate::config::{Config, LimitsConfig, ModeratorDefault};
use crate::http::listener::HttpLimits;
use crate::limit::Rate;
use crate::reports::retention::Retention;
use crate::store::data_dir::DataDir;

/// The addresses of a server's listeners, with the actual ports if 0 was configured.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The public listener.
    pub http: SocketAddr,
    /// The operators' listener.
    pub admin: SocketAddr,
}

pub(super) fn identities(
    config: &Config,
    data_dir: &DataDir,
    access: Option<AccessHandle>,
    tokens: Option<AccessTokens>,
) -> Identities {
    let key = SigningKey::new(data_dir.signing_key()).accepting(data_dir.former_key());
    let identities = Identities::new(key, config.identity.proxy_header.0.clone(), access);
    let identities = identities
        .with_tokens(tokens, config.auth.rooms, config.auth.create)
        .limiting_guesses(Rate::per_minute(config.limits.token_guesses_per_minute_per_network))
        .moderating(config.moderation.default == ModeratorDefault::Everyone);
    if config.identity.required { identities } else { identities.beside_cookies() }
}

pub(super) fn http_limits(limits: &LimitsConfig) -> HttpLimits {
    HttpLimits {
        header_bytes: limits.header_bytes,
        handshake: limits.handshake,
        header_timeout: limits.header_timeout,
        request_timeout: limits.request_timeout,
        connections: limits.http_connections,
        per_network: limits.http_connections_per_address,
    }
}

pub(super) fn retention(config: &Config) -> Retention {
    Retention {
        reports: config.feedback.retention,
        report_bytes: config.feedback.stored_bytes,
        meetings: config.room.meetings_retention,
    }
}
