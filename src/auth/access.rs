//! Cloudflare Access: Cloudflare signs an assertion for every user that it admits.
//!
//! Source: Cloudflare's "Validate JWTs".

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName};
use jsonwebtoken::Validation;
use serde::Deserialize;
use tokio_util::task::AbortOnDropHandle;

use super::jwks::{FetchInterval, KeySet};
use super::token::seconds;
use super::{AuthMethod, Identity};
use crate::config::TeamDomain;

/// Header with the assertion.
pub const HEADER: HeaderName = HeaderName::from_static("cf-access-jwt-assertion");

/// Tolerated difference between Cloudflare's clock and the local one.
const LEEWAY: Duration = Duration::from_secs(60);
/// Name of the keys in the log.
const NAME: &str = "Access";

/// Settings of Cloudflare Access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSettings {
    /// The origin that serves the keys, which is also the issuer of assertions.
    pub team: TeamDomain,
    /// The application's AUD tag; assertions for another one are rejected.
    pub audience: String,
}

impl AccessSettings {
    /// Starts the task that owns the keys; it ends when the second value is dropped or aborted.
    ///
    /// # Errors
    /// Returns [`reqwest::Error`] if TLS cannot be set up, such as without any CA certificate.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(self) -> Result<(AccessHandle, AbortOnDropHandle<()>), reqwest::Error> {
        self.start_at(FetchInterval::default())
    }

    fn start_at(self, pace: FetchInterval) -> Result<(AccessHandle, AbortOnDropHandle<()>), reqwest::Error> {
        let url = format!("{}/cdn-cgi/access/certs", self.team.as_str());
        let (keys, task) = KeySet::of_url(NAME.into(), &url, self.team.is_loopback(), pace)?;
        Ok((self.handle(keys), task))
    }

    fn handle(self, keys: KeySet) -> AccessHandle {
        AccessHandle { issuer: self.team.as_str().into(), audience: self.audience.into(), keys }
    }
}

/// A cheaply cloned verifier of assertions.
#[derive(Clone, Debug)]
pub struct AccessHandle {
    issuer: Arc<str>,
    audience: Arc<str>,
    keys: KeySet,
}

/// Reasons for rejecting an assertion; for the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Denied {
    #[error("several assertions, or one that is not a JWT")]
    Malformed,
    #[error("unknown signing key")]
    UnknownKey,
    #[error("invalid signature, issuer or audience")]
    Invalid,
    #[error("the assertion is expired or not yet valid")]
    WrongTime,
    #[error("the assertion names no user")]
    Nameless,
}

#[derive(Deserialize)]
struct Assertion {
    exp: u64,
    nbf: Option<u64>,
    email: Option<String>,
    common_name: Option<String>,
    sub: Option<String>,
}

impl AccessHandle {
    /// Returns the identity in the request's only assertion, if valid.
    pub(super) async fn identify(&self, headers: &HeaderMap, now: SystemTime) -> Option<Identity> {
        let mut values = headers.get_all(&HEADER).iter();
        let only = values.next()?;
        let verified = match (only.to_str(), values.next()) {
            (Ok(token), None) => self.verify(token, now).await,
            _ => Err(Denied::Malformed),
        };
        verified.inspect_err(|why| tracing::debug!(%why, "an Access assertion was refused")).ok()
    }

    async fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, Denied> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Denied::Malformed)?;
        // RFC 7515 section 4.1.11: a critical extension, none of which is supported.
        if header.crit.is_some() {
            return Err(Denied::Malformed);
        }
        let kid = header.kid.ok_or(Denied::UnknownKey)?;
        let key = self.keys.key(&kid).await.ok_or(Denied::UnknownKey)?;

        // The key determines the algorithm, never the token.
        let mut rules = Validation::new(key.algorithm);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["iss", "aud", "exp"]);
        // The library would read the clock itself.
        rules.validate_exp = false;
        let assertion = jsonwebtoken::decode::<Assertion>(token, &key.public, &rules)
            .map_err(|_| Denied::Invalid)?
            .claims;

        let (now, leeway) = (seconds(now), LEEWAY.as_secs());
        let expired = now >= assertion.exp.saturating_add(leeway);
        let early = assertion.nbf.is_some_and(|nbf| nbf > now.saturating_add(leeway));
        if expired || early {
            return Err(Denied::WrongTime);
        }
        assertion.identity().ok_or(Denied::Nameless)
    }
}

