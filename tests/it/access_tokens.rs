//! Access tokens: where they are accepted, what they open, and links that have one.

use axum::http::Method;
use satsuma::auth::access_token::{AccessClaims, AccessTokens, TokenGrants};
use satsuma::config::{AccessLevel, AuthConfig, Config, KeySource, Optional, TokenKey};
use serde_json::{Value, json};

use crate::client::Ask;
use crate::harness::{Answer, Person, TestServer, answer};

pub const SECRET: &str = "a-secret-of-thirty-two-characters";

pub fn auth() -> AuthConfig {
    let keys = vec![TokenKey { id: "app".into(), secret: KeySource::Text(SECRET.into()) }];
    AuthConfig { keys, ..AuthConfig::default() }
}

fn with_keys(config: &mut Config) {
    config.auth = auth();
}

/// A token of a participant of this room, with other grants.
#[expect(clippy::disallowed_methods, reason = "the server reads the same clock")]
pub fn token_with(subject: &str, room: &str, grants: Value) -> String {
    let now = std::time::SystemTime::now();
    let grants: TokenGrants = serde_json::from_value(grants).unwrap();
    let exp = seconds(now) + 3600;
    let (sub, name, room) = (subject.to_lowercase(), Some(subject.to_owned()), room.to_owned());
    let claims = AccessClaims { sub, name, room, grants, iat: None, nbf: None, exp };
    AccessTokens::open(&auth()).unwrap().unwrap().sign(&claims, now).unwrap()
}

/// A token of a participant that was issued now, and expires this many seconds from now.
#[expect(clippy::disallowed_methods, reason = "the server reads the same clock")]
pub fn token_until(subject: &str, room: &str, left: i64) -> String {
    let now = std::time::SystemTime::now();
    let (sub, name, room) = (subject.to_lowercase(), Some(subject.to_owned()), room.to_owned());
    let exp = seconds(now).saturating_add_signed(left);
    let grants = TokenGrants::default();
    let claims = AccessClaims { sub, name, room, grants, iat: Some(seconds(now)), nbf: None, exp };
    AccessTokens::open(&auth()).unwrap().unwrap().sign(&claims, now).unwrap()
}

fn seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub fn token(subject: &str, room: &str) -> String {
    token_with(subject, room, json!({}))
}

fn bearer(room: &str, token: &str) -> Ask {
    Ask::room(room).header("authorization", &format!("Bearer {token}"))
}

async fn page(server: &TestServer, path: &str, cookie: &str) -> Answer {
    answer(server.get(path).header("accept", "text/html").header("cookie", cookie)).await
}

