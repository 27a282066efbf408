//! Calls of people on the node that has their session: made as far as the directory of media permits them.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http_body_util::BodyExt;
use serde::Deserialize;
use tracing::warn;

use super::api::{Action, CallTarget, Caller};
use super::call::{Answer, Call, CallerRights, UpstreamError};
use super::failure::CallFailure;
use super::passing::PassedCall;
use super::permission::{self, Permitted};
use super::upstream::{Place, Upstream, gone};
use crate::clock::now;
use crate::id::{Grants, IdentityId, SessionId};
use crate::media_access::MediaAccess;
use crate::metrics::Metrics;

/// Time between two lines of the log about the same thing.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The calls of people, with the directory that decides on subscriptions.
pub struct CheckedCalls {
    upstream: Arc<Upstream>,
    access: MediaAccess,
    metrics: Arc<Metrics>,
    warnings: DefaultDirectRateLimiter,
}

impl fmt::Debug for CheckedCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedCalls").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl CheckedCalls {
    /// The calls to `upstream`.
    pub fn new(upstream: Arc<Upstream>, access: MediaAccess, metrics: Arc<Metrics>) -> Self {
        let quota = Quota::with_period(LOG_PAUSE).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        Self { upstream, access, metrics, warnings: RateLimiter::direct(quota) }
    }

    /// The backend.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The directory.
    pub fn access(&self) -> &MediaAccess {
        &self.access
    }

    /// Makes a person's call, on the node of its session.
    ///
    /// # Errors
    /// [`CallFailure`] if the call is not permitted, or has no answer.
    pub(super) async fn call(&self, call: Call, rights: CallerRights) -> Result<Answer, CallFailure> {
        match self.upstream.place(&call).await {
            Place::Here => self.call_here(call, rights).await,
            Place::Node(node) => Ok(self.upstream.pass_on(node, PassedCall { call, rights }).await?),
            Place::Gone => Ok(gone(&call.target)),
        }
    }

    /// Makes a call on this node: that of a person as far as it is permitted.
    ///
    /// # Errors
    /// [`CallFailure`] if the call is not permitted, or has no answer.
    pub(super) async fn call_here(&self, call: Call, rights: CallerRights) -> Result<Answer, CallFailure> {
        let person = match (&call.caller, &call.target) {
            (Caller::Person(person), _) => IdentityId::new(person.as_str()),
            (Caller::Ai, CallTarget::Session { session, action: Action::NewTracks })
                if self.upstream.has_nodes() =>
            {
                // On a single node the room has checked it, which knows the sessions of its members.
                let may_hear = |track: &SessionId| self.access.agent_may_subscribe(session, track);
                let publish = Grants::everyone().publish;
                return match permission::check(&call.target, &call.body, publish, may_hear)? {
                    Permitted::Whole => Ok(self.upstream.call_here(call).await?),
                    Permitted::Partly(..) | Permitted::Nothing(_) => Err(CallFailure::NoSuchTrack),
                };
            }
            _ => return Ok(self.upstream.call_here(call).await?),
        };
        let elsewhere = Cell::new(0);
        let may_subscribe = |session: &SessionId| {
            if self.upstream.is_of_other_node(session) {
                elsewhere.set(elsewhere.get() + 1);
                return false;
            }
            rights.subscribe && self.access.may_subscribe(&person, session)
        };
        let checked = permission::check(&call.target, &call.body, rights.publish, may_subscribe);
        self.count_elsewhere(elsewhere.get());
        let (body, refused) = match checked? {
            Permitted::Whole => (call.body, Vec::new()),
            Permitted::Partly(body, refused) => (body, refused),
            Permitted::Nothing(refused) => {
                let headers =
                    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
                return Ok(Answer {
                    status: StatusCode::OK,
                    headers,
                    body: permission::refusal(refused).into(),
                });
            }
        };
        let opens = call.target == CallTarget::NewSession && self.access.checks();
        let mut answer = self.upstream.call_here(Call { body, ..call }).await?;
        let opened = opens && answer.status.is_success();
        if opened || !refused.is_empty() {
            let body = answer.body.collect().await.map_err(|_| UpstreamError::BadAnswer)?.to_bytes();
            if opened && let Some(session) = new_session(&body) {
                self.access.opened(now().into_std(), session, &person);
            }
            let merged = if refused.is_empty() { None } else { permission::merge(&body, refused) };
            answer.body = merged.map_or_else(|| body.into(), Into::into);
        }
        Ok(answer)
    }

    /// Counts tracks of sessions of other nodes, from which no media come to this one.
    fn count_elsewhere(&self, tracks: u64) {
        if tracks == 0 {
            return;
        }
        self.metrics.media_pulls_across_nodes.inc_by(tracks);
        if self.warnings.check().is_ok() {
            warn!(
                event = "mediaOfOtherNode",
                tracks,
                "a client asked for tracks of a session of another node, which do not come here: the sessions of a room are \
                 on one node only if clients name it (room=) when they open them"
            );
        }
    }
}

/// Parses the id of the new session in an answer.
pub(super) fn new_session(body: &[u8]) -> Option<SessionId> {
    #[derive(Deserialize)]
    struct New {
        #[serde(rename = "sessionId")]
        session: String,
    }
    SessionId::parse(&serde_json::from_slice::<New>(body).ok()?.session).ok()
}
