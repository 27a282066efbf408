//! Refusals before the upgrade: their status and their metric.

use std::net::IpAddr;

use serde_json::json;

use crate::client::{Ask, Client, user_of};
use crate::harness::{Answer, Person, TestServer, answer, logged};

/// A refusal: its status and its metric label.
async fn assert_refused(server: &TestServer, ask: Ask, status: u16, reason: &str) -> Answer {
    let before = server.refusals(reason).await;
    let refused = ask.answer(server).await;
    assert_eq!(refused.status, status, "{refused:?}");
    assert_eq!(server.refusals(reason).await, before + 1.0, "{reason} is not counted: {refused:?}");
    assert_eq!(refused.header("cache-control"), "no-store");
    assert_eq!(refused.header("referrer-policy"), "same-origin");
    assert!(refused.text.ends_with('\n') && refused.text.len() > 5, "no sentence: {refused:?}");
    refused
}

#[tokio::test]
async fn upgrade_of_other_parties_is_404() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    for path in ["/parties/main/r", "/parties/rooms", "/parties/Rooms/r"] {
        assert_refused(&server, Ask::path(path).by(&ada).pk("a"), 404, "not_found").await;
    }
    let plain = answer(server.get("/parties/rooms/r?_pk=a").header("cookie", ada.cookie())).await;
    assert_eq!(plain.status, 404);
    assert_eq!(answer(server.get("/no/such/page")).await.status, 404);
    assert_eq!(server.metric("satsuma_rooms").await, 0.0);
}

#[tokio::test]
async fn upgrade_without_identity_is_refused() {
    let server = TestServer::start().await;
    assert_refused(&server, Ask::room("r").pk("a"), 401, "no_identity").await;
    assert_eq!(server.metric("satsuma_rooms").await, 0.0);
}

#[tokio::test]
async fn upgrade_without_pk_gets_a_random_id() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut first = Ask::room("r").by(&ada).open(&server).await;
    let mut second = Ask::room("r").by(&ada).open(&server).await;
    let two = |state: &serde_json::Value| state["users"].as_array().unwrap().len() == 2;
    assert_eq!(first.until_state(two).await, second.until_state(two).await);
}

#[tokio::test]
async fn invalid_pk_is_refused() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    for pk in ["", "ai", "a b", "a/b", "é", "a\"b", "<script>", "a\0", &"x".repeat(65)] {
        assert_refused(&server, Ask::room("r").by(&ada).pk(pk), 400, "invalid_id").await;
    }
    for pk in ["a", "AI", "ai2", "Z_9-", &"x".repeat(64)] {
        let mut client = Ask::room("r").by(&ada).pk(pk).open(&server).await;
        client.until_state(|state| state["users"].to_string().contains(pk)).await;
    }
}

#[tokio::test]
async fn room_name_has_1_to_128_characters() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    for room in ["", "a\u{7}b", "a\nb", "\u{85}", &"a".repeat(129), &"🍊".repeat(129)] {
        assert_refused(&server, Ask::room(room).by(&ada).pk("a"), 400, "invalid_id").await;
    }
    assert_refused(&server, Ask::path("/parties/rooms/%ff").by(&ada).pk("a"), 400, "invalid_id").await;
    let mut clients = Vec::new();
    for room in ["a", "Größe 1/2 ?&#%", "...", "会議室", &"🍊".repeat(128)] {
        let mut client = Ask::room(room).by(&ada).pk("a").open(&server).await;
        client.until_users(&["a"]).await;
        clients.push(client);
    }
    assert_eq!(server.metric("satsuma_rooms").await, 5.0);
}

