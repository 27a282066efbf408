//! Attacks on identity, all of which fail.

use satsuma::config::{Config, Optional};
use serde_json::json;

use crate::client::{Ask, Client, user_of};
use crate::harness::{Person, TestServer, answer};

const EVIL: &str = "https://evil.example";

fn trust_this_machine(config: &mut Config) {
    config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
}

fn believe_a_header(config: &mut Config) {
    config.identity.proxy_header = Optional(Some("cf-access-authenticated-user-email".parse().unwrap()));
}

fn named_by_proxy(name: &str) -> Ask {
    Ask::room("r").header("cf-access-authenticated-user-email", name)
}

#[tokio::test]
async fn other_identity_cannot_replace_a_member() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let before = ada.until_users(&[&ada.pk()]).await;
    // Of the same name, which proves nothing.
    let thief = Person::log_in(&server, "Ada").await;
    let attack = Ask::room("r").by(&thief).pk(&ada.pk());
    assert_eq!(attack.answer(&server).await.status, 403);
    assert_eq!(server.refusals("seat_taken").await, 1.0);
    // The owner is unaffected: its socket stays open, and it receives nothing new.
    for message in ada.echo().await {
        assert_eq!(message["state"], before, "{message}");
    }
    server.until_metric("satsuma_connections", 1.0).await;

    let (room, pk) = ("r", ada.pk());
    let seat = ada.drop_tcp().await;
    server.until_away(room, &pk).await;
    assert_eq!(attack.answer(&server).await.status, 403, "not even while its owner is away");
    seat.open(&server).await.until_state(|state| *state == before).await;
}

#[tokio::test]
async fn other_identity_cannot_receive_waiting_events() {
    let server = TestServer::start().await;
    let ada = Client::join(&server, "r", "Ada").await;
    let mut bob = Client::join(&server, "r", "Bob").await;
    let pk = ada.pk();
    let seat = ada.drop_tcp().await;
    server.until_away("r", &pk).await;
    bob.say(json!({"type": "directMessage", "to": pk, "message": "for Ada only"})).await;
    bob.echo().await;
    let eve = Person::log_in(&server, "Eve").await;
    assert_eq!(Ask::room("r").by(&eve).pk(&pk).answer(&server).await.status, 403);
    assert_eq!(seat.open(&server).await.event().await["message"], "for Ada only");
}

#[tokio::test]
async fn sender_id_and_name_cannot_be_forged() {
    let server = TestServer::start().await;
    let mut ada = Client::join(&server, "r", "Ada").await;
    let mut eve = Client::join(&server, "r", "Eve").await;
    let claim = json!({"id": ada.pk(), "name": "Ada", "raisedHand": true, "joined": true});
    eve.say(json!({"type": "userUpdate", "user": claim})).await;
    eve.say(json!({"type": "directMessage", "to": ada.pk(), "message": "hi", "from": "Bob", "id": "x"}))
        .await;

    let pk = eve.pk();
    let hand_up = |state: &serde_json::Value| user_of(state, &pk)["raisedHand"] == true;
    let two = |state: &serde_json::Value| state["users"].as_array().unwrap().len() == 2;
    let received = ada.event().await;
    assert_eq!(received, json!({"type": "directMessage", "from": "Eve", "message": "hi"}));
    let state = eve.until_state(|state| two(state) && hand_up(state)).await;
    assert_eq!(user_of(&state, &pk)["name"], "Eve");
    assert_eq!(user_of(&state, &ada.pk())["name"], "Ada");
    assert_eq!(user_of(&state, &ada.pk())["raisedHand"], false);
}

