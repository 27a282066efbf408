//! TURN credentials, cached per identity for a part of their lifetime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use moka::future::Cache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing::{info, warn};

use super::call::UpstreamError;
use super::remote::TURN_LIFETIME;
use super::upstream::Upstream;
use crate::id::IdentityId;

/// Time for which credentials are cached: the last client to receive them can use them for another three
/// quarters of their lifetime, which is longer than a call.
const KEPT: Duration = Duration::from_secs(TURN_LIFETIME.as_secs() / 4);

/// Maximum number of identities with cached credentials.
const IDENTITIES: u64 = 10_000;

/// No ICE servers.
const NO_SERVERS: &str = r#"{"iceServers":[]}"#;

/// The ICE servers without a TURN service.
///
/// Source: protocol section 9.
const STUN_ONLY: &str =
    r#"{"iceServers":[{"urls":["stun:stun.cloudflare.com:3478","stun:stun.cloudflare.com:53"]}]}"#;

/// Cached TURN credentials by identity.
#[derive(Debug)]
pub struct TurnCredentials {
    upstream: Arc<Upstream>,
    kept: Cache<IdentityId, Bytes>,
    /// True if the last request to the service failed, so that an outage is logged once.
    is_down: AtomicBool,
}

/// Credentials are unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCredentials {
    /// The request to the TURN service failed.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The TURN service refused.
    #[error("the TURN service answered {0}")]
    Refused(StatusCode),
}

/// Extracts the list of servers from an answer; the service once sent a single server without a list.
fn list(answer: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct TurnAnswer {
        #[serde(rename = "iceServers")]
        servers: Box<RawValue>,
    }
    let servers = serde_json::from_slice::<TurnAnswer>(answer).ok()?.servers;
    if servers.get().starts_with('[') {
        Some(servers)
    } else {
        RawValue::from_string(format!("[{servers}]")).ok()
    }
}

#[derive(Deserialize)]
struct Credentials {
    #[serde(rename = "iceServers")]
    _servers: IceServers,
}

/// Both formats that the service has used. An unknown one would leave the client without any server.
#[derive(Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the form matters")]
enum IceServers {
    Newer(Vec<IceServer>),
    Older(IceServer),
}

#[derive(Deserialize)]
struct IceServer {
    #[serde(rename = "urls")]
    _urls: IgnoredAny,
}

impl TurnCredentials {
    /// Creates an empty cache for the TURN service of `upstream`.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        let kept = Cache::builder().max_capacity(IDENTITIES).time_to_live(KEPT).build();
        Self { upstream, kept, is_down: AtomicBool::new(false) }
    }

    /// Returns the ICE servers for `identity`, as the service's JSON text.
    ///
    /// Concurrent requests of one identity share one request to the service.
    ///
    /// # Errors
    /// [`NoCredentials`]; it is not cached, and the next call tries again.
    pub async fn ice_servers(&self, identity: &IdentityId) -> Result<Bytes, NoCredentials> {
        if !self.upstream.has_turn() {
            return Ok(Bytes::from_static(self.without_turn().as_bytes()));
        }
        self.kept.try_get_with_by_ref(identity, self.ask()).await.map_err(|error| *error)
    }

    /// Returns the ICE servers for `identity` as a JSON list, if TURN is configured and its service answers in time.
    pub async fn at_hand(&self, identity: &IdentityId, wait: Duration) -> Option<Box<RawValue>> {
        if !self.upstream.has_turn() {
            return None;
        }
        let servers = timeout(wait, self.ice_servers(identity)).await.ok()?.ok()?;
        list(&servers)
    }

    /// Like [`Self::at_hand`], and the servers for use without TURN if none is configured.
    pub async fn servers_at_hand(&self, identity: &IdentityId, wait: Duration) -> Option<Box<RawValue>> {
        if self.upstream.has_turn() {
            self.at_hand(identity, wait).await
        } else {
            list(self.without_turn().as_bytes())
        }
    }

    /// Returns the ICE servers for use without TURN credentials.
    ///
    /// The embedded media server needs none, since it advertises its addresses: a server on a laptop then
    /// contacts no outside host.
    pub fn without_turn(&self) -> &'static str {
        if self.upstream.embedded().is_some() { NO_SERVERS } else { STUN_ONLY }
    }

    async fn ask(&self) -> Result<Bytes, NoCredentials> {
        let asked = self.ask_service().await;
        let is_down = asked.is_err();
        if self.is_down.swap(is_down, Ordering::Relaxed) != is_down {
            match &asked {
                Ok(_) => info!(event = "turnBack", "the TURN service answers again"),
                Err(error) => warn!(
                    event = "turnDown",
                    %error,
                    "there are no TURN credentials; media work for those who need none"
                ),
            }
        }
        asked
    }

    async fn ask_service(&self) -> Result<Bytes, NoCredentials> {
        let answer = self.upstream.turn_credentials().await?;
        if !answer.status.is_success() {
            return Err(NoCredentials::Refused(answer.status));
        }
        let body = answer.body.collect().await.map_err(|_| UpstreamError::BadAnswer)?.to_bytes();
        match serde_json::from_slice::<Credentials>(&body) {
            Ok(_) => Ok(body),
            Err(_) => Err(UpstreamError::BadAnswer.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answer_formats_become_a_list() {
        for (answer, servers) in [
            (r#"{"iceServers":[{"urls":["a"]}]}"#, r#"[{"urls":["a"]}]"#),
            (r#"{"iceServers": {"urls":"a"}}"#, r#"[{"urls":"a"}]"#),
        ] {
            assert_eq!(list(answer.as_bytes()).unwrap().get(), servers);
        }
        assert!(list(b"{}").is_none());
    }
}