#[tokio::test]
async fn differently_encoded_room_names_are_one_room() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut first = Ask::path("/parties/rooms/caf%C3%A9").by(&ada).pk("a").open(&server).await;
    let _second = Ask::path("/parties/rooms/c%61f%c3%a9/").by(&ada).pk("b").open(&server).await;
    // An e and a combining accent.
    let _third = Ask::path("/parties/rooms/cafe%CC%81").by(&ada).pk("c").open(&server).await;
    // As `partysocket` writes a name with a slash, and as our page does.
    let mut standup = Ask::path("/parties/rooms/caf%C3%A9/standup").by(&ada).pk("d").open(&server).await;
    let _other = Ask::path("/parties/rooms/caf%C3%A9%2Fstandup").by(&ada).pk("e").open(&server).await;
    standup.until_users(&["d", "e"]).await;
    first.until_users(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn invalid_handshake_is_refused() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let ask = Ask::room("r").by(&ada).pk("a");
    assert_refused(&server, ask.clone().header("sec-websocket-version", "12"), 400, "invalid_handshake")
        .await;
    let request = server.get("/parties/rooms/r?_pk=a").header("cookie", ada.cookie());
    assert_eq!(answer(request.header("upgrade", "websocket")).await.status, 400);
    assert_eq!(server.metric("satsuma_rooms").await, 0.0);
}

#[tokio::test]
async fn new_rooms_of_an_identity_are_limited() {
    let server = TestServer::with(|config| config.limits.new_rooms_per_minute = 2).await;
    let (ada, bob) = (Person::log_in(&server, "Ada").await, Person::log_in(&server, "Bob").await);
    let _first = Ask::room("r1").by(&ada).pk("a").open(&server).await;
    let _second = Ask::room("r2").by(&ada).pk("a").open(&server).await;
    let ask = Ask::room("r3").by(&ada).pk("a");
    let refused = assert_refused(&server, ask.clone(), 429, "too_many_new_rooms").await;
    assert_eq!(refused.header("retry-after"), "60");
    // A running room is not new, and another identity has a limit of its own.
    let _again = Ask::room("r1").by(&ada).pk("a2").open(&server).await;
    let _other = Ask::room("r3").by(&bob).pk("b").open(&server).await;
    let _now_running = ask.open(&server).await;
}

#[tokio::test]
async fn new_room_over_the_total_is_refused() {
    let server = TestServer::with(|config| config.limits.rooms = 1).await;
    let ada = Person::log_in(&server, "Ada").await;
    let _first = Ask::room("r1").by(&ada).pk("a").open(&server).await;
    let refused = assert_refused(&server, Ask::room("r2").by(&ada).pk("a"), 503, "rooms_full").await;
    assert_eq!(refused.header("retry-after"), "5");
    let _same = Ask::room("r1").by(&ada).pk("b").open(&server).await;
}

#[tokio::test]
async fn full_server_refuses_until_a_socket_closes() {
    let server = TestServer::with(|config| config.limits.connections = 1).await;
    let first = Client::join(&server, "r", "Ada").await;
    let bob = Person::log_in(&server, "Bob").await;
    assert_refused(&server, Ask::room("r").by(&bob).pk("b"), 503, "server_full").await;
    first.drop_tcp().await;
    server.until_metric("satsuma_connections", 0.0).await;
    let _second = Ask::room("r").by(&bob).pk("b").open(&server).await;
}

