//! A remote media API over HTTPS: Cloudflare's, or another compatible server's.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderValue, Method};
use http_body_util::Limited;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use tracing::{debug, info, warn};

use super::call::{Answer, Call, UpstreamError};
use super::circuit::Circuit;
use crate::clock::now;
use crate::config::{Calls, TurnConfig};

/// Interval of HTTP/2 pings, which detect half-open connections.
const PING: Duration = Duration::from_secs(10);

/// Timeout of a ping's answer.
const PONG: Duration = Duration::from_secs(5);

/// Lifetime of TURN credentials, as requested by the reference implementation.
pub const TURN_LIFETIME: Duration = Duration::from_secs(86_400);

/// Timeout of requesting TURN credentials. A page requests them before all else, and works without them.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);

/// A remote media API.
#[derive(Debug)]
pub struct Remote {
    client: Client,
    base: String,
    app: Result<RemoteApp, &'static str>,
    turn: Option<TurnKey>,
    timeout: Duration,
    body_bytes: usize,
    circuit: Circuit,
    /// Separate from `circuit`: an outage of TURN alone must not fail calls.
    turn_circuit: Circuit,
}

#[derive(Debug)]
struct RemoteApp {
    id: String,
    secret: HeaderValue,
}

#[derive(Debug)]
struct TurnKey {
    id: String,
    token: HeaderValue,
}