impl Assertion {
    /// A person has an e-mail address, a service token a common name and an empty subject.
    fn identity(&self) -> Option<Identity> {
        let names = [&self.email, &self.common_name, &self.sub];
        let name = names.into_iter().flatten().map(|name| name.trim()).find(|n| !n.is_empty())?;
        Identity::external(AuthMethod::Access, name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::task::JoinSet;

    use super::super::jwks::{FetchError, MAX_KEYS_BYTES, parse_keys};
    use super::super::token::tests::today;
    use super::*;

    const AUDIENCE: &str = "the-application";

    fn settings(team: &str) -> AccessSettings {
        AccessSettings { team: team.parse().unwrap(), audience: AUDIENCE.to_owned() }
    }

    pub fn rsa_key() -> EncodingKey {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let text = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()
    }

    pub static TEAM: LazyLock<EncodingKey> = LazyLock::new(rsa_key);
    pub static OTHER: LazyLock<EncodingKey> = LazyLock::new(rsa_key);
    pub static CURVE: LazyLock<EncodingKey> = LazyLock::new(|| {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        EncodingKey::from_ec_der(der.as_ref())
    });

    pub fn jwk(kid: &str, key: &EncodingKey, algorithm: Algorithm) -> Value {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
        jwk.common.key_id = Some(kid.into());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        serde_json::to_value(jwk).unwrap()
    }

    pub fn jwks(keys: &[Value]) -> String {
        // Cloudflare's response contains the certificates, too.
        json!({"keys": keys, "public_cert": {"kid": "", "cert": ""}, "public_certs": []}).to_string()
    }

    pub fn sign(kid: &str, key: &EncodingKey, algorithm: Algorithm, claims: &Value) -> String {
        let header = Header { kid: Some(kid.into()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    }

    /// A fake of Cloudflare's key server for a team.
    pub struct TeamServer {
        pub url: String,
        pub answer: watch::Sender<(StatusCode, String)>,
        asked: Arc<AtomicUsize>,
        server: JoinSet<()>,
    }

    impl TeamServer {
        pub async fn start() -> Self {
            let body = jwks(&[jwk("team", &TEAM, Algorithm::RS256)]);
            let (answer, current) = watch::channel((StatusCode::OK, body));
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            let certs = async move || {
                count.fetch_add(1, Ordering::SeqCst);
                current.borrow().clone()
            };
            let router = Router::new().route("/cdn-cgi/access/certs", get(certs));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let mut server = JoinSet::new();
            server.spawn(async move { axum::serve(listener, router).await.unwrap() });
            Self { url, answer, asked, server }
        }

        pub fn access(&self) -> AccessSettings {
            settings(&self.url)
        }

        /// Starts a handle with no minimum time between requested fetches.
        fn eager(&self) -> (AccessHandle, AbortOnDropHandle<()>) {
            self.access()
                .start_at(FetchInterval { at_least: Duration::ZERO, ..FetchInterval::default() })
                .unwrap()
        }

        fn claims(&self) -> Value {
            let now = seconds(today());
            json!({
                "aud": [AUDIENCE], "iss": self.url, "sub": "7335d417-61da-459d-899c-0a01c76a2f94",
                "email": "Ann@Example.com", "type": "app", "country": "US",
                "iat": now, "nbf": now, "exp": now + 3600,
            })
        }

        pub fn assertion(&self, email: &str) -> String {
            let mut claims = self.claims();
            claims["email"] = email.into();
            sign("team", &TEAM, Algorithm::RS256, &claims)
        }

        pub fn set_keys(&self, keys: &[Value]) {
            self.answer.send_replace((StatusCode::OK, jwks(keys)));
        }

        pub fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn team_domain_is_https_or_on_loopback() {
        let rows = [
            ("https://team.cloudflareaccess.com", Some("https://team.cloudflareaccess.com")),
            (" https://Team.CloudflareAccess.com/ ", Some("https://team.cloudflareaccess.com")),
            ("https://team.example:8443", Some("https://team.example:8443")),
            ("http://127.0.0.1:9999", Some("http://127.0.0.1:9999")),
            ("http://[::1]:9999", Some("http://[::1]:9999")),
            ("http://localhost:9999", Some("http://localhost:9999")),
            ("http://team.cloudflareaccess.com", None),
            ("http://10.0.0.1", None),
            ("http://localhost.evil.example", None),
            ("ftp://127.0.0.1", None),
            ("team.cloudflareaccess.com", Some("https://team.cloudflareaccess.com")),
            ("https://team.cloudflareaccess.com/cdn-cgi", None),
            ("https://team.cloudflareaccess.com/?a", None),
            ("https://user@team.cloudflareaccess.com", None),
            ("", None),
        ];
        for (domain, expected) in rows {
            let team: Option<TeamDomain> = domain.parse().ok();
            assert_eq!(team.as_ref().map(TeamDomain::as_str), expected, "{domain}");
        }
    }

    #[tokio::test]
    async fn valid_assertion_names_a_person_or_a_service() {
        let team = TeamServer::start().await;
        let (access, _task) = team.access().start().unwrap();
        let rows = [
            (json!({}), "access:ann@example.com", "Ann@Example.com"),
            (json!({"aud": AUDIENCE}), "access:ann@example.com", "Ann@Example.com"),
            (json!({"aud": ["x", AUDIENCE]}), "access:ann@example.com", "Ann@Example.com"),
            (json!({"nbf": null}), "access:ann@example.com", "Ann@Example.com"),
            (json!({"email": null, "common_name": "e3.access", "sub": ""}), "access:e3.access", "e3.access"),
            (
                json!({"email": ""}),
                "access:7335d417-61da-459d-899c-0a01c76a2f94",
                "7335d417-61da-459d-899c-0a01c76a2f94",
            ),
        ];
        for (changes, id, name) in rows {
            let token = sign("team", &TEAM, Algorithm::RS256, &changed(team.claims(), &changes));
            let identity = access.verify(&token, today()).await.unwrap();
            assert_eq!((identity.id.as_str(), &*identity.name), (id, name));
        }
        assert_eq!(team.asked(), 1);
    }

    pub fn changed(mut claims: Value, changes: &Value) -> Value {
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    #[tokio::test]
    async fn wrong_claims_are_rejected() {
        let team = TeamServer::start().await;
        let (access, _task) = team.access().start().unwrap();
        let now = seconds(today());
        let long = format!("{}@example.com", "a".repeat(254));
        let rows = [
            (json!({"aud": ["another"]}), Denied::Invalid),
            (json!({"aud": []}), Denied::Invalid),
            (json!({"aud": null}), Denied::Invalid),
            (json!({"iss": "https://evil.cloudflareaccess.com"}), Denied::Invalid),
            (json!({"iss": format!("{}/", team.url)}), Denied::Invalid),
            (json!({"iss": null}), Denied::Invalid),
            (json!({"exp": null}), Denied::Invalid),
            (json!({"exp": "never"}), Denied::Invalid),
            (json!({"exp": now - 60}), Denied::WrongTime),
            (json!({"exp": 0}), Denied::WrongTime),
            (json!({"nbf": now + 61}), Denied::WrongTime),
            (json!({"nbf": u64::MAX}), Denied::WrongTime),
            (json!({"email": null, "sub": ""}), Denied::Nameless),
            (json!({"email": "a\u{0}b"}), Denied::Nameless),
            (json!({"email": long}), Denied::Nameless),
        ];
        for (changes, why) in rows {
            let token = sign("team", &TEAM, Algorithm::RS256, &changed(team.claims(), &changes));
            assert_eq!(access.verify(&token, today()).await, Err(why), "{changes}");
        }
        for changes in [json!({"exp": now - 59}), json!({"nbf": now + 60}), json!({"exp": u64::MAX})] {
            let token = sign("team", &TEAM, Algorithm::RS256, &changed(team.claims(), &changes));
            assert!(access.verify(&token, today()).await.is_ok(), "{changes}");
        }
    }

    #[tokio::test]
    async fn forged_assertion_is_rejected() {
        let team = TeamServer::start().await;
        let (access, _task) = team.access().start().unwrap();
        let claims = team.claims();
        let verify = async |token: &str| access.verify(token, today()).await;

        let good = team.assertion("ann@example.com");
        assert!(verify(&good).await.is_ok());
        let other_key = sign("team", &OTHER, Algorithm::RS256, &claims);
        assert_eq!(verify(&other_key).await, Err(Denied::Invalid));

        let parts: Vec<_> = good.split('.').collect();
        let eve = URL_SAFE_NO_PAD.encode(changed(claims.clone(), &json!({"email": "eve"})).to_string());
        let tampered = format!("{}.{eve}.{}", parts[0], parts[2]);
        assert_eq!(verify(&tampered).await, Err(Denied::Invalid));

        let unsigned = |header: Value, signature: &str| {
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            format!("{header}.{}.{signature}", parts[1])
        };
        for signature in ["", parts[2]] {
            let none = unsigned(json!({"alg": "none", "kid": "team"}), signature);
            assert_eq!(verify(&none).await, Err(Denied::Malformed));
        }
        let critical = unsigned(json!({"alg": "RS256", "kid": "team", "crit": ["b64"]}), parts[2]);
        assert_eq!(verify(&critical).await, Err(Denied::Malformed));

        // The public key as an HMAC secret, the classic algorithm confusion; and the right key with
        // another algorithm than its own.
        let modulus = jwk("team", &TEAM, Algorithm::RS256)["n"].as_str().unwrap().to_owned();
        let confused = EncodingKey::from_secret(modulus.as_bytes());
        let confused = sign("team", &confused, Algorithm::HS256, &claims);
        assert_eq!(verify(&confused).await, Err(Denied::Invalid));
        let stronger = sign("team", &TEAM, Algorithm::RS512, &claims);
        assert_eq!(verify(&stronger).await, Err(Denied::Invalid));

        let mut header = Header::new(Algorithm::RS256);
        // A key embedded in the token itself is not trusted.
        header.jwk = Some(Jwk::from_encoding_key(&OTHER, Algorithm::RS256).unwrap());
        let own_key = jsonwebtoken::encode(&header, &claims, &OTHER).unwrap();
        assert_eq!(verify(&own_key).await, Err(Denied::UnknownKey));
        header.kid = Some("team".into());
        let own_key = jsonwebtoken::encode(&header, &claims, &OTHER).unwrap();
        assert_eq!(verify(&own_key).await, Err(Denied::Invalid));
        for garbage in ["", "..", "a.b.c", "🍊"] {
            assert_eq!(verify(garbage).await, Err(Denied::Malformed), "{garbage}");
        }
    }

    #[tokio::test]
    async fn several_assertions_or_none_are_rejected() {
        let team = TeamServer::start().await;
        let (access, _task) = team.access().start().unwrap();
        let good = team.assertion("ann@example.com");
        let mut headers = HeaderMap::new();
        assert!(access.identify(&headers, today()).await.is_none());
        headers.append(HEADER, good.parse().unwrap());
        assert!(access.identify(&headers, today()).await.is_some());
        headers.append(HEADER, good.parse().unwrap());
        assert!(access.identify(&headers, today()).await.is_none());
        let bytes = axum::http::HeaderValue::from_bytes(b"\xff").unwrap();
        headers.insert(HEADER, bytes);
        assert!(access.identify(&headers, today()).await.is_none());
    }

    #[tokio::test]
    async fn es256_key_is_accepted() {
        let team = TeamServer::start().await;
        let (access, _task) = team.access().start().unwrap();
        team.set_keys(&[jwk("team", &TEAM, Algorithm::RS256), jwk("curve", &CURVE, Algorithm::ES256)]);
        let token = sign("curve", &CURVE, Algorithm::ES256, &team.claims());
        assert!(access.verify(&token, today()).await.is_ok());
        let swapped = sign("curve", &TEAM, Algorithm::RS256, &team.claims());
        assert_eq!(access.verify(&swapped, today()).await, Err(Denied::Invalid));
    }

    #[tokio::test]
    async fn rotated_key_is_fetched_on_first_use() {
        let team = TeamServer::start().await;
        let (access, _task) = team.eager();
        let old = team.assertion("ann@example.com");
        assert!(access.verify(&old, today()).await.is_ok());

        let new = sign("new", &OTHER, Algorithm::RS256, &team.claims());
        assert_eq!(access.verify(&new, today()).await, Err(Denied::UnknownKey));
        team.set_keys(&[jwk("new", &OTHER, Algorithm::RS256)]);
        assert!(access.verify(&new, today()).await.is_ok());
        assert_eq!(access.verify(&old, today()).await, Err(Denied::UnknownKey));
    }

    #[tokio::test]
    async fn failed_fetch_keeps_the_keys() {
        let mut team = TeamServer::start().await;
        let (access, _task) = team.eager();
        let good = team.assertion("ann@example.com");
        let unknown = sign("new", &OTHER, Algorithm::RS256, &team.claims());
        assert!(access.verify(&good, today()).await.is_ok());
        let mut asked = team.asked();
        let new = || jwk("new", &OTHER, Algorithm::RS256);
        for (status, body) in [
            (StatusCode::INTERNAL_SERVER_ERROR, jwks(&[jwk("new", &OTHER, Algorithm::RS256)])),
            (StatusCode::FOUND, String::new()),
            (StatusCode::OK, "<html>".into()),
            (StatusCode::OK, jwks(&[])),
            (StatusCode::OK, jwks(&[new()]) + &" ".repeat(MAX_KEYS_BYTES)),
        ] {
            team.answer.send_replace((status, body));
            assert_eq!(access.verify(&unknown, today()).await, Err(Denied::UnknownKey));
            assert!(access.verify(&good, today()).await.is_ok());
            asked += 1;
            assert_eq!(team.asked(), asked);
        }
        team.server.shutdown().await;
        assert_eq!(access.verify(&unknown, today()).await, Err(Denied::UnknownKey));
        assert!(access.verify(&good, today()).await.is_ok());
    }

    #[tokio::test]
    async fn known_keys_verify_after_the_task_ended() {
        let team = TeamServer::start().await;
        let (access, task) = team.access().start().unwrap();
        let good = team.assertion("ann@example.com");
        assert!(access.verify(&good, today()).await.is_ok());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(access.verify(&good, today()).await.is_ok());
        let unknown = sign("new", &OTHER, Algorithm::RS256, &team.claims());
        assert_eq!(access.verify(&unknown, today()).await, Err(Denied::UnknownKey));
    }

    /// Creates a handle with a fake fetch that counts calls, and fails from the second one on.
    fn counted() -> (AccessHandle, AbortOnDropHandle<()>, Arc<AtomicUsize>) {
        let body = jwks(&[jwk("team", &TEAM, Algorithm::RS256)]);
        let fetches = Arc::new(AtomicUsize::new(0));
        let count = fetches.clone();
        let fetch = move || {
            let earlier = count.fetch_add(1, Ordering::SeqCst);
            let keys = parse_keys(body.as_bytes());
            async move { if earlier == 0 { keys } else { Err(FetchError::NoKeys) } }
        };
        let (keys, task) = KeySet::start(NAME.into(), fetch, FetchInterval::default());
        (settings("https://team.example").handle(keys), task, fetches)
    }

    #[tokio::test(start_paused = true)]
    async fn forged_kids_cause_one_fetch_per_30_seconds() {
        let (access, _task, fetches) = counted();
        assert_eq!(fetches.load(Ordering::SeqCst), 0, "nobody has asked yet");
        for _ in 0..100 {
            assert!(access.keys.key("forged").await.is_none());
        }
        assert!(access.keys.key("team").await.is_some());
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert!(access.keys.key("forged").await.is_none());
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..100 {
            assert!(access.keys.key("forged").await.is_none());
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 2);
        assert!(access.keys.key("team").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_share_one_fetch() {
        let (access, _task, fetches) = counted();
        let mut tasks = JoinSet::new();
        for _ in 0..500 {
            let access = access.clone();
            tasks.spawn(async move { access.keys.key("team").await.is_some() });
        }
        assert!(tasks.join_all().await.into_iter().all(|found| found));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_hourly_or_retried_sooner() {
        let (access, _task, fetches) = counted();
        assert!(access.keys.key("team").await.is_some());
        // Paused time: the clock jumps to each timer, so the sleeps take no real time.
        for (seconds, expected) in [(3_599, 1), (2, 2), (28, 2), (2, 3), (30, 4)] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert_eq!(fetches.load(Ordering::SeqCst), expected);
        }
        assert!(access.keys.key("team").await.is_some());
    }

    #[test]
    fn unusable_keys_are_ignored() {
        let rsa = || jwk("a", &TEAM, Algorithm::RS256);
        let with = |name: &str, value: Value| changed(rsa(), &json!({ name: value }));
        let unusable = [
            json!({"kty": "oct", "kid": "a", "k": "AAAA", "alg": "HS256"}),
            json!({"kty": "OKP", "kid": "a", "crv": "Ed25519", "x": "AAAA"}),
            with("d", "AQAB".into()),
            json!({"kty": "EC", "kid": "a", "crv": "P-384", "x": "AAAA", "y": "AAAA"}),
            json!({"kty": "EC", "kid": "a", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"}),
            json!({"kty": "RSA", "kid": "a", "n": "not base64!", "e": "AQAB"}),
            json!({"kty": "new", "kid": "a"}),
            with("alg", "RS512".into()),
            with("alg", "ES256".into()),
            with("use", "enc".into()),
            with("kid", Value::Null),
            json!(7),
            Value::Null,
        ];
        for key in &unusable {
            let only = parse_keys(jwks(std::slice::from_ref(key)).as_bytes());
            assert!(matches!(only, Err(FetchError::NoKeys)), "{key}");
        }
        let mut all = unusable.to_vec();
        all.push(jwk("good", &TEAM, Algorithm::RS256));
        let keys = parse_keys(jwks(&all).as_bytes()).unwrap();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["good"]);
        assert!(parse_keys(jwks(&[with("alg", Value::Null)]).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_keys(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse_keys(&bytes).is_err());
        }

        #[test]
        fn arbitrary_tokens_are_rejected(token in "[ -~]{0,80}") {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let verified = runtime.unwrap().block_on(async {
                let (access, _task, _) = counted();
                access.verify(&token, today()).await
            });
            prop_assert!(verified.is_err());
        }
    }
}