#[tokio::test]
async fn sockets_of_an_address_are_limited() {
    let server = TestServer::with(|config| {
        config.limits.connections_per_address = 1;
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let server = server.await;
    let ada = Person::log_in(&server, "Ada").await;
    let ask = |pk: &str, address: &str| Ask::room("r").by(&ada).pk(pk).header("x-forwarded-for", address);
    let first = ask("a", "192.0.2.1").open(&server).await;
    assert_refused(&server, ask("b", "192.0.2.1"), 429, "too_many_of_address").await;
    let _other_address = ask("c", "192.0.2.2").open(&server).await;
    first.drop_tcp().await;
    server.until_metric("satsuma_connections", 1.0).await;
    let _in_its_place = ask("b", "192.0.2.1").open(&server).await;
    // An IPv6 subscriber has any number of addresses, all of one /64.
    let _v6 = ask("d", "2001:db8::1").open(&server).await;
    assert_refused(&server, ask("e", "2001:db8::ffff:1:2"), 429, "too_many_of_address").await;
    assert_refused(&server, ask("f", "::ffff:192.0.2.2"), 429, "too_many_of_address").await;
    let _other_network = ask("g", "2001:db8:0:1::1").open(&server).await;
    // Requests of the proxy itself, and of clients that it does not name, count for no network.
    let _proxy = ask("h", "127.0.0.1").open(&server).await;
    let _proxy_again = ask("i", "unknown").open(&server).await;
    assert!(logged().contains("proxyTellsNoClient"), "such people have no limit, which is said");
}

/// Cookies are free, and every one may start rooms.
#[tokio::test]
async fn rooms_of_a_network_are_limited() {
    let server =
        TestServer::with(|config| config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]);
    let server = server.await;
    let mut sockets = Vec::new();
    let mut status = 101;
    for cookie in 0..10 {
        let person = Person::log_in(&server, &format!("Mallory {cookie}")).await;
        for room in 0..30 {
            let ask = Ask::room(&format!("r{cookie}-{room}")).by(&person).pk("a");
            match ask.header("x-forwarded-for", "203.0.113.9").try_open(&server).await {
                Ok(socket) => sockets.push(socket),
                Err(refused) => status = refused,
            }
        }
    }
    assert_eq!((sockets.len(), status), (200, 429), "limits.rooms_per_network");
    assert_eq!(server.refusals("too_many_rooms_of_network").await, 100.0);
    let expected = "network=203.0.113.9 setting=\"limits.rooms_per_network\"";
    assert!(logged().lines().any(|line| line.contains("networkLimitReached") && line.contains(expected)));
    let ada = Person::log_in(&server, "Ada").await;
    let honest = Ask::room("honest").by(&ada).pk("a");
    let _honest = honest.header("x-forwarded-for", "203.0.113.10").open(&server).await;
}

/// A proxy that does not forward WebSockets is the most common mistake of a setup.
#[tokio::test]
async fn upgrade_dropped_by_a_proxy_is_426() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    // An address that no other test uses, to find its line in the shared log.
    let proxy = reqwest::Client::builder().no_proxy().local_address(IpAddr::from([127, 0, 14, 26]));
    let proxy = proxy.build().unwrap();
    let ask = |path: &str| proxy.get(server.http() + path).header("cookie", ada.cookie());
    let websocket = |path| {
        let key = ask(path).header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        answer(key.header("sec-websocket-version", "13"))
    };
    for count in [1.0, 2.0] {
        let lost = websocket("/parties/rooms/r?_pk=a").await;
        assert_eq!(lost.status, 426, "{lost:?}");
        assert_eq!((lost.header("upgrade"), lost.header("cache-control")), ("websocket", "no-store"));
        assert!(lost.text.contains("does not pass WebSockets on"), "{lost:?}");
        assert_eq!(server.refusals("upgrade_lost").await, count);
    }
    let is_told = |line: &&str| line.contains("upgradeLost") && line.contains("127.0.14.26");
    assert_eq!(logged().lines().filter(is_told).count(), 1);
    assert_eq!(websocket("/parties/main/r?_pk=a").await.status, 404);
    assert_eq!(answer(ask("/parties/rooms/r?_pk=a")).await.status, 404);
    assert_eq!(server.metric("satsuma_rooms").await, 0.0);
}

#[tokio::test]
async fn last_refusal_can_be_queried() {
    let server = TestServer::with(|config| config.limits.members_per_room = 1).await;
    let _bob = Client::join(&server, "r", "Bob").await;
    let ada = Person::log_in(&server, "Ada").await;
    let why =
        |pk| answer(server.get(&format!("/parties/rooms/r?_pk={pk}&why")).header("cookie", ada.cookie()));
    assert_eq!(why("ada").await.status, 404, "nothing was refused yet");
    let refused = assert_refused(&server, Ask::room("r").by(&ada).pk("ada"), 503, "room_full").await;
    let response = why("ada").await;
    assert_eq!((response.status, &response.text), (503, &refused.text));
    assert_eq!(why("eve").await.status, 404, "somebody else's refusal");
    // The origin check as well: a proxy that hides the host makes our own page a foreign one.
    let foreign = Ask::room("r").by(&ada).pk("ada").header("origin", "https://meet.example");
    let refused = assert_refused(&server, foreign, 403, "foreign_origin").await;
    assert_eq!(why("ada").await.text, refused.text);
}