/// The pair of a `Set-Cookie` value.
fn pair(set_cookie: &str) -> String {
    set_cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn token_opens_a_socket_to_its_rooms_alone() {
    let server = TestServer::with(with_keys).await;
    let (ada, eve) = (token("Ada", "team-*"), token("Eve", "other"));
    let mut by_header = bearer("team-a", &ada).pk("a").open(&server).await;
    let state = by_header.until_users(&["a"]).await;
    assert_eq!(state["users"][0]["name"], "Ada");
    assert_eq!(state["users"][0]["authMethod"], "token");
    // As browsers of other origins send it.
    let protocols = format!("satsuma, satsuma.token.{ada}");
    let by_protocol = Ask::room("team-a").header("sec-websocket-protocol", &protocols);
    by_protocol.pk("b").open(&server).await.until_users(&["a", "b"]).await;
    // Rooms that exist and rooms that do not are refused alike.
    let refused = bearer("team-a", &eve).answer(&server).await;
    let unknown = bearer("team-unknown", &eve).answer(&server).await;
    assert_eq!((refused.status, &refused.text), (403, &"you may not enter this room\n".to_owned()));
    assert_eq!((unknown.status, unknown.text), (refused.status, refused.text));
    assert_eq!(server.admin_get("/admin/rooms/team-unknown").await.status, 404);
    // An invalid token never falls back to a cookie, and a token without the right to join opens nothing.
    let bob = Person::log_in(&server, "Bob").await;
    let forged = ada.replace('.', "x.");
    assert_eq!(bearer("team-a", &forged).by(&bob).try_open(&server).await.err(), Some(401));
    let none = token_with("Zoe", "team-a", json!({"join": false}));
    assert_eq!(bearer("team-a", &none).try_open(&server).await.err(), Some(403));
    Ask::room("team-a").by(&bob).pk("c").open(&server).await.until_users(&["a", "c"]).await;
}

#[tokio::test]
async fn token_opens_a_phoenix_socket() {
    let server = TestServer::with(with_keys).await;
    let ada = token("Ada", "a");
    let mut socket = Ask::path(&format!("/socket/websocket?vsn=2.0.0&token={ada}")).open(&server).await;
    socket.say(json!(["1", "1", "room:a", "phx_join", {"_pk": "x"}])).await;
    assert_eq!(socket.next().await[4]["response"], json!({"id": "x", "name": "Ada"}));
    socket.say(json!(["2", "2", "room:b", "phx_join", {}])).await;
    let refused = socket.until(|frame| frame[1] == "2").await;
    assert_eq!(refused[4]["response"]["reason"], "you may not enter this room");
    // The cookie of a link is as any cookie: it counts for pages of this server alone.
    let cookie = format!("satsuma_token={ada}");
    let by_cookie = || Ask::path("/socket/websocket?vsn=2.0.0").header("cookie", &cookie);
    assert_eq!(by_cookie().try_open(&server).await.err(), Some(401));
    by_cookie().header("origin", &server.http()).open(&server).await.close().await;
    let poll = answer(server.get("/socket/longpoll?vsn=2.0.0").header("cookie", &cookie)).await;
    assert_eq!(poll.json()["status"], 403);
    // A token of the server's own for a socket keeps the rooms.
    let own = server.request(&Method::POST, "/api/socket-token").bearer_auth(&ada);
    let own = answer(own).await.json()["token"].as_str().unwrap().to_owned();
    let mut socket = Ask::path(&format!("/socket/websocket?vsn=2.0.0&token={own}")).open(&server).await;
    socket.say(json!(["1", "1", "room:b", "phx_join", {}])).await;
    assert_eq!(socket.next().await[4]["response"]["reason"], "you may not enter this room");
}

#[tokio::test]
async fn link_becomes_a_cookie_and_loses_its_token() {
    let server = TestServer::with(with_keys).await;
    let (ada, eve) = (token("Ada", "standup"), token("Eve", "standup"));
    // An attacker's cookie is in the browser already.
    let planted = format!("satsuma_token={eve}; __session=x");
    let followed = page(&server, &format!("/standup?x=1&token={ada}"), &planted).await;
    assert_eq!((followed.status, followed.header("location")), (302, "/standup?x=1"));
    assert_eq!(followed.header("cache-control"), "no-store");
    let cookie = followed.header("set-cookie");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=3"] {
        assert!(cookie.contains(attribute), "{attribute}: {cookie}");
    }
    assert!(!followed.text.contains(&ada) && pair(cookie) == format!("satsuma_token={ada}"), "{cookie}");
    let cookie = pair(cookie);
    assert_eq!(page(&server, "/standup", &cookie).await.status, 200);
    let user = answer(server.get("/api/user").header("cookie", &cookie)).await;
    assert_eq!(user.json(), json!({"username": "Ada", "signOut": true}));
    let person = Person::with_cookie(cookie.clone());
    Ask::room("standup").by(&person).pk("a").open(&server).await.until_users(&["a"]).await;
    let elsewhere = page(&server, "/retro", &cookie).await;
    assert!(
        elsewhere.status == 403 && elsewhere.text.contains("You may not enter this room"),
        "{elsewhere:?}"
    );

    let invalid = page(&server, "/standup?token=x.y.z", "").await;
    assert_eq!(invalid.status, 401);
    assert!(invalid.text.contains("expired") && !invalid.text.contains("x.y.z"), "{}", invalid.text);
    assert!(invalid.headers.get("set-cookie").is_none());
    // Whoever chooses a name leaves the token's identity.
    let form = server.post_form("/set-username", &[("username", "Bob")]).header("cookie", &cookie);
    let named = answer(form).await;
    let cookies: Vec<_> =
        named.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(cookies.len() == 2 && cookies[1].starts_with("satsuma_token=;"), "{cookies:?}");
}

