//! An OpenID Connect issuer in this process, which checks what it is sent, and can be up to mischief.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::{Url, form_urlencoded};

/// This server's id and secret there; they need encoding.
pub const CLIENT: &str = "meet+1";
pub const SECRET: &str = "a/secret%of:the=client";

/// A fault or a peculiarity of the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    None,
    Rsa,
    SecretInBody,
    OtherNonce,
    NoNonce,
    OtherIssuer,
    OtherAudience,
    OtherParty,
    AlgNone,
    AlgOfSecret,
    OtherKey,
    Expired,
    NoToken,
    HugeAnswer,
    Failing,
    Down,
    ConfigurationOfOther,
    PlainEndpoint,
    Redirect,
}

/// A code that was given out.
struct Pending {
    challenge: String,
    nonce: String,
    redirect: String,
    claims: Value,
}

struct Inner {
    url: String,
    mischief: Mischief,
    pending: HashMap<String, Pending>,
    codes: usize,
    exchanges: usize,
    asked: usize,
    last_token: String,
    curve: EncodingKey,
    rsa: EncodingKey,
    foreign: EncodingKey,
}

pub struct Issuer {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
    _server: JoinSet<()>,
}

fn curve() -> EncodingKey {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    EncodingKey::from_ec_der(der.as_ref())
}

fn rsa() -> EncodingKey {
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let text = BASE64_STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()
}

/// The payload of the token in a cookie.
pub fn payload(cookie: &str) -> Value {
    let payload = cookie.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the server reads the same clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/realm", listener.local_addr().unwrap());
        let inner = Arc::new(Mutex::new(Inner {
            url: url.clone(),
            mischief: Mischief::None,
            pending: HashMap::new(),
            codes: 0,
            exchanges: 0,
            asked: 0,
            last_token: String::new(),
            curve: curve(),
            rsa: rsa(),
            foreign: curve(),
        }));
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", get(configuration))
            .route("/realm/keys", get(keys))
            .route("/realm/token", post(token))
            .route("/realm/authorize", get(authorize))
            .with_state(inner.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inner, _server: server }
    }

    pub fn is_up_to(&self, mischief: Mischief) {
        self.inner.lock().unwrap().mischief = mischief;
    }

    /// An account with these claims signs in at the address to which its browser was sent; returns the code.
    pub fn code(&self, location: &Url, claims: Value) -> String {
        let start = format!("{}?tenant=1&", authorization(&self.url));
        assert!(location.as_str().starts_with(&start), "{location}");
        let query = location.query_pairs().into_owned().collect();
        self.inner.lock().unwrap().code(&query, claims)
    }

    /// Number of codes that somebody tried to exchange.
    pub fn exchanges(&self) -> usize {
        self.inner.lock().unwrap().exchanges
    }

    /// Number of requests for the configuration.
    pub fn asked(&self) -> usize {
        self.inner.lock().unwrap().asked
    }

    pub fn last_code(&self) -> String {
        format!("the code {}", self.inner.lock().unwrap().codes)
    }

    pub fn last_token(&self) -> String {
        self.inner.lock().unwrap().last_token.clone()
    }
}

/// The address at which accounts sign in: of another site than this server, for a browser.
fn authorization(url: &str) -> String {
    format!("{}/authorize", url.replace("127.0.0.1", "localhost"))
}

impl Inner {
    fn code(&mut self, query: &HashMap<String, String>, claims: Value) -> String {
        self.codes += 1;
        let code = format!("the code {}", self.codes);
        let of = |name: &str| query[name].clone();
        let (challenge, nonce, redirect) = (of("code_challenge"), of("nonce"), of("redirect_uri"));
        self.pending.insert(code.clone(), Pending { challenge, nonce, redirect, claims });
        code
    }
}

/// Ada, who is signed in at the issuer, opens its page.
async fn authorize(
    State(inner): State<Arc<Mutex<Inner>>>,
    Query(query): Query<HashMap<String, String>>,
) -> Redirect {
    let code = inner.lock().unwrap().code(&query, json!({"sub": "ada", "name": "Ada"}));
    let mut back = Url::parse(&query["redirect_uri"]).unwrap();
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &query["state"]);
    Redirect::to(back.as_str())
}

