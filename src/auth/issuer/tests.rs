use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::super::Identity;
use super::super::access::tests::{CURVE, OTHER, TEAM, TeamServer, changed, jwk, jwks, sign};
use super::super::access_token::AccessTokens;
use super::super::jwks::MAX_KEYS_BYTES;
use super::super::revocation::Revocation;
use super::super::token::seconds;
use super::super::token::tests::today;
use super::*;
use crate::config::{AuthConfig, KeySource, Optional, TokenKey};

const SECRET: &str = "a-secret-of-thirty-two-characters";
const ISSUER: &str = "https://issuer.example/";

/// A key for EdDSA, and its public half.
static EDWARDS: LazyLock<(EncodingKey, Value)> = LazyLock::new(|| {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
    let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let public = json!({"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "use": "sig", "x": x});
    (EncodingKey::from_ed_der(der.as_ref()), public)
});

fn config(url: &str) -> TokenIssuer {
    TokenIssuer {
        id: "idp".into(),
        issuer: ISSUER.into(),
        jwks_url: Optional(Some(format!("{url}/cdn-cgi/access/certs").parse().unwrap())),
        jwks_file: Optional(None),
        audience: "meet".into(),
    }
}

/// Tokens of a key `app` and of the issuer, whose keys are fetched again after this time.
fn tokens(issuer: &TokenIssuer, at_least: Duration) -> AccessTokens {
    let keys = vec![TokenKey { id: "app".into(), secret: KeySource::Text(SECRET.into()) }];
    let tokens = AccessTokens::open(&AuthConfig { keys, ..AuthConfig::default() }).unwrap().unwrap();
    let pace = FetchInterval { at_least, ..FetchInterval::default() };
    tokens.with_issuer(Issuer::start_at(issuer, pace).unwrap())
}

fn eager(issuer: &TokenIssuer) -> AccessTokens {
    tokens(issuer, Duration::ZERO)
}

fn claims() -> Value {
    let now = seconds(today());
    json!({"iss": ISSUER, "aud": ["x", "meet"], "sub": "ada", "name": "Ada", "room": "team-*", "iat": now,
        "exp": now + 3600, "grants": {"moderate": true}})
}

async fn verify(tokens: &AccessTokens, token: &str) -> Result<Identity, TokenDefect> {
    tokens.verify(token.as_bytes(), today()).await
}

fn of_team(claims: &Value) -> String {
    sign("team", &TEAM, Algorithm::RS256, claims)
}

#[tokio::test]
async fn tokens_of_each_algorithm_name_their_user() {
    let server = TeamServer::start().await;
    let kid = |algorithm: Algorithm| format!("{algorithm:?}");
    let set = [(&*TEAM, Algorithm::RS256), (&*CURVE, Algorithm::ES256)];
    let mut published = set.map(|(key, algorithm)| jwk(&kid(algorithm), key, algorithm)).to_vec();
    published.push(EDWARDS.1.clone());
    server.set_keys(&published);
    let all = [set[0], set[1], (&EDWARDS.0, Algorithm::EdDSA)];
    let tokens = eager(&config(&server.url));
    for (key, algorithm) in all {
        let token = sign(&kid(algorithm), key, algorithm, &claims());
        let ada = verify(&tokens, &token).await.unwrap();
        assert_eq!((ada.id.as_str(), &*ada.name), ("token:idp:ada", "Ada"));
        assert!(ada.grants.moderate && ada.scope.to_string() == "team-*");
        // The right key with another one's id.
        let other = if algorithm == Algorithm::RS256 { Algorithm::ES256 } else { Algorithm::RS256 };
        let swapped = verify(&tokens, &sign(&kid(other), key, algorithm, &claims())).await;
        assert_eq!(swapped, Err(TokenDefect::Invalid));
    }
}

#[tokio::test]
async fn algorithm_of_the_token_never_counts() {
    let server = TeamServer::start().await;
    let tokens = eager(&config(&server.url));
    let good = of_team(&claims());
    assert!(verify(&tokens, &good).await.is_ok());
    // The public key as the secret of an HMAC, in the forms in which it is known.
    let public = jwk("team", &TEAM, Algorithm::RS256);
    let modulus = public["n"].as_str().unwrap();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(modulus).unwrap();
    for secret in [modulus.as_bytes(), &bytes, public.to_string().as_bytes()] {
        let secret = EncodingKey::from_secret(secret);
        let confused = sign("team", &secret, Algorithm::HS256, &claims());
        assert_eq!(verify(&tokens, &confused).await, Err(TokenDefect::Invalid));
    }
    let stronger = sign("team", &TEAM, Algorithm::RS512, &claims());
    assert_eq!(verify(&tokens, &stronger).await, Err(TokenDefect::Invalid));
    let foreign = sign("team", &OTHER, Algorithm::RS256, &claims());
    assert_eq!(verify(&tokens, &foreign).await, Err(TokenDefect::Signature));
    let payload = good.split('.').nth(1).unwrap();
    for header in
        [json!({"alg": "none", "kid": "team"}), json!({"alg": "RS256", "kid": "team", "crit": ["b64"]})]
    {
        let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        assert_eq!(verify(&tokens, &format!("{header}.{payload}.")).await, Err(TokenDefect::Malformed));
    }
    // A key of auth.keys does not sign for the issuer, nor the issuer's for that key.
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let of_key = sign("app", &secret, Algorithm::HS256, &claims());
    assert_eq!(verify(&tokens, &of_key).await, Err(TokenDefect::UnknownIssuerKey));
    let nobodys = changed(claims(), &json!({"iss": "https://other.example", "aud": "satsuma"}));
    assert_eq!(verify(&tokens, &of_team(&nobodys)).await, Err(TokenDefect::UnknownKey));
    assert!(verify(&tokens, &sign("app", &secret, Algorithm::HS256, &nobodys)).await.is_ok());
    // A key in the token itself.
    let mut header = Header::new(Algorithm::RS256);
    header.jwk = Some(jsonwebtoken::jwk::Jwk::from_encoding_key(&OTHER, Algorithm::RS256).unwrap());
    header.kid = Some("team".into());
    let own = jsonwebtoken::encode(&header, &claims(), &OTHER).unwrap();
    assert_eq!(verify(&tokens, &own).await, Err(TokenDefect::Signature));
}

#[tokio::test]
async fn claims_are_those_of_other_tokens_and_an_audience() {
    let server = TeamServer::start().await;
    let tokens = eager(&config(&server.url));
    let now = seconds(today());
    for (changes, defect) in [
        (json!({"aud": "satsuma"}), TokenDefect::Invalid),
        (json!({"aud": null}), TokenDefect::Invalid),
        (json!({"iss": "https://issuer.example"}), TokenDefect::UnknownKey),
        (json!({"room": null}), TokenDefect::Invalid),
        (json!({"exp": null}), TokenDefect::Invalid),
        (json!({"exp": now - 60}), TokenDefect::WrongTime),
        (json!({"exp": now + 100_000}), TokenDefect::TooLong(Duration::from_secs(24 * 60 * 60))),
        (json!({"nbf": now + 61}), TokenDefect::WrongTime),
        (json!({"sub": ""}), TokenDefect::Subject),
    ] {
        let token = of_team(&changed(claims(), &changes));
        assert_eq!(verify(&tokens, &token).await, Err(defect), "{changes}");
    }
    let revocation = Revocation { identity: None, key: Some("idp".into()), at: now };
    tokens.revocations().add(revocation, 0);
    assert_eq!(verify(&tokens, &of_team(&claims())).await, Err(TokenDefect::Revoked));
    assert!(tokens.has_key("idp"));
}

#[tokio::test]
async fn rotated_key_opens_and_the_old_one_no_longer() {
    let server = TeamServer::start().await;
    let tokens = eager(&config(&server.url));
    let new = sign("new", &OTHER, Algorithm::RS256, &claims());
    assert!(verify(&tokens, &of_team(&claims())).await.is_ok());
    assert_eq!(verify(&tokens, &new).await, Err(TokenDefect::UnknownIssuerKey));
    server.set_keys(&[jwk("new", &OTHER, Algorithm::RS256)]);
    assert!(verify(&tokens, &new).await.is_ok());
    assert_eq!(verify(&tokens, &of_team(&claims())).await, Err(TokenDefect::UnknownIssuerKey));
}

#[tokio::test]
async fn flood_of_unknown_keys_fetches_once() {
    let server = TeamServer::start().await;
    let tokens = tokens(&config(&server.url), FetchInterval::default().at_least);
    for number in 0..100 {
        let token = sign(&format!("forged-{number}"), &OTHER, Algorithm::RS256, &claims());
        assert_eq!(verify(&tokens, &token).await, Err(TokenDefect::UnknownIssuerKey));
    }
    assert_eq!(server.asked(), 1);
    assert!(verify(&tokens, &of_team(&claims())).await.is_ok(), "and the known ones stay");
}

#[tokio::test]
async fn endpoint_may_be_down_at_the_start_and_later() {
    let server = TeamServer::start().await;
    let good = server.answer.borrow().clone();
    server.answer.send_replace((StatusCode::BAD_GATEWAY, String::new()));
    let tokens = eager(&config(&server.url));
    let token = of_team(&claims());
    assert_eq!(verify(&tokens, &token).await, Err(TokenDefect::UnknownIssuerKey));
    server.answer.send_replace(good);
    assert!(verify(&tokens, &token).await.is_ok());
    let new = sign("new", &OTHER, Algorithm::RS256, &claims());
    let long = jwks(&[jwk("new", &OTHER, Algorithm::RS256)]) + &" ".repeat(MAX_KEYS_BYTES);
    for answer in [(StatusCode::BAD_GATEWAY, String::new()), (StatusCode::OK, long)] {
        server.answer.send_replace(answer);
        assert_eq!(verify(&tokens, &new).await, Err(TokenDefect::UnknownIssuerKey));
        assert!(verify(&tokens, &token).await.is_ok(), "with the keys of before");
    }
}

#[tokio::test]
async fn redirect_to_other_keys_is_refused() {
    let server = TeamServer::start().await;
    let target = format!("{}/cdn-cgi/access/certs", server.url);
    let redirect = async move || Redirect::temporary(&target);
    let router = Router::new().route("/cdn-cgi/access/certs", get(redirect));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut redirects = JoinSet::new();
    redirects.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let refused = verify(&eager(&config(&url)), &of_team(&claims())).await;
    assert_eq!((refused, server.asked()), (Err(TokenDefect::UnknownIssuerKey), 0));
}

#[tokio::test]
async fn published_private_key_signs_for_nobody() {
    let server = TeamServer::start().await;
    let mut private = jwk("team", &TEAM, Algorithm::RS256);
    private["d"] = "AQAB".into();
    let symmetric = json!({"kty": "oct", "kid": "oct", "k": "AAAA", "alg": "HS256"});
    server.set_keys(&[private, symmetric, jwk("new", &OTHER, Algorithm::RS256)]);
    let tokens = eager(&config(&server.url));
    assert_eq!(verify(&tokens, &of_team(&claims())).await, Err(TokenDefect::UnknownIssuerKey));
    let secret = EncodingKey::from_secret(&[0, 0, 0]);
    let signed = sign("oct", &secret, Algorithm::HS256, &claims());
    assert_eq!(verify(&tokens, &signed).await, Err(TokenDefect::UnknownIssuerKey));
    assert!(verify(&tokens, &sign("new", &OTHER, Algorithm::RS256, &claims())).await.is_ok());
}

#[tokio::test]
async fn file_with_keys_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    let file = Optional(Some(path.clone()));
    let issuer = TokenIssuer { jwks_url: Optional(None), jwks_file: file, ..config("http://localhost") };
    let tokens = eager(&issuer);
    assert_eq!(verify(&tokens, &of_team(&claims())).await, Err(TokenDefect::UnknownIssuerKey));
    std::fs::write(&path, jwks(&[jwk("team", &TEAM, Algorithm::RS256)])).unwrap();
    assert!(verify(&tokens, &of_team(&claims())).await.is_ok());
    std::fs::write(&path, " ".repeat(MAX_KEYS_BYTES + 1)).unwrap();
    let new = sign("new", &OTHER, Algorithm::RS256, &claims());
    assert_eq!(verify(&tokens, &new).await, Err(TokenDefect::UnknownIssuerKey));
    std::fs::write(&path, jwks(&[jwk("new", &OTHER, Algorithm::RS256)])).unwrap();
    assert!(verify(&tokens, &new).await.is_ok());
}