/// One cookie filled a room under a thousand ids, without an open socket.
#[tokio::test]
async fn members_of_an_identity_in_a_room_are_limited() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut members = Vec::new();
    for number in 0..16 {
        let mut member = Ask::room("r").by(&ada).pk(&format!("m{number}")).open(&server).await;
        member.say(json!({"type": "heartbeat"})).await;
        members.push(member);
    }
    let one_more = Ask::room("r").by(&ada).pk("one-more");
    assert_refused(&server, one_more.clone(), 429, "room_full_for_identity").await;
    // Its own member without a socket is removed instead.
    let away = members.remove(3);
    let pk = away.pk();
    away.drop_tcp().await;
    server.until_away("r", &pk).await;
    let mut one_more = one_more.open(&server).await;
    let state = one_more.until_state(|state| !user_of(state, "one-more").is_null()).await;
    assert_eq!(state["users"].as_array().unwrap().len(), 16);
    assert!(user_of(&state, &pk).is_null());
}

#[tokio::test]
async fn members_of_a_network_in_a_room_are_limited() {
    let server = TestServer::with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.limits.members_per_room = 4;
        config.limits.members_per_room_per_network = 3;
    });
    let server = server.await;
    let come = async |number: u16, from: &str| {
        let person = Person::log_in(&server, &format!("Mallory {number}")).await;
        Ask::room("r").by(&person).pk(&format!("pk-{number}")).header("x-forwarded-for", from)
    };
    let mut sockets = Vec::new();
    for number in 1..4 {
        sockets.push(come(number, &format!("2001:db8::{number}")).await.open(&server).await);
    }
    assert_refused(&server, come(4, "2001:db8::4").await, 429, "room_full_for_network").await;
    let _other_network = come(5, "192.0.2.1").await.open(&server).await;
}

/// All clients behind an unconfigured proxy have its address; but only a proxy on this machine or in a private
/// network is exempt.
#[tokio::test]
async fn untrusted_proxy_is_exempt_and_direct_client_not() {
    let server = TestServer::with(|config| config.limits.connections_per_address = 2).await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut sockets = Vec::new();
    for pk in ["a", "b", "c", "d"] {
        let ask = Ask::room("r").by(&ada).pk(pk).header("x-forwarded-for", "203.0.113.9");
        sockets.push(ask.open(&server).await);
    }
    assert!(logged().contains("proxyNotTrusted"));
    for pk in ["e", "f"] {
        sockets.push(Ask::room("r").by(&ada).pk(pk).open(&server).await);
    }
    assert_refused(&server, Ask::room("r").by(&ada).pk("g"), 429, "too_many_of_address").await;
}