#[tokio::test]
async fn forged_cookie_has_no_identity() {
    let server = TestServer::start().await;
    let elsewhere = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let token = ada.cookie().strip_prefix("__session=").unwrap();
    let [head, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let flipped = |part: &str| {
        let first = if part.starts_with('A') { 'B' } else { 'A' };
        format!("{first}{}", &part[1..])
    };
    // The claims of Eve, whose cookie is valid, under Ada's signature.
    let eve = Person::log_in(&server, "Eve").await;
    let eves_claims = eve.cookie().split('.').nth(1).unwrap();
    // {"alg":"none"}
    let unsigned = "eyJhbGciOiJub25lIn0";
    let forged = [
        format!("{head}.{claims}.{}", flipped(signature)),
        format!("{head}.{}.{signature}", flipped(claims)),
        format!("{}.{claims}.{signature}", flipped(head)),
        format!("{head}.{eves_claims}.{signature}"),
        format!("{unsigned}.{claims}."),
        format!("{unsigned}.{claims}.{signature}"),
        format!("{head}.{claims}"),
        format!("{head}.{claims}."),
        token[..token.len() - 1].to_owned(),
        "Ada".to_owned(),
        String::new(),
        // The reference's cookie: base64 of {"username":"Ada"}, without our signature.
        "eyJ1c2VybmFtZSI6IkFkYSJ9.c2lnbmF0dXJl".to_owned(),
        Person::log_in(&elsewhere, "Ada").await.cookie().strip_prefix("__session=").unwrap().to_owned(),
    ];
    for cookie in &forged {
        let forger = Person::with_cookie(format!("__session={cookie}"));
        let refused = Ask::room("r").by(&forger).pk("a").answer(&server).await;
        assert_eq!(refused.status, 401, "{cookie} was believed");
        let page = answer(server.get("/").header("cookie", forger.cookie())).await;
        assert_eq!(page.status, 302, "{cookie} was believed");
    }
    assert_eq!(server.refusals("no_identity").await, forged.len() as f64);
    let _the_real_one = Ask::room("r").by(&ada).pk("a").open(&server).await;
}

#[tokio::test]
async fn forged_cookie_does_not_keep_its_id() {
    let server = TestServer::start().await;
    let ada = Client::join(&server, "r", "Ada").await;
    let cookie = Person::log_in(&server, "Eve").await.cookie().to_owned();
    let forged = Person::with_cookie(format!("{}x", &cookie[..cookie.len() - 1]));
    let renamed = forged.rename(&server, "Ada").await;
    assert_eq!(Ask::room("r").by(&renamed).pk(&ada.pk()).answer(&server).await.status, 403);
}

#[tokio::test]
async fn login_redirect_stays_on_this_server() {
    let server = TestServer::start().await;
    let own = format!("{}/r?x=1", server.http());
    for (return_url, location) in [
        ("/r?x=1#y", "/r?x=1#y"),
        ("r", "/r"),
        (&*own, "/r?x=1"),
        ("", "/"),
        ("https://evil.example/r", "/"),
        ("//evil.example/r", "/"),
        ("///evil.example/r", "/"),
        ("/\\evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        (" //evil.example", "/"),
        ("https:\\\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("data:text/html,x", "/"),
        ("vbscript:x", "/"),
        ("http://127.0.0.1@evil.example/", "/"),
        ("http://127.0.0.1:1/", "/"),
        ("/.//evil.example", "/evil.example"),
        ("/r\r\nset-cookie: x=y", "/rset-cookie:%20x=y"),
    ] {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("return-url", return_url)
            .finish();
        let request = server.post_form(&format!("/set-username?{query}"), &[("username", "Ada")]);
        let sent = answer(request).await;
        assert_eq!((sent.status, sent.header("location")), (302, location), "{return_url:?}");
    }
    for (room, location) in [
        ("my room", "/my-room"),
        ("//evil.example", "/%2F%2Fevil.example"),
        ("\\evil.example", "/%5Cevil.example"),
        ("https://evil.example", "/https%3A%2F%2Fevil.example"),
        ("a?b#c", "/a%3Fb%23c"),
        ("🍊", "/%F0%9F%8D%8A"),
    ] {
        let sent = answer(server.post_form("/?index", &[("room", room)])).await;
        assert_eq!((sent.status, sent.header("location")), (302, location), "{room:?}");
    }
    for room in [".", ".."] {
        let refused = answer(server.post_form("/?index", &[("room", room)])).await;
        assert_eq!(refused.status, 400, "a browser reads {room:?} as a step in the path");
    }
    let sent = answer(server.get("/new?x=//evil.example")).await;
    let (path, query) = sent.header("location").split_once('?').unwrap();
    assert!(path.len() > 9 && path.starts_with('/') && !path.starts_with("//"), "{path}");
    assert_eq!(query, "x=//evil.example");
}

#[tokio::test]
async fn visitor_without_name_is_redirected_and_returns() {
    let server = TestServer::start().await;
    let redirect = answer(server.get("/r%2F1?x=1")).await;
    assert_eq!(redirect.status, 302);
    let named = answer(server.post_form(redirect.header("location"), &[("username", "Ada")])).await;
    assert_eq!((named.status, named.header("location")), (302, "/r%2F1?x=1"));
    let cookie = named.header("set-cookie").split(';').next().unwrap();
    assert_eq!(answer(server.get("/r%2F1?x=1").header("cookie", cookie)).await.status, 200);
}

#[tokio::test]
async fn identity_header_of_untrusted_peer_is_ignored() {
    let server = TestServer::with(|config| {
        believe_a_header(config);
        config.http.trusted_proxies = vec!["192.0.2.1/32".parse().unwrap()];
    });
    let server = server.await;
    let attack = named_by_proxy("boss@example.com").pk("a").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(attack.answer(&server).await.status, 401);
    // With a cookie, the cookie counts where it is accepted.
    let server = server.stop().await.start_with(|config| config.identity.required = false).await;
    assert_eq!(attack.answer(&server).await.status, 401);
    let eve = Person::log_in(&server, "Eve").await;
    let mut eve = attack.by(&eve).open(&server).await;
    eve.until_state(|state| user_of(state, "a")["name"] == "Eve").await;
}

#[tokio::test]
async fn identity_header_is_ignored_unless_configured() {
    let server = TestServer::with(trust_this_machine).await;
    assert_eq!(named_by_proxy("boss@example.com").pk("a").answer(&server).await.status, 401);
}

#[tokio::test]
async fn trusted_identity_header_overrides_the_cookie() {
    let server = TestServer::with(|config| {
        believe_a_header(config);
        trust_this_machine(config);
        config.identity.required = false;
    });
    let server = server.await;
    let eve = Person::log_in(&server, "Eve").await;
    let mut ada = named_by_proxy("Ada@example.com").by(&eve).pk("a").open(&server).await;
    ada.until_state(|state| user_of(state, "a")["name"] == "Ada@example.com").await;
    // The member belongs to the header's user, not to the cookie's.
    assert_eq!(Ask::room("r").by(&eve).pk("a").answer(&server).await.status, 403);
    assert_eq!(named_by_proxy("bob@example.com").pk("a").answer(&server).await.status, 403);
    assert_eq!(named_by_proxy("a,b").by(&eve).pk("b").answer(&server).await.status, 401);
    let _same_user = named_by_proxy("ada@example.com").pk("a").open(&server).await;
    // The form only redirects: the name comes from the proxy.
    let form = server.post_form("/set-username?return-url=/r", &[("username", "Boss")]);
    let sent = answer(form.header("cf-access-authenticated-user-email", "ada@example.com")).await;
    assert_eq!((sent.status, sent.header("location"), sent.header("set-cookie")), (302, "/r", ""));
}

/// The proxy may exempt a path from its login.
#[tokio::test]
async fn request_without_identity_header_is_refused() {
    let server = TestServer::start().await;
    let eve = Person::log_in(&server, "Eve").await;
    let server = server.stop().await.start_with(|config| {
        believe_a_header(config);
        trust_this_machine(config);
    });
    let server = server.await;
    // Eve has an older cookie; no new one is issued.
    for named in ["", " "] {
        assert_eq!(named_by_proxy(named).by(&eve).pk("a").answer(&server).await.status, 401, "{named:?}");
    }
    assert_eq!(Ask::room("r").by(&eve).pk("a").answer(&server).await.status, 401);
    assert_eq!(server.refusals("login_required").await, 3.0);
    let page = async |request: reqwest::RequestBuilder| {
        answer(request.header("accept", "text/html").header("cookie", eve.cookie())).await
    };
    let form = server.post_form("/set-username?return-url=/r", &[("username", "boss@example.com")]);
    for request in [server.get("/"), server.get("/r"), server.get("/set-username"), form] {
        let refused = page(request).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (401, ""));
        assert!(refused.text.contains("came without one"), "{}", refused.text);
    }
    let call = server.request(&axum::http::Method::POST, "/api/calls/sessions/new");
    assert_eq!(answer(call.header("cookie", eve.cookie())).await.status, 401);
    let named = server.get("/").header("cf-access-authenticated-user-email", "ada@example.com");
    assert_eq!(answer(named).await.status, 200);
}

#[tokio::test]
async fn members_see_the_auth_method_of_a_name() {
    let server = TestServer::with(|config| {
        believe_a_header(config);
        trust_this_machine(config);
        config.identity.required = false;
    });
    let server = server.await;
    let mut ada = named_by_proxy("ada@example.com").pk("a").open(&server).await;
    let eve = Person::log_in(&server, "ada@example.com").await;
    let mut eve = Ask::room("r").by(&eve).pk("e").open(&server).await;
    // Any client can choose a name, and also send this field.
    eve.say(json!({"type": "userUpdate", "user": {"raisedHand": true, "authMethod": "proxyHeader"}})).await;
    let both = |state: &serde_json::Value| {
        let users = state["users"].as_array().unwrap();
        users.len() == 2 && users.iter().any(|user| user["raisedHand"] == true)
    };
    let state = ada.until_state(both).await;
    assert_eq!(user_of(&state, "a")["authMethod"], "proxyHeader");
    assert_eq!(user_of(&state, "e").get("authMethod"), None);
    ada.say(json!({"type": "userUpdate", "user": {"raisedHand": true, "authMethod": 7}})).await;
    eve.say(json!({"type": "muteMic", "id": "a"})).await;
    let all = |state: &serde_json::Value| {
        state["users"].as_array().unwrap().iter().all(|user| user["raisedHand"] == true)
    };
    let state = eve.until_state(all).await;
    assert_eq!(user_of(&state, "a")["authMethod"], "proxyHeader");
}

#[tokio::test]
async fn foreign_origin_opens_no_socket() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let ask = Ask::room("r").by(&ada).pk("a");
    let foreign = [
        EVIL,
        "null",
        "",
        "http://localhost:1",
        "http://127.0.0.1",
        &format!("{}.evil.example", server.http()),
        &format!("{}@evil.example", server.http()),
    ];
    for origin in foreign {
        let refused = ask.clone().header("origin", origin).answer(&server).await;
        assert_eq!(refused.status, 403, "{origin} was accepted");
    }
    assert_eq!(server.refusals("foreign_origin").await, foreign.len() as f64);
    assert_eq!(server.metric("satsuma_rooms").await, 0.0);
    let _own = ask.header("origin", &server.http()).open(&server).await;
}

#[tokio::test]
async fn foreign_origin_sends_no_form() {
    let server = TestServer::start().await;
    for path in ["/set-username", "/?index"] {
        let form = || server.post_form(path, &[("username", "Eve"), ("room", "r")]);
        let refused = answer(form().header("origin", EVIL)).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (403, ""));
        assert_eq!(answer(form().header("origin", "null")).await.status, 403);
        assert_eq!(answer(form().header("origin", server.http())).await.status, 302);
        assert_eq!(answer(form()).await.status, 302, "without an Origin it is no browser's");
    }
    assert_eq!(server.refusals("foreign_origin").await, 4.0);
}