impl Remote {
    /// Creates a client for bodies of at most `body_bytes`, without connecting.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(calls: &Calls, turn: &TurnConfig, body_bytes: usize) -> Result<Self, reqwest::Error> {
        let mut client = Client::builder()
            .connect_timeout(calls.connect_timeout)
            // A redirect could leak the secret to another host.
            .redirect(Policy::none())
            // Retries are decided below.
            .retry(reqwest::retry::never())
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PONG)
            .http2_keep_alive_while_idle(true);
        if calls.api_url.is_loopback() {
            // A proxy cannot reach this machine's loopback.
            client = client.no_proxy();
        }
        Ok(Self::with_client(client.build()?, calls, turn, body_bytes))
    }

    fn with_client(client: Client, calls: &Calls, turn: &TurnConfig, body_bytes: usize) -> Self {
        let app = match (calls.app_id.as_deref(), calls.app_secret.as_ref().and_then(bearer)) {
            (Some(id), Some(secret)) => Ok(RemoteApp { id: id.to_owned(), secret }),
            (None, None) => Err("CALLS_APP_ID and CALLS_APP_SECRET are not set"),
            (None, Some(_)) => Err("CALLS_APP_ID is not set"),
            (Some(_), None) => Err("CALLS_APP_SECRET is not set, or is no header's text"),
        };
        let turn = turn.service_id.as_deref().zip(turn.service_token.as_ref().and_then(bearer));
        Self {
            client,
            base: calls.api_url.as_str().trim_end_matches('/').to_owned(),
            app,
            turn: turn.map(|(id, token)| TurnKey { id: id.to_owned(), token }),
            timeout: calls.timeout,
            body_bytes,
            circuit: Circuit::new(now().into_std()),
            turn_circuit: Circuit::new(now().into_std()),
        }
    }

    /// Returns an error naming the missing settings, if calls cannot be made.
    pub fn missing(&self) -> Option<&'static str> {
        self.app.as_ref().err().copied()
    }

    /// True if a TURN service is configured.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Makes a call, and returns once the headers of its answer arrived.
    ///
    /// A call that was provably not sent is retried once; no other is.
    ///
    /// # Errors
    /// [`UpstreamError`]; an answer of any status except a redirect is not an error.
    pub async fn call(&self, call: Call) -> Result<Answer, UpstreamError> {
        let Call { target, query, body, .. } = call;
        let app = self.app.as_ref().map_err(|missing| UpstreamError::NotConfigured(missing))?;
        let mut url = format!("{}/apps/{}/{target}", self.base, app.id);
        if let Some(query) = query {
            url.push('?');
            url.push_str(&query);
        }
        self.send(&self.circuit, target.method(), &url, &app.secret, body, self.timeout).await
    }

    /// Requests new TURN credentials; the service's answer is returned unparsed.
    ///
    /// # Errors
    /// As [`Self::call`]; [`UpstreamError::NotConfigured`] where [`Self::has_turn`] is false.
    pub async fn turn_credentials(&self) -> Result<Answer, UpstreamError> {
        let Some(turn) = &self.turn else {
            return Err(UpstreamError::NotConfigured("TURN_SERVICE_ID or TURN_SERVICE_TOKEN is not set"));
        };
        let url = format!("{}/turn/keys/{}/credentials/generate-ice-servers", self.base, turn.id);
        let body = format!(r#"{{"ttl":{}}}"#, TURN_LIFETIME.as_secs()).into();
        self.send(&self.turn_circuit, Method::POST, &url, &turn.token, body, TURN_TIMEOUT.min(self.timeout))
            .await
    }

    async fn send(
        &self,
        circuit: &Circuit,
        method: Method,
        url: &str,
        token: &HeaderValue,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, UpstreamError> {
        // The base is a validated URL; the rest are ids, constant words, and a query taken from a URL.
        let url = Url::parse(url).map_err(|_| UpstreamError::BadAnswer)?;
        let deadline = now() + timeout;
        circuit.check(now().into_std()).map_err(|_| UpstreamError::CircuitOpen)?;
        for tries_left in [1, 0] {
            let mut request = self.client.request(method.clone(), url.clone());
            request = request.timeout(deadline.saturating_duration_since(now()));
            request = request.header(AUTHORIZATION, token).header(USER_AGENT, AGENT);
            if !body.is_empty() {
                request = request.header(CONTENT_TYPE, JSON).body(body.clone());
            } else if method != Method::GET {
                request = request.header(CONTENT_LENGTH, 0);
            }
            let error = match request.send().await {
                Ok(response) => {
                    circuit.succeeded();
                    return self.answer(response);
                }
                Err(error) => error.without_url(),
            };
            let failure =
                if error.is_timeout() { UpstreamError::TimedOut } else { UpstreamError::Unreachable };
            let cause = causes(&error);
            debug!(event = "mediaApiFailed", error = cause, tries_left);
            if error.is_connect() && tries_left > 0 {
                continue;
            }
            if circuit.failed(now().into_std()) {
                warn!(
                    event = "mediaApiDown",
                    url = self.base,
                    error = cause,
                    "calls fail at once until it answers again"
                );
            }
            return Err(failure);
        }
        Err(UpstreamError::Unreachable)
    }

    fn answer(&self, response: reqwest::Response) -> Result<Answer, UpstreamError> {
        let status = response.status();
        let declared = response.content_length().and_then(|length| usize::try_from(length).ok());
        if status.is_redirection() || declared.is_some_and(|length| length > self.body_bytes) {
            info!(event = "mediaApiAnswerRefused", %status, bytes = declared);
            return Err(UpstreamError::BadAnswer);
        }
        let (mut head, body) = axum::http::Response::from(response).into_parts();
        let wanted = [CONTENT_TYPE, RETRY_AFTER];
        let headers = wanted.into_iter().filter_map(|name| Some((name.clone(), head.headers.remove(name)?)));
        let headers = headers.collect();
        Ok(Answer { status, headers, body: Body::new(Limited::new(body, self.body_bytes)) })
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const AGENT: &str = concat!("satsuma/", env!("CARGO_PKG_VERSION"));

/// Returns `Bearer {token}` if the token is valid in a header.
fn bearer(token: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Formats an error with its causes: the outermost says only that sending failed.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt;
    use tokio::net::TcpListener;
    use tower::util::MapFutureLayer;

    use super::*;
    use crate::config::Optional;
    use crate::media_api::api::{CallTarget, Caller};

    /// Starts a media API that echoes, and returns a client whose first `failures` connections fail.
    async fn echo_behind(failures: usize) -> (Remote, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let echo = axum::Router::new().fallback(async |body: Bytes| body);
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
        tokio::spawn(async move { axum::serve(listener, echo).await });

        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let failing = MapFutureLayer::new(move |connecting| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move { if number < failures { Err("no way".into()) } else { connecting.await } }
        });
        let client = Client::builder().no_proxy().connector_layer(failing);
        let calls = Calls {
            app_id: Optional(Some("app".to_owned())),
            app_secret: Optional(Some("secret".into())),
            api_url: base.parse().unwrap(),
            ..Calls::default()
        };
        let client = client.build().unwrap();
        (Remote::with_client(client, &calls, &TurnConfig::default(), 1000), tries)
    }

    fn call() -> Call {
        let (caller, body) = (Caller::Ai, Bytes::from_static(b"{}"));
        Call { target: CallTarget::NewSession, caller, network: None, query: None, body }
    }

    #[tokio::test]
    async fn unsent_call_is_retried_with_its_body() {
        let (upstream, tries) = echo_behind(1).await;
        let answer = upstream.call(call()).await.unwrap();
        assert_eq!(answer.body.collect().await.unwrap().to_bytes(), "{}");
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn unsent_call_is_retried_only_once() {
        let (upstream, tries) = echo_behind(2).await;
        assert_eq!(upstream.call(call()).await.unwrap_err(), UpstreamError::Unreachable);
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }
}
