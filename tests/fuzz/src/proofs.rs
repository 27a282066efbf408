//! Cookies and tokens: arbitrary bytes, and correctly signed tokens with arbitrary claims.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Uri};
use jsonwebtoken::{Algorithm, EncodingKey};
use satsuma::auth::peer::{RemotePeer, Scheme, TrustedProxies};
use satsuma::auth::token::SigningKey;
use satsuma::auth::{Auth, Identities};
use satsuma::id::{IdentityId, SessionId};
use satsuma::media_api::session_lock;

const KEY: [u8; 64] = [7; 64];

/// The first byte selects the cookie's value: the rest, or a token with the rest as its claims.
pub fn proofs(data: &[u8]) {
    let [kind, rest @ ..] = data else { return };
    let is_signed = kind % 4 != 0;
    let token = match kind % 4 {
        0 => rest.to_vec(),
        1 => signed(br#"{"alg":"HS256","typ":"JWT"}"#, rest),
        // The fuzzer chooses both parts.
        2 => {
            let (head, claims) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(0));
            signed(head, claims.strip_prefix(b"\n").unwrap_or(claims))
        }
        _ => {
            let claims = [br#"{"iat":1,"exp":9999999999,"#, rest, b"}"].concat();
            signed(br#"{"alg":"HS256"}"#, &claims)
        }
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let key = || SigningKey::new(&KEY.to_vec().into());
    for name in ["__session=", "partytracks-session-abc="] {
        let Ok(value) = HeaderValue::from_bytes(&[name.as_bytes(), &token].concat()) else { continue };
        let headers = HeaderMap::from_iter([(COOKIE, value)]);
        let none = TrustedProxies::new([]);
        let peer =
            RemotePeer::new([127, 0, 0, 1].into(), Scheme::Http, &Uri::from_static("/"), &headers, &none);
        let asked = Identities::new(key(), None, None).identify(&headers, &peer, now).now_or_never();
        assert!(is_signed || asked == Some(Auth::Anonymous), "nobody signed this");
        let (session, identity) = (SessionId::parse("abc"), IdentityId::new("cookie:a".to_owned()));
        let session = session.expect("an id");
        let proof = session_lock::proof(&key(), &session, &identity, &headers, SystemTime::from(now));
        assert!(is_signed || proof.is_none(), "nobody signed this");
    }
    if let Ok(text) = str::from_utf8(rest) {
        assert!(!key().verify_text("report", "message", text) || text.len() == 43);
    }
}

fn signed(head: &[u8], claims: &[u8]) -> Vec<u8> {
    let said = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(head), BASE64_URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(&KEY);
    let signature = jsonwebtoken::crypto::sign(said.as_bytes(), &key, Algorithm::HS256).expect("it signs");
    format!("{said}.{signature}").into_bytes()
}