#[tokio::test]
async fn server_for_holders_of_tokens_knows_nobody_else() {
    let server = TestServer::with(|config| {
        config.auth = AuthConfig { rooms: AccessLevel::Token, ..auth() };
    })
    .await;
    let ada = token("Ada", "a");
    let _ada = bearer("a", &ada).open(&server).await;
    for path in ["/a", "/unknown", "/", "/set-username"] {
        let refused = page(&server, path, "").await;
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.text.contains("ask whoever invited you for a link"), "{path}: {}", refused.text);
    }
    let named = answer(server.post_form("/set-username", &[("username", "Bob")])).await;
    assert_eq!((named.status, named.headers.get("set-cookie")), (401, None));
    for room in ["a", "unknown"] {
        assert_eq!(Ask::room(room).try_open(&server).await.err(), Some(401), "{room}");
    }
    assert_eq!(answer(server.request(&Method::POST, "/api/calls/sessions/new")).await.status, 401);
    assert_eq!(page(&server, "/a", &format!("satsuma_token={ada}")).await.status, 200);
}

#[tokio::test]
async fn meeting_waits_for_one_who_may_start_it() {
    let server = TestServer::with(|config| {
        config.auth = AuthConfig { create: AccessLevel::Token, ..auth() };
    })
    .await;
    let bob = Person::log_in(&server, "Bob").await;
    let ask = || Ask::room("r").by(&bob).pk("b");
    let waits = ask().answer(&server).await;
    assert!(waits.status == 403 && waits.text.contains("has not started"), "{waits:?}");
    assert_eq!(
        bearer("r", &token("Ada", "r")).try_open(&server).await.err(),
        Some(403),
        "no grant to create"
    );
    assert_eq!(server.admin_get("/admin/rooms/r").await.status, 404, "no room was made");
    let socket = Ask::path("/socket/websocket?vsn=2.0.0").by(&bob).header("origin", &server.http());
    let mut socket = socket.open(&server).await;
    socket.say(json!(["1", "1", "room:r", "phx_join", {}])).await;
    let reason = socket.next().await[4]["response"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("has not started"), "{reason}");
    let host = token_with("Host", "r", json!({"create": true}));
    let mut host = bearer("r", &host).pk("h").open(&server).await;
    let _bob = ask().open(&server).await;
    host.until_users(&["b", "h"]).await;
}

#[tokio::test]
async fn media_api_takes_a_token() {
    let server = TestServer::with(with_keys).await;
    let new =
        |token: &str| answer(server.request(&Method::POST, "/api/calls/sessions/new").bearer_auth(token));
    let opened = new(&token("Ada", "a")).await;
    assert!(opened.status == 201 && opened.json()["sessionId"].is_string(), "{opened:?}");
    assert_eq!(new("x.y.z").await.status, 401);
}

#[tokio::test]
async fn page_of_an_allowed_origin_uses_tokens() {
    const ORIGIN: &str = "https://app.example";
    let server = TestServer::with(|config| {
        with_keys(config);
        config.http.allowed_origins = vec![ORIGIN.parse().unwrap()];
    })
    .await;
    let preflight = |origin: &str| {
        let request = server.request(&Method::OPTIONS, "/api/calls/sessions/new").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        answer(request.header("access-control-request-headers", "authorization,content-type"))
    };
    let allowed = preflight(ORIGIN).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, ORIGIN));
    assert!(allowed.header("access-control-allow-headers").contains("authorization"), "{allowed:?}");
    assert!(allowed.headers.get("access-control-allow-credentials").is_none(), "cookies stay at home");
    let foreign = preflight("https://evil.example").await;
    assert!(foreign.headers.get("access-control-allow-origin").is_none(), "{foreign:?}");
    let user = server.get("/api/user").header("origin", ORIGIN).bearer_auth(token("Ada", "a"));
    let user = answer(user).await;
    assert_eq!(
        (user.json(), user.header("access-control-allow-origin")),
        (json!({"username": "Ada"}), ORIGIN)
    );
    let mut member = bearer("a", &token("Ada", "a")).header("origin", ORIGIN).pk("a").open(&server).await;
    member.until_users(&["a"]).await;
}

