//! Access tokens of issuers with public keys, through the real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use satsuma::config::{AccessLevel, AuthConfig, Config, Optional, TokenIssuer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access_tokens::{auth, token};
use crate::client::Ask;
use crate::harness::{TestServer, answer};

/// A login that publishes its keys.
struct Login {
    url: String,
    answer: watch::Sender<(StatusCode, String)>,
    asked: Arc<AtomicUsize>,
    _server: JoinSet<()>,
}

impl Login {
    async fn start() -> Self {
        let (answer, current) = watch::channel((StatusCode::OK, String::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let keys = async move || {
            count.fetch_add(1, Ordering::SeqCst);
            current.borrow().clone()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        let router = Router::new().route("/keys", get(keys));
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, answer, asked, _server: server }
    }

    fn publish(&self, kid: &str, key: &EncodingKey) {
        let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(kid.to_owned());
        self.answer.send_replace((StatusCode::OK, json!({"keys": [jwk]}).to_string()));
    }

    fn configure(&self, config: &mut Config) {
        let issuer = TokenIssuer {
            id: "idp".into(),
            issuer: "https://login.example".into(),
            jwks_url: Optional(Some(self.url.parse().unwrap())),
            jwks_file: Optional(None),
            audience: "meet".into(),
        };
        config.auth = AuthConfig { issuers: vec![issuer], rooms: AccessLevel::Token, ..auth() };
    }
}

fn key() -> EncodingKey {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    EncodingKey::from_ec_der(der.as_ref())
}

#[expect(clippy::disallowed_methods, reason = "the server reads the same clock")]
fn claims(room: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({"iss": "https://login.example", "aud": "meet", "sub": "ada", "name": "Ada", "room": room,
        "iat": now, "exp": now + 3600})
}

fn sign(kid: &str, key: &EncodingKey, algorithm: Algorithm, claims: &Value) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

async fn user(server: &TestServer, token: &str) -> u16 {
    answer(server.get("/api/user").bearer_auth(token)).await.status
}

#[tokio::test]
async fn token_of_an_issuer_opens_its_rooms_alone() {
    let (login, ecdsa) = (Login::start().await, key());
    login.publish("1", &ecdsa);
    let server = TestServer::with(|config| login.configure(config)).await;
    let ada = sign("1", &ecdsa, Algorithm::ES256, &claims("team-*"));
    let bearer = |room, token: &str| Ask::room(room).header("authorization", &format!("Bearer {token}"));
    let mut orange = bearer("team-a", &ada).pk("a").open(&server).await;
    let state = orange.until_users(&["a"]).await;
    assert_eq!(
        (&state["users"][0]["name"], &state["users"][0]["authMethod"]),
        (&json!("Ada"), &json!("token"))
    );
    assert_eq!(bearer("other", &ada).try_open(&server).await.err(), Some(403));
    Ask::path(&format!("/socket/websocket?vsn=2.0.0&token={ada}")).open(&server).await;
    let page = answer(server.get(&format!("/team-a?token={ada}")).header("accept", "text/html")).await;
    assert_eq!((page.status, page.header("location")), (302, "/team-a"));
    // A token of a key, which the same server takes as well.
    assert_eq!(user(&server, &token("Bob", "*")).await, 200);

    let revoked = server.admin_post("/admin/tokens/revoke", &json!({"key": "idp"})).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(orange.closed().await.0, 4401);
    assert_eq!(user(&server, &ada).await, 401);
}

#[tokio::test]
async fn forged_tokens_of_an_issuer_are_refused() {
    let (login, ecdsa) = (Login::start().await, key());
    login.publish("1", &ecdsa);
    let server = TestServer::with(|config| login.configure(config)).await;
    assert_eq!(user(&server, &sign("1", &ecdsa, Algorithm::ES256, &claims("*"))).await, 200);
    let public = Jwk::from_encoding_key(&ecdsa, Algorithm::ES256).unwrap();
    let secret = EncodingKey::from_secret(serde_json::to_string(&public).unwrap().as_bytes());
    assert_eq!(user(&server, &sign("1", &secret, Algorithm::HS256, &claims("*"))).await, 401, "confusion");
    assert_eq!(user(&server, &sign("1", &key(), Algorithm::ES256, &claims("*"))).await, 401);
    for number in 0..50 {
        let forged = sign(&format!("forged-{number}"), &key(), Algorithm::ES256, &claims("*"));
        assert_eq!(user(&server, &forged).await, 401);
    }
    assert_eq!(login.asked.load(Ordering::SeqCst), 1, "their ids cause no fetch each");
}

#[tokio::test]
async fn server_starts_while_the_issuer_is_down() {
    let login = Login::start().await;
    login.answer.send_replace((StatusCode::SERVICE_UNAVAILABLE, String::new()));
    let server = TestServer::with(|config| login.configure(config)).await;
    assert_eq!(user(&server, &sign("1", &key(), Algorithm::ES256, &claims("*"))).await, 401);
    assert_eq!(user(&server, &token("Bob", "*")).await, 200);
    // A server that signs nothing itself says so.
    let server = TestServer::with(|config| {
        login.configure(config);
        config.auth.keys.clear();
    })
    .await;
    let made = server.admin_post("/admin/tokens", &json!({"room": "r", "name": "Ada"})).await;
    assert_eq!(made.status, 400);
    assert!(made.json()["error"].as_str().unwrap().contains("no key in auth.keys"), "{made:?}");
}
