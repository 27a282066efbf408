//! HTTP to the authority, within limits on time and size.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::redirect::Policy;
use url::Url;

use super::schedule::{LONGEST_REQUESTED, requested_pause};
use crate::config::HttpUrl;
use crate::http::tls::wall_clock;

/// Maximum bytes of an answer; a chain of certificates has less than a tenth.
const MAX_BYTES: usize = 256 << 10;

/// Timeout of a request and its whole answer.
const TIMEOUT: Duration = Duration::from_secs(30);

const AGENT: &str = concat!("satsuma/", env!("CARGO_PKG_VERSION"));

/// The client of an authority. Clones share the connections and the requested pause.
#[derive(Clone, Debug)]
pub struct Transport {
    client: reqwest::Client,
    /// True if the directory is on this machine's loopback, and URLs may be plain http there.
    is_local: bool,
    /// Seconds of the pause that the authority last requested with an error.
    requested: Arc<AtomicU64>,
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the authority names {0}, which is not an https URL")]
    Insecure(String),
    #[error("{url} answered {status}")]
    Status { url: Url, status: StatusCode },
    #[error("{0} answered with more than {MAX_BYTES} bytes")]
    TooLong(Url),
}

impl Transport {
    /// Creates a client for the authority with this directory.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(directory: &HttpUrl) -> Result<Self, reqwest::Error> {
        Self::with_timeout(directory, TIMEOUT)
    }

    fn with_timeout(directory: &HttpUrl, timeout: Duration) -> Result<Self, reqwest::Error> {
        let is_local = directory.is_loopback();
        let mut client = reqwest::Client::builder().timeout(timeout).redirect(Policy::none());
        if is_local {
            // A proxy cannot reach this machine's loopback.
            client = client.no_proxy();
        }
        Ok(Self { client: client.build()?, is_local, requested: Arc::default() })
    }

    /// Takes the pause that the authority requested with its last error, if any.
    pub fn take_requested_pause(&self) -> Duration {
        Duration::from_secs(self.requested.swap(0, Ordering::Relaxed))
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, RequestError> {
        let (head, body) = request.into_parts();
        let url = self.allowed(&head.uri.to_string())?;
        let body = body.collect().await.map_or_else(|never| match never {}, |body| body.to_bytes());
        let mut headers = head.headers;
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let request = self.client.request(head.method, url.clone()).headers(headers).body(body);
        let mut response = request.send().await?;
        let status = response.status();
        let mut headers = response.headers().clone();
        let pause = limit_pause(&mut headers);
        let is_error = status.is_client_error() || status.is_server_error();
        if let Some(pause) = pause.filter(|_| is_error) {
            self.requested.store(pause.as_secs(), Ordering::Relaxed);
        }
        let is_problem = is_error && is_json(&headers);
        if !status.is_success() && !is_problem {
            return Err(RequestError::Status { url, status });
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(RequestError::TooLong(url));
            }
            body.extend_from_slice(&chunk);
        }
        let (mut parts, ()) = Response::new(()).into_parts();
        (parts.status, parts.headers) = (status, headers);
        Ok(BytesResponse { parts, body: Box::new(body.freeze()) })
    }

    /// Parses a URL, which may come from the authority.
    fn allowed(&self, url: &str) -> Result<Url, RequestError> {
        let parsed = Url::parse(url).ok();
        let is_loopback = || url.parse::<HttpUrl>().is_ok_and(|url| url.is_loopback());
        parsed
            .filter(|url| url.scheme() == "https" || (self.is_local && is_loopback()))
            .ok_or_else(|| RequestError::Insecure(url.to_owned()))
    }
}

/// Returns the requested pause, and limits it in the headers: the library adds it to the current time, which
/// must not overflow.
fn limit_pause(headers: &mut HeaderMap) -> Option<Duration> {
    let value = headers.remove(RETRY_AFTER)?;
    let pause = requested_pause(value.to_str().ok()?, wall_clock())?;
    headers.insert(RETRY_AFTER, pause.min(LONGEST_REQUESTED).as_secs().into());
    Some(pause)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.contains("json")
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let sending = self.clone().send(request);
        Box::pin(async move { sending.await.map_err(|error| Error::Other(Box::new(error))) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Sends a request to an authority that reads it, sends `answer` and keeps the connection open.
    async fn ask(answer: &'static str) -> (Transport, Result<BytesResponse, String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/directory", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(answer.as_bytes()).unwrap();
            // Until the client gives up.
            let _ = stream.read(&mut [0]);
        });
        let transport = Transport::with_timeout(&url.parse().unwrap(), Duration::from_millis(100)).unwrap();
        let request = Request::get(&url).body(BodyWrapper::default()).unwrap();
        let result = transport.clone().send(request).await.map_err(|error| error.to_string());
        (transport, result)
    }

    #[tokio::test]
    async fn silent_authority_times_out() {
        for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
            let (_, result) = ask(answer).await;
            assert!(result.is_err(), "{answer}");
        }
    }

    #[tokio::test]
    async fn only_errors_with_json_are_passed_on() {
        let (transport, result) =
            ask("HTTP/1.1 503 Busy\r\nretry-after: 99999999999999999999\r\ncontent-length: 0\r\n\r\n").await;
        assert!(result.is_err_and(|error| error.ends_with("/directory answered 503 Service Unavailable")));
        assert_eq!(transport.take_requested_pause(), LONGEST_REQUESTED);
        assert_eq!(transport.take_requested_pause(), Duration::ZERO, "it is taken once");
        let (transport, result) =
            ask("HTTP/1.1 429 Slow\r\ncontent-type: application/problem+json\r\nretry-after: 7\r\n\
             content-length: 2\r\n\r\n{}")
            .await;
        assert_eq!(result.ok().unwrap().parts.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(transport.take_requested_pause(), Duration::from_secs(7));
    }

    #[test]
    fn plain_http_is_for_a_local_authority_only() {
        let transport = |url: &str| Transport::new(&url.parse().unwrap()).unwrap();
        let (far, local) = (transport("https://ca.example/directory"), transport("http://localhost:1/dir"));
        for url in ["https://ca.example/order", "https://other.example/order"] {
            assert!(far.allowed(url).is_ok() && local.allowed(url).is_ok(), "{url}");
        }
        for url in
            ["http://ca.example/order", "http://127.0.0.1.ca.example/", "ftp://127.0.0.1/", "order", ""]
        {
            assert!(far.allowed(url).is_err() && local.allowed(url).is_err(), "{url}");
        }
        let url = "http://127.0.0.1:1/order";
        assert!(far.allowed(url).is_err() && local.allowed(url).is_ok());
    }
}