#[tokio::test]
async fn allowed_origins_open_sockets_and_send_forms() {
    let server = TestServer::with(|config| {
        config.http.allowed_origins = vec!["https://partner.example".parse().unwrap()]
    });
    let server = server.await;
    let ada = Person::log_in(&server, "Ada").await;
    let ask = Ask::room("r").by(&ada).pk("a");
    let _partner = ask.clone().header("origin", "https://partner.example").open(&server).await;
    let _own = ask.clone().header("origin", &server.http()).open(&server).await;
    assert_eq!(ask.header("origin", "http://partner.example").answer(&server).await.status, 403);
    let form = server.post_form("/set-username", &[("username", "Ada")]);
    assert_eq!(answer(form.header("origin", "https://partner.example")).await.status, 302);
}

#[tokio::test]
async fn public_url_replaces_the_host_as_origin() {
    let server = TestServer::with(|config| {
        config.http.public_url = Optional(Some("https://meet.example".parse().unwrap()))
    });
    let server = server.await;
    let ada = Person::log_in(&server, "Ada").await;
    let ask = Ask::room("r").by(&ada).pk("a");
    assert_eq!(ask.clone().header("origin", &server.http()).answer(&server).await.status, 403);
    let _ours = ask.header("origin", "https://meet.example").open(&server).await;
}