async fn configuration(State(inner): State<Arc<Mutex<Inner>>>) -> Response {
    let mut inner = inner.lock().unwrap();
    inner.asked += 1;
    let url = &inner.url;
    let issuer = match inner.mischief {
        Mischief::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mischief::Redirect => return Redirect::temporary(&format!("{url}/elsewhere")).into_response(),
        Mischief::ConfigurationOfOther => "https://other.example".to_owned(),
        _ => url.clone(),
    };
    let token = match inner.mischief {
        Mischief::PlainEndpoint => "http://plain.example/token".to_owned(),
        _ => format!("{url}/token"),
    };
    let method = match inner.mischief {
        Mischief::SecretInBody => "client_secret_post",
        _ => "client_secret_basic",
    };
    Json(json!({
        "issuer": issuer, "authorization_endpoint": format!("{}?tenant=1", authorization(url)),
        "token_endpoint": token, "jwks_uri": format!("{url}/keys"),
        "token_endpoint_auth_methods_supported": [method],
    }))
    .into_response()
}

async fn keys(State(inner): State<Arc<Mutex<Inner>>>) -> Json<Value> {
    let inner = inner.lock().unwrap();
    let jwk = |kid: &str, key, algorithm| {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        jwk
    };
    let keys = [jwk("ec", &inner.curve, Algorithm::ES256), jwk("rsa", &inner.rsa, Algorithm::RS256)];
    Json(json!({"keys": keys}))
}

async fn token(State(inner): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut inner = inner.lock().unwrap();
    inner.exchanges += 1;
    let form: HashMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let basic = BASE64_STANDARD.encode(format!("{}:{}", encoded(CLIENT), encoded(SECRET)));
    let is_client = match inner.mischief {
        Mischief::SecretInBody => form["client_id"] == CLIENT && form["client_secret"] == SECRET,
        _ => headers.get("authorization").is_some_and(|given| *given == format!("Basic {basic}")),
    };
    assert!(is_client && form["grant_type"] == "authorization_code", "{headers:?} {form:?}");
    // RFC 6749 section 4.1.2: a code is used once. RFC 7636 section 4.6: by whoever asked for it.
    let Some(pending) = inner.pending.remove(&form["code"]) else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let verifier = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, form["code_verifier"].as_bytes()));
    if verifier != pending.challenge || form["redirect_uri"] != pending.redirect {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    }
    let id_token = id_token(&inner, &pending);
    inner.last_token.clone_from(&id_token);
    match inner.mischief {
        Mischief::Failing => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mischief::NoToken => Json(json!({"access_token": "x"})).into_response(),
        Mischief::HugeAnswer => Json(json!({"id_token": id_token, "x": "x".repeat(2 << 20)})).into_response(),
        _ => Json(json!({"id_token": id_token, "access_token": "x", "token_type": "Bearer"})).into_response(),
    }
}

fn id_token(inner: &Inner, pending: &Pending) -> String {
    let mut claims = pending.claims.clone();
    let standard = json!({
        "iss": inner.url, "aud": CLIENT, "nonce": pending.nonce, "iat": now(), "exp": now() + 300,
    });
    claims.as_object_mut().unwrap().extend(standard.as_object().unwrap().clone());
    let (mut kid, mut key, mut algorithm) = ("ec", &inner.curve, Algorithm::ES256);
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    match inner.mischief {
        Mischief::Rsa => (kid, key, algorithm) = ("rsa", &inner.rsa, Algorithm::RS256),
        Mischief::OtherNonce => claims["nonce"] = "another".into(),
        Mischief::NoNonce => drop(claims.as_object_mut().unwrap().remove("nonce")),
        Mischief::OtherIssuer => claims["iss"] = "https://other.example".into(),
        Mischief::OtherAudience => claims["aud"] = json!(["another"]),
        Mischief::OtherParty => {
            (claims["aud"], claims["azp"]) = (json!([CLIENT, "another"]), "another".into())
        }
        Mischief::AlgOfSecret => (key, algorithm) = (&secret, Algorithm::HS256),
        Mischief::OtherKey => key = &inner.foreign,
        Mischief::Expired => claims["exp"] = (now() - 61).into(),
        Mischief::AlgNone => {
            let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
            return format!("{}.{}.", part(json!({"alg": "none", "kid": "ec"})), part(claims));
        }
        _ => {}
    }
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims, key).unwrap()
}