#[tokio::test]
async fn operator_makes_tokens() {
    let server = TestServer::with(|config| {
        with_keys(config);
        config.http.public_url = Optional(Some("https://meet.example/base".parse().unwrap()));
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let make = async |body: Value| server.admin_post("/admin/tokens", &body).await;
    let made =
        make(json!({"room": "caf\u{e9} 1", "name": "Ada", "grants": {"moderate": true}, "valid": "30m"}))
            .await;
    assert_eq!((made.status, made.header("cache-control")), (200, "no-store"), "{made:?}");
    let made = made.json();
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["link"], json!(format!("https://meet.example/base/caf%C3%A9%201?token={token}")));
    let user = answer(server.get("/base/api/user").bearer_auth(token)).await;
    assert_eq!(user.json(), json!({"username": "Ada"}), "{user:?}");
    assert_eq!(make(json!({"room": "team-*", "name": "Ada"})).await.json()["link"], Value::Null);
    for (body, problem) in [
        (json!({"room": "r"}), "name"),
        (json!({"room": "r", "name": ""}), "\"name\""),
        (json!({"room": "", "name": "Ada"}), "\"room\""),
        (json!({"room": "r", "name": "Ada", "valid": "2days"}), "auth.token_lifetime"),
        (json!({"room": "r", "name": "Ada", "valid": "soon"}), "\"valid\""),
        (json!({"room": "r", "name": "Ada", "rights": []}), "rights"),
    ] {
        let refused = make(body.clone()).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.json()["error"].as_str().unwrap().contains(problem), "{body}: {refused:?}");
    }
}

#[tokio::test]
async fn admin_grant_opens_the_operators_api() {
    let server = TestServer::with(with_keys).await;
    let rooms = |token: &str| answer(server.admin("/admin/rooms").bearer_auth(token));
    assert_eq!(rooms(&token("Ada", "*")).await.status, 401);
    assert_eq!(rooms(&token_with("Ada", "*", json!({"admin": true}))).await.status, 200);
    assert_eq!(rooms(&token_with("Ada", "r", json!({"admin": true}))).await.status, 401, "of one room");
    // Beyond the operators' listener it opens nothing more.
    assert_eq!(
        bearer("r", &token_with("Ada", "x", json!({"admin": true}))).try_open(&server).await.err(),
        Some(403)
    );
}

#[tokio::test]
async fn network_that_guesses_presents_only_known_tokens() {
    let server = TestServer::with(|config| {
        with_keys(config);
        config.limits.token_guesses_per_minute_per_network = 5;
    })
    .await;
    let user = |token: &str| answer(server.get("/api/user").bearer_auth(token));
    let (known, new) = (token("Ada", "*"), token("Bob", "*"));
    assert_eq!(user(&known).await.status, 200);
    // Those that can never succeed are no guesses.
    for wrong in ["x.y.z", &known.replace('.', "x."), &token_until("Eve", "*", -59)] {
        for _ in 0..6 {
            assert_ne!(user(wrong).await.status, 429);
        }
    }
    let forged = |number: u8| {
        let (signed, _) = known.rsplit_once('.').unwrap();
        // The last character of 32 bytes in base64 has two bits that are zero.
        format!("{signed}.{}A", char::from(b'A' + number).to_string().repeat(42))
    };
    for number in 0..5 {
        assert_eq!(user(&forged(number)).await.status, 401, "{number}");
    }
    for refused in [&forged(6), &new] {
        let refused = user(refused).await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, "60"), "{refused:?}");
        assert!(refused.text.contains("from your network"), "{refused:?}");
    }
    assert_eq!(bearer("r", &new).try_open(&server).await.err(), Some(429));
    let phoenix = |token: &str| Ask::path(&format!("/socket/websocket?vsn=2.0.0&token={token}"));
    assert_eq!(phoenix(&new).try_open(&server).await.err(), Some(429));
    assert_eq!(page(&server, &format!("/r?token={new}"), "").await.status, 429);
    // The known one opens everything, and those without a token are not concerned.
    assert_eq!(user(&known).await.status, 200);
    let mut ada = bearer("r", &known).pk("a").open(&server).await;
    ada.until_users(&["a"]).await;
    phoenix(&known).open(&server).await;
    let bob = Person::log_in(&server, "Bob").await;
    let _bob = Ask::room("r").by(&bob).pk("b").open(&server).await;
    ada.until_users(&["a", "b"]).await;
    assert_eq!(answer(server.get("/api/user")).await.status, 401);
    assert_eq!(server.refusals("too_many_guesses").await, 5.0);
    // Nor can it guess at the operators' listener.
    let admin = token_with("Ops", "*", json!({"admin": true}));
    assert_eq!(answer(server.admin("/admin/rooms").bearer_auth(&admin)).await.status, 401);
}

#[tokio::test]
async fn server_without_keys_makes_no_token() {
    let server = TestServer::start().await;
    let answered = server.admin_post("/admin/tokens", &json!({"room": "r", "name": "Ada"})).await;
    let sentence = "there is no key in auth.keys, so the server would accept no token\n";
    assert_eq!((answered.status, answered.text.as_str()), (404, sentence));
}