#[tokio::test]
async fn forwarded_host_counts_from_trusted_proxy_only() {
    let anywhere = TestServer::start().await;
    let behind_proxy = TestServer::with(trust_this_machine).await;
    let mut seen = Vec::new();
    for server in [&anywhere, &behind_proxy] {
        let ada = Person::log_in(server, "Ada").await;
        let ask = Ask::room("r").by(&ada).pk("a").header("x-forwarded-host", "evil.example");
        // Without TLS nothing proves that the name is the server's.
        let ask = ask.header("x-forwarded-proto", "https");
        seen.push(ask.header("origin", EVIL).answer(server).await.status);
    }
    assert_eq!(seen, [403, 101]);
}

#[tokio::test]
async fn invalid_name_is_refused_with_a_sentence() {
    let server = TestServer::start().await;
    for name in ["", "   ", "a\nb", "a\u{0}", "\u{7f}", "a\u{85}b", &"x".repeat(65), &"🍊".repeat(65)] {
        let refused = answer(server.post_form("/set-username", &[("username", name)])).await;
        assert_eq!((refused.status, refused.header("set-cookie")), (400, ""), "{name:?}");
        assert_eq!(refused.text, "a name has 1 to 64 characters and no control or invisible characters\n");
    }
    for (typed, shown) in
        [(" Ada ", "Ada"), ("Zoë \"Z\" <b>", "Zoë \"Z\" <b>"), (&"🍊".repeat(64), &"🍊".repeat(64))]
    {
        let mut client = Client::join(&server, "r", typed).await;
        let pk = client.pk();
        client.until_state(|state| user_of(state, &pk)["name"] == shown).await;
        client.close().await;
    }
}