#[tokio::test]
async fn exempt_network_has_no_limit() {
    let server = TestServer::with(|config| {
        config.limits.connections_per_address = 1;
        config.limits.rooms_per_network = 1;
        config.limits.exempt_networks = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let server = server.await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut sockets = Vec::new();
    for pk in ["a", "b", "c"] {
        sockets.push(Ask::room(pk).by(&ada).pk(pk).open(&server).await);
    }
}

/// An office at its limit whose sockets all died was locked out until the last of them timed out.
#[tokio::test]
async fn reconnect_reuses_the_slot_of_the_dead_socket() {
    let server = TestServer::with(|config| config.limits.connections_per_address = 2).await;
    let mut older = Client::join(&server, "r", "Ada").await;
    let _bob = Client::join(&server, "r", "Bob").await;
    let eve = Person::log_in(&server, "Eve").await;
    assert_refused(&server, Ask::room("r").by(&eve).pk("e"), 429, "too_many_of_address").await;
    // A client that claims Ada's id is refused by the room, and does not affect her.
    let claims = Ask::room("r").by(&eve).pk(&older.pk());
    assert_refused(&server, claims, 403, "seat_taken").await;
    older.echo().await;
    let mut newer = older.ask().open(&server).await;
    assert_eq!(older.closed().await.0, 4001);
    newer.echo().await;
    server.until_metric("satsuma_connections", 2.0).await;
    assert_refused(&server, Ask::room("r").by(&eve).pk("e"), 429, "too_many_of_address").await;
    let _newest = newer.ask().open(&server).await;
}

#[tokio::test]
async fn full_room_accepts_only_its_members() {
    let server = TestServer::with(|config| config.limits.members_per_room = 2).await;
    let first = Client::join(&server, "r", "Ada").await;
    let _second = Client::join(&server, "r", "Bob").await;
    let eve = Person::log_in(&server, "Eve").await;
    assert_refused(&server, Ask::room("r").by(&eve).pk("e"), 503, "room_full").await;
    // An absent member keeps its slot.
    let seat = first.drop_tcp().await;
    assert_refused(&server, Ask::room("r").by(&eve).pk("e"), 503, "room_full").await;
    let _back = seat.open(&server).await;
    let _elsewhere = Ask::room("r2").by(&eve).pk("e").open(&server).await;
}

#[tokio::test]
async fn long_url_is_refused() {
    let server = TestServer::with(|config| config.limits.url_bytes = 2000).await;
    let page = |length: usize| format!("/r?{}", "x".repeat(length - 3));
    assert_eq!(answer(server.get(&page(2001))).await.status, 414);
    assert_eq!(answer(server.get(&page(2000))).await.status, 302);
    let count = r#"satsuma_http_request_seconds_count{route="/{room}",status="414"}"#;
    assert_eq!(server.metric(count).await, 1.0);
}

#[tokio::test]
async fn upgrade_with_long_url_counts_as_refused() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let path = format!("/parties/rooms/r/{}", "x".repeat(9000));
    assert_refused(&server, Ask::path(&path).by(&ada).pk("a"), 414, "url_too_long").await;
}

#[tokio::test]
async fn headers_over_64_kib_are_refused() {
    let server = TestServer::start().await;
    let get =
        async |bytes: usize| answer(server.get("/set-username").header("x-long", "x".repeat(bytes))).await;
    for bytes in [65 << 10, 130 << 10] {
        assert_eq!(get(bytes).await.status, 431, "{bytes}");
    }
    // A browser's cookies after 280 page loads, each with one of the session lock.
    assert_eq!(get(60 << 10).await.status, 200);
}

#[tokio::test]
async fn long_form_is_refused() {
    let server = TestServer::with(|config| config.limits.body_bytes = 1000).await;
    let post = async |bytes: usize| {
        let long = "x".repeat(bytes);
        answer(server.post_form("/set-username", &[("username", "Ada"), ("other", &long)])).await
    };
    let refused = post(1000).await;
    assert_eq!(refused.status, 413);
    assert_eq!(refused.header("set-cookie"), "");
    assert_eq!(post(900).await.status, 302);
}

#[tokio::test]
async fn form_without_a_field_is_refused_by_its_name() {
    let server = TestServer::start().await;
    for (path, field) in [("/set-username", "username"), ("/?index", "room")] {
        let refused = answer(server.post_form(path, &[("other", "x")])).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.text, format!("the form needs a field \"{field}\"\n"));
    }
}

#[tokio::test]
async fn answers_have_a_referrer_policy() {
    let server = TestServer::start().await;
    let answers = [
        answer(server.get("/")).await,
        answer(server.get("/set-username")).await,
        answer(server.get("/new")).await,
        answer(server.get("/no/such/page")).await,
        answer(server.post_form("/set-username", &[("username", "Ada")])).await,
        answer(server.post_form("/set-username", &[("username", "")])).await,
    ];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [302, 200, 302, 404, 302, 400]);
    for answer in answers {
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
    }
}
