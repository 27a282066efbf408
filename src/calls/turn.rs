//! TURN credentials: asked for once, and kept for each identity for a part of their life.

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

/// How long credentials are given out again: whoever gets them last can still use them for three
/// quarters of their life, which is longer than a call.
const KEPT: Duration = Duration::from_secs(TURN_LIFETIME.as_secs() / 4);

/// How many identities' credentials are kept.
const IDENTITIES: u64 = 10_000;

/// No ICE servers.
const NO_SERVERS: &str = r#"{"iceServers":[]}"#;

/// The ICE servers for whoever has no TURN service.
///
/// Source: protocol section 9.
const STUN_ONLY: &str =
    r#"{"iceServers":[{"urls":["stun:stun.cloudflare.com:3478","stun:stun.cloudflare.com:53"]}]}"#;

/// The TURN credentials of each identity.
#[derive(Debug)]
pub struct TurnCredentials {
    upstream: Arc<Upstream>,
    kept: Cache<IdentityId, Bytes>,
    /// Whether the service failed at the last question, so that an outage is logged once.
    is_down: AtomicBool,
}

/// Why there are no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCredentials {
    /// The TURN service cannot be asked.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The TURN service refused.
    #[error("the TURN service answered {0}")]
    Refused(StatusCode),
}

/// The list in an answer; the service once gave its only server without one.
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

/// Both forms that the service has had. Anything else would leave the client without any server.
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
    /// Credentials of this TURN service; none are there yet.
    pub fn new(upstream: Arc<Upstream>) -> Self {
        let kept = Cache::builder().max_capacity(IDENTITIES).time_to_live(KEPT).build();
        Self { upstream, kept, is_down: AtomicBool::new(false) }
    }

    /// The ICE servers for `identity`, as a JSON text in the form in which the service gave them.
    ///
    /// Requests of one identity at the same time share one question to the service.
    ///
    /// # Errors
    /// [`NoCredentials`]; nothing is kept then, and the next request asks again.
    pub async fn ice_servers(&self, identity: &IdentityId) -> Result<Bytes, NoCredentials> {
        if !self.upstream.has_turn() {
            return Ok(Bytes::from_static(self.without_turn().as_bytes()));
        }
        self.kept.try_get_with_by_ref(identity, self.ask()).await.map_err(|error| *error)
    }

    /// The ICE servers for `identity` as a JSON list, where TURN is configured and its service
    /// answers in time.
    pub async fn at_hand(&self, identity: &IdentityId, wait: Duration) -> Option<Box<RawValue>> {
        if !self.upstream.has_turn() {
            return None;
        }
        let servers = timeout(wait, self.ice_servers(identity)).await.ok()?.ok()?;
        list(&servers)
    }

    /// The ICE servers where there is no TURN service, or it does not answer.
    ///
    /// The embedded media server tells its addresses, and clients find their own way to them: on a
    /// bare laptop nothing asks an outside server.
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
    fn both_forms_of_an_answer_are_a_list() {
        for (answer, servers) in [
            (r#"{"iceServers":[{"urls":["a"]}]}"#, r#"[{"urls":["a"]}]"#),
            (r#"{"iceServers": {"urls":"a"}}"#, r#"[{"urls":"a"}]"#),
        ] {
            assert_eq!(list(answer.as_bytes()).unwrap().get(), servers);
        }
        assert!(list(b"{}").is_none());
    }
}
