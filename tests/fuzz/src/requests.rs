//! Paths and headers of requests: the media proxy's, rooms', the upgrade's, and what proxies write.

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use satsuma::auth::Identities;
use satsuma::auth::peer::{RemotePeer, Scheme, TrustedProxies};
use satsuma::auth::token::SigningKey;
use satsuma::media_api::api::CallTarget;
use satsuma::site::paths::room_of;
use satsuma::ws::extension::Compression;

const NAMES: [&str; 8] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "sec-websocket-extensions",
    "cookie",
    "x-user",
    "origin",
];

/// A path in the first line, then header lines, whose first byte selects the request.
pub fn requests(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let path = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(8) {
        let [name, value @ ..] = line else { continue };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]), value);
        }
    }
    if let Ok(path) = str::from_utf8(path) {
        for method in [Method::GET, Method::POST, Method::PUT] {
            if let Some(target) = CallTarget::parse(&method, path) {
                let written = target.to_string();
                assert_eq!(written, path);
                let leads_out = |part: &str| part.is_empty() || part == "." || part == "..";
                assert!(!written.split('/').any(leads_out), "{written}");
                assert!(!written.contains(['%', '\\', '?', '#', ':', '@']), "{written}");
            }
        }
        if let Ok(room) = room_of(path) {
            assert!(!matches!(room.as_str(), "" | "." | ".."));
        }
    }
    if let Ok(Some(compression)) = Compression::negotiate(&headers) {
        assert!(compression.answer().to_str().is_ok_and(|answer| answer.starts_with("permessage-deflate")));
    }
    let uri = Uri::try_from(path).unwrap_or_default();
    let proxies = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
    for socket in [[10, 0, 0, 1], [203, 0, 113, 9]] {
        let peer = RemotePeer::new(socket.into(), Scheme::Https, &uri, &headers, &proxies);
        let key = SigningKey::new(&vec![7; 64].into());
        let identities = Identities::new(key, Some(HeaderName::from_static("x-user")), None);
        let _ = identities.identify(&headers, &peer, std::time::UNIX_EPOCH).now_or_never();
    }
}