#[tokio::test]
async fn same_name_gets_distinct_identities() {
    let server = TestServer::start().await;
    let (one, other) = (Person::log_in(&server, "Ada").await, Person::log_in(&server, "Ada").await);
    let mut first = Ask::room("r").by(&one).pk("a").open(&server).await;
    let _second = Ask::room("r").by(&other).pk("b").open(&server).await;
    let state = first.until_users(&["a", "b"]).await;
    assert_eq!(user_of(&state, "a")["name"], user_of(&state, "b")["name"]);
    assert_eq!(Ask::room("r").by(&one).pk("b").answer(&server).await.status, 403);
    assert_eq!(Ask::room("r").by(&other).pk("a").answer(&server).await.status, 403);
}

#[tokio::test]
async fn rename_keeps_the_call_and_shows_on_return() {
    let server = TestServer::start().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut first = Ask::room("r").by(&ada).pk("a").open(&server).await;
    first.say(json!({"type": "userUpdate", "user": {"raisedHand": true}})).await;
    first.until_state(|state| user_of(state, "a")["raisedHand"] == true).await;
    let renamed = ada.rename(&server, "Ada L.").await;
    first.echo().await;
    first.drop_tcp().await;
    let mut back = Ask::room("r").by(&renamed).pk("a").open(&server).await;
    let state = back.until_users(&["a"]).await;
    assert_eq!(user_of(&state, "a")["name"], "Ada L.");
    assert_eq!(user_of(&state, "a")["raisedHand"], true);
    // The old cookie still has the same identity.
    let _old = Ask::room("r").by(&ada).pk("a").open(&server).await;
}

#[tokio::test]
async fn cookie_is_secure_behind_an_https_proxy() {
    let anywhere = TestServer::start().await;
    let behind_proxy = TestServer::with(trust_this_machine).await;
    for (server, forwarded, secure) in [
        (&anywhere, None, false),
        (&anywhere, Some("https"), false),
        (&behind_proxy, None, false),
        (&behind_proxy, Some("http"), false),
        (&behind_proxy, Some("https"), true),
    ] {
        let mut form = server.post_form("/set-username", &[("username", "Ada")]);
        if let Some(scheme) = forwarded {
            form = form.header("x-forwarded-proto", scheme);
        }
        let sent = answer(form).await;
        let mut attributes: Vec<&str> = sent.header("set-cookie").split("; ").skip(1).collect();
        attributes.sort_unstable();
        let mut wanted = vec!["HttpOnly", "Max-Age=31536000", "Path=/", "SameSite=Lax"];
        wanted.extend(secure.then_some("Secure"));
        assert_eq!(attributes, wanted, "{forwarded:?}");
    }
}
