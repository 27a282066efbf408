use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::super::revocation::Revocation;
use super::super::token::tests::today;
use super::*;
use crate::config::KeySource;
use crate::id::RoomName;

const SECRET: &str = "a-secret-of-thirty-two-characters";
const HOUR: u64 = 3600;

fn tokens() -> AccessTokens {
    let key = |id: &str, secret: &str| TokenKey { id: id.into(), secret: KeySource::Text(secret.into()) };
    let keys = vec![key("a", SECRET), key("b", &SECRET.to_uppercase())];
    AccessTokens::open(&AuthConfig { keys, ..AuthConfig::default() }).unwrap().unwrap()
}

fn now() -> u64 {
    seconds(today())
}

/// A token as another program makes it.
fn foreign(header: Value, claims: Value, secret: &str) -> String {
    let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT", "kid": "a"})
}

fn claims(more: Value) -> Value {
    let mut claims = json!({"sub": "ada", "room": "standup", "exp": now() + HOUR});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

/// Verifies a token of a key, which waits for nothing.
fn verified(tokens: &AccessTokens, token: &str) -> Result<Identity, TokenDefect> {
    tokens.verify(token.as_bytes(), today()).now_or_never().expect("keys are in memory")
}

fn verify(token: &str) -> Result<Identity, TokenDefect> {
    verified(&tokens(), token)
}

#[test]
fn token_names_its_user_rooms_and_grants() {
    let token = foreign(header(), claims(json!({"name": " Ada ", "unknown": [1]})), SECRET);
    let ada = verify(&token).unwrap();
    assert_eq!((ada.id.as_str(), &*ada.name), ("token:a:ada", "Ada"));
    assert_eq!(ada.id.auth_method(), AuthMethod::Token);
    let enters = |name: &str| ada.may_enter(&RoomName::parse(name).unwrap());
    assert!(enters("standup") && !enters("standup2"));
    assert_eq!(ada.grants, Grants { create: false, moderate: false, ..Grants::everyone() });

    let grants = json!({"moderate": true, "publish": ["audio"], "chat": false, "fly": true});
    let grants = verify(&foreign(header(), claims(json!({"grants": grants})), SECRET)).unwrap().grants;
    let publish = PublishGrants { audio: true, ..PublishGrants::default() };
    let expected = Grants { create: false, chat: false, publish, ..Grants::everyone() };
    assert_eq!(grants, expected);
    let none = json!({"grants": {"publish": false, "join": false}});
    let none = verify(&foreign(header(), claims(none), SECRET)).unwrap();
    assert!(
        none.grants.publish == PublishGrants::default()
            && !none.may_enter(&RoomName::parse("standup").unwrap())
    );
    // The same subject of another key is somebody else.
    let other = foreign(json!({"alg": "HS256", "kid": "b"}), claims(json!({})), &SECRET.to_uppercase());
    assert_eq!(verify(&other).unwrap().id.as_str(), "token:b:ada");
}

#[test]
fn forged_token_is_refused() {
    let good = foreign(header(), claims(json!({})), SECRET);
    assert!(verify(&good).is_ok());
    let unsigned = |alg: &str| {
        let header = json!({"alg": alg, "typ": "JWT", "kid": "a"});
        let token = foreign(header, claims(json!({})), SECRET);
        token.rsplit_once('.').unwrap().0.to_owned() + "."
    };
    let with = |header: Value| foreign(header, claims(json!({})), SECRET);
    for (token, defect) in [
        (unsigned("none"), TokenDefect::Malformed),
        (unsigned("HS256"), TokenDefect::Signature),
        (with(json!({"alg": "RS256", "kid": "a"})), TokenDefect::Invalid),
        (with(json!({"alg": "HS512", "kid": "a"})), TokenDefect::Invalid),
        (with(json!({"alg": "HS256", "kid": "b"})), TokenDefect::Signature),
        (with(json!({"alg": "HS256", "kid": "c"})), TokenDefect::UnknownKey),
        (with(json!({"alg": "HS256"})), TokenDefect::UnknownKey),
        (with(json!({"alg": "HS256", "kid": "a", "crit": ["x"], "x": 1})), TokenDefect::Malformed),
        (foreign(header(), claims(json!({})), "another-secret-of-thirty-two-chars"), TokenDefect::Signature),
        (foreign(header(), claims(json!({"aud": "somebody else"})), SECRET), TokenDefect::Invalid),
        (good[1..].to_owned(), TokenDefect::Malformed),
        (String::new(), TokenDefect::Malformed),
    ] {
        assert_eq!(verify(&token), Err(defect), "{token}");
    }
    assert!(verify(&foreign(header(), claims(json!({"aud": ["satsuma", "x"]})), SECRET)).is_ok());
}

#[test]
fn claims_are_checked() {
    for (more, defect) in [
        (json!({"exp": now() - LEEWAY}), TokenDefect::WrongTime),
        (json!({"nbf": now() + LEEWAY + 1}), TokenDefect::WrongTime),
        (
            json!({"exp": now() + 24 * HOUR + LEEWAY + 1}),
            TokenDefect::TooLong(Duration::from_secs(24 * HOUR)),
        ),
        (
            json!({"iat": now() - HOUR, "exp": now() + 23 * HOUR + LEEWAY + 1}),
            TokenDefect::TooLong(Duration::from_secs(24 * HOUR)),
        ),
        (
            json!({"iat": now() + 48 * HOUR, "exp": now() + 72 * HOUR}),
            TokenDefect::TooLong(Duration::from_secs(24 * HOUR)),
        ),
        (json!({"exp": "soon"}), TokenDefect::Invalid),
        (json!({"sub": ""}), TokenDefect::Subject),
        (json!({"sub": "x".repeat(129)}), TokenDefect::Subject),
        (json!({"sub": "a\u{202e}"}), TokenDefect::Subject),
        (json!({"sub": 5}), TokenDefect::Invalid),
        (json!({"name": " "}), TokenDefect::Name),
        (json!({"name": "x".repeat(65)}), TokenDefect::Name),
        (json!({"room": ""}), TokenDefect::Room),
        (json!({"room": null}), TokenDefect::Invalid),
        (json!({"grants": {"publish": ["smell"]}}), TokenDefect::Invalid),
        (json!({"grants": {"moderate": "yes"}}), TokenDefect::Invalid),
    ] {
        assert_eq!(verify(&foreign(header(), claims(more.clone()), SECRET)), Err(defect), "{more}");
    }
    let mut roomless = claims(json!({}));
    roomless.as_object_mut().unwrap().remove("room");
    assert_eq!(verify(&foreign(header(), roomless, SECRET)), Err(TokenDefect::Invalid));
    for more in [json!({"exp": now() - LEEWAY + 1}), json!({"iat": now() - 23 * HOUR}), json!({"room": "*"})]
    {
        assert!(verify(&foreign(header(), claims(more.clone()), SECRET)).is_ok(), "{more}");
    }
}

#[test]
fn own_token_is_what_others_make() {
    let tokens = tokens();
    let claims = AccessClaims {
        sub: "ada".into(),
        name: Some("Ada".into()),
        room: "team-*".into(),
        grants: TokenGrants { moderate: true, ..TokenGrants::default() },
        iat: Some(now()),
        nbf: None,
        exp: now() + HOUR,
    };
    let token = tokens.sign(&claims, today()).unwrap();
    let ada = verified(&tokens, &token).unwrap();
    assert!(ada.grants.moderate && ada.scope.to_string() == "team-*");
    let lease =
        TokenLease { key: "a".into(), subject: "ada".into(), issued: Some(now()), expiry: now() + HOUR };
    assert_eq!(ada.lease.as_deref(), Some(&lease));
    let long = AccessClaims { exp: now() + 25 * HOUR, ..claims };
    assert_eq!(tokens.sign(&long, today()), Err(TokenDefect::TooLong(Duration::from_secs(24 * HOUR))));
}

#[test]
fn revoked_token_is_refused_whatever_its_time_of_issue() {
    let tokens = tokens();
    let at = now() - 5;
    tokens.revocations().add(Revocation { identity: Some("caf\u{e9}".into()), key: None, at }, 0);
    for (issued, is_revoked) in [
        (json!({}), true),
        (json!({"iat": now() - 10}), true),
        (json!({"iat": at}), true),
        (json!({"iat": at + 1}), false),
        (json!({"iat": now()}), false),
        // Of a clock that is ahead, or that counts milliseconds: it may be from before.
        (json!({"iat": now() + 1}), true),
        (json!({"iat": now() * 1000}), true),
    ] {
        for sub in ["caf\u{e9}", "cafe\u{301}"] {
            let mut claims = claims(json!({"sub": sub}));
            claims.as_object_mut().unwrap().extend(issued.as_object().unwrap().clone());
            let verified = verified(&tokens, &foreign(header(), claims, SECRET));
            assert_eq!(verified.err(), is_revoked.then_some(TokenDefect::Revoked), "{issued} {sub}");
        }
    }
    assert!(verified(&tokens, &foreign(header(), claims(json!({})), SECRET)).is_ok());
}

#[test]
fn token_is_presented_in_a_header_once() {
    let headers = |lines: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    };
    for (lines, token) in [
        (&[][..], None),
        (&[("authorization", "Bearer a.b.c")], Some("a.b.c")),
        (&[("authorization", "bearer  a.b.c ")], Some("a.b.c")),
        (&[("authorization", "Basic a.b.c")], None),
        (&[("sec-websocket-protocol", "satsuma, satsuma.token.a.b.c")], Some("a.b.c")),
        (&[("authorization", "Bearer a"), ("sec-websocket-protocol", "satsuma.token.b")], Some("")),
        (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], Some("")),
    ] {
        let presented = AccessTokens::presented(&headers(lines)).map(<[u8]>::to_vec);
        assert_eq!(presented.as_deref(), token.map(str::as_bytes), "{lines:?}");
    }
    let cookies =
        headers(&[("cookie", "x=1; satsuma_token=a; satsuma_token=b"), ("cookie", "satsuma_token2=c")]);
    assert_eq!(AccessTokens::in_cookies(&cookies).collect::<Vec<_>>(), [b"a", b"b"]);
}
