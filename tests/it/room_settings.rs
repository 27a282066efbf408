//! Settings of rooms, their passwords, and moderation over HTTP.

use std::time::Duration;

use axum::http::Method;
use satsuma::config::ModeratorDefault;
use serde_json::{Value, json};

use crate::access_tokens::{auth, token_with};
use crate::client::{Ask, Client};
use crate::harness::{Answer, Person, TestServer, answer, eventually};

async fn send(server: &TestServer, method: Method, path: &str, proof: (&str, &str), body: &Value) -> Answer {
    let request = server.request(&method, path).header(proof.0, proof.1);
    answer(request.header("origin", server.http()).body(body.to_string())).await
}

async fn post(server: &TestServer, path: &str, person: &Person, body: &Value) -> Answer {
    send(server, Method::POST, path, ("cookie", person.cookie()), body).await
}

async fn enter(server: &TestServer, person: &Person, password: &str) -> u16 {
    post(server, "/api/rooms/r/enter", person, &json!({"password": password})).await.status
}

fn join(person: &Person, pk: &str) -> Ask {
    Ask::room("r").by(person).pk(pk)
}

async fn done(answered: Answer) {
    assert_eq!((answered.status, answered.json()), (200, json!({"ok": true})), "{answered:?}");
}

#[tokio::test]
async fn password_opens_a_room_to_whoever_knows_it() {
    let server = TestServer::start().await;
    done(server.admin_put("/admin/rooms/r/settings", &json!({"password": "open sesame"})).await).await;
    let settings = server.admin_get("/admin/rooms/r/settings").await.json();
    let expected = json!({"locked": false, "waitingRoom": false, "chat": true, "screens": true, "videos": true, "files": false, "chatHistory": true,
               "password": true});
    assert_eq!(settings, expected);
    let (ada, bob) = (Person::log_in(&server, "Ada").await, Person::log_in(&server, "Bob").await);
    let refused = join(&ada, "a").answer(&server).await;
    assert_eq!((refused.status, &*refused.text), (403, "this room has a password\n"));
    assert_eq!(enter(&server, &ada, "open sesam").await, 403);
    assert_eq!(enter(&server, &ada, "").await, 403);
    assert_eq!(join(&ada, "a").answer(&server).await.status, 403);
    assert_eq!(enter(&server, &ada, "open sesame").await, 204);
    let mut a = join(&ada, "a").open(&server).await;
    let state = a.until_users(&["a"]).await;
    assert_eq!(state["room"]["password"], true);
    assert!(!state.to_string().contains("argon2"));
    assert_eq!(join(&bob, "b").answer(&server).await.status, 403, "it is that identity's");

    // Over the other protocol as well.
    let mut phoenix = Ask::path("/socket/websocket?vsn=2.0.0")
        .by(&bob)
        .header("origin", &server.http())
        .open(&server)
        .await;
    let try_join = async |phoenix: &mut Client, reference: &str| {
        phoenix.say(json!([reference, reference, "room:r", "phx_join", {"_pk": "b"}])).await;
        phoenix.until(|frame| frame[1] == reference && frame[3] == "phx_reply").await[4].clone()
    };
    assert_eq!(try_join(&mut phoenix, "1").await["response"]["reason"], "this room has a password");
    assert_eq!(enter(&server, &bob, "open sesame").await, 204);
    assert_eq!(try_join(&mut phoenix, "2").await["status"], "ok");

    // Neither the log nor the database has the password itself.
    assert!(!crate::harness::logged().contains("open sesame"));
    let stored = std::fs::read(server.data_dir().join("satsuma.db")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&stored).contains("open sesame"));

    // It outlasts a restart and the meeting; another one makes who knew the first ask again.
    drop((a, phoenix));
    let server = server.restart().await;
    let cyd = Person::log_in(&server, "Cyd").await;
    assert_eq!(join(&cyd, "c").answer(&server).await.status, 403);
    assert_eq!(enter(&server, &cyd, "open sesame").await, 204);
    done(server.admin_put("/admin/rooms/r/settings", &json!({"password": "another"})).await).await;
    assert_eq!(join(&cyd, "c").answer(&server).await.status, 403);
    done(server.admin_put("/admin/rooms/r/settings", &json!({"password": null})).await).await;
    join(&cyd, "c").open(&server).await;
}

#[tokio::test]
async fn guesses_are_limited_by_network_and_room() {
    let server = TestServer::with(|config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.limits.passwords_per_minute_per_network = 2;
        config.limits.passwords_per_minute_per_room = 3;
    })
    .await;
    done(server.admin_put("/admin/rooms/r/settings", &json!({"password": "p"})).await).await;
    let guess = async |network: &str| {
        let person = Person::log_in(&server, "Eve").await;
        let request = server.request(&Method::POST, "/api/rooms/r/enter").header("cookie", person.cookie());
        answer(request.header("x-forwarded-for", network).body(r#"{"password":"x"}"#)).await
    };
    for _ in 0..2 {
        assert_eq!(guess("192.0.2.1").await.status, 403);
    }
    let refused = guess("192.0.2.1").await;
    assert_eq!((refused.status, refused.text.contains("from this network")), (429, true), "{refused:?}");
    assert_eq!(guess("192.0.2.2").await.status, 403);
    let refused = guess("192.0.2.3").await;
    assert_eq!((refused.status, refused.text.contains("for this room")), (429, true), "{refused:?}");
}

#[tokio::test]
async fn settings_of_a_moderator_end_with_the_meeting_and_those_of_a_token_do_not() {
    let server = TestServer::with(|config| {
        config.moderation.default = ModeratorDefault::First;
        config.auth = auth();
        config.room.tick = Duration::from_millis(50);
    })
    .await;
    let path = "/api/rooms/r/settings";
    let (host, guest) = (Person::log_in(&server, "Host").await, Person::log_in(&server, "Guest").await);
    let closed = json!({"waitingRoom": true, "chat": false});
    let put = async |person: &Person, body: &Value| {
        send(&server, Method::PUT, path, ("cookie", person.cookie()), body).await
    };
    assert_eq!(put(&host, &closed).await.status, 404, "no meeting runs");
    let mut h = join(&host, "h").open(&server).await;
    h.until_users(&["h"]).await;
    let mut g = join(&guest, "g").open(&server).await;
    g.until_users(&["g", "h"]).await;
    assert_eq!(put(&guest, &closed).await.status, 403);
    done(put(&host, &closed).await).await;
    let state = g.until_state(|state| state["room"]["chat"] == false).await;
    assert_eq!(
        state["room"],
        json!({"moderators": ["h"], "locked": false, "waitingRoom": true, "chat": false})
    );
    for (body, field) in [
        (json!({"wiatingRoom": true}), "wiatingRoom"),
        (json!({"password": ""}), "\"password\" has 1 to 128 characters"),
        (json!({"locked": "yes"}), "locked"),
    ] {
        let refused = put(&host, &body).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(
            refused.json()["error"].as_str().unwrap().contains(field) || field == "locked",
            "{refused:?}"
        );
    }
    // The meeting ends, and its settings with it.
    for client in [&mut h, &mut g] {
        client.say(json!({"type": "userLeft"})).await;
        client.closed().await;
    }
    let is_over = async || server.admin_get("/admin/rooms/r").await.status == 404;
    eventually("the meeting is over".to_owned(), is_over).await;
    let after = server.admin_get("/admin/rooms/r/settings").await.json();
    assert_eq!((&after["waitingRoom"], &after["chat"]), (&json!(false), &json!(true)));

    let bearer = |grants: Value| format!("Bearer {}", token_with("app", "r", grants));
    let by_token = async |server: &TestServer, token: &str, body: &Value| {
        send(server, Method::PUT, path, ("authorization", token), body).await
    };
    assert_eq!(by_token(&server, &bearer(json!({})), &closed).await.status, 404);
    assert_eq!(by_token(&server, &bearer(json!({"create": true})), &closed).await.status, 404);
    let both = json!({"create": true, "moderate": true});
    let other = format!("Bearer {}", token_with("app", "other", both.clone()));
    assert_eq!(by_token(&server, &other, &closed).await.status, 403);
    done(by_token(&server, &bearer(both), &closed).await).await;
    let server = server.restart().await;
    assert_eq!(server.admin_get("/admin/rooms/r/settings").await.json()["waitingRoom"], true);
    let late = Person::log_in(&server, "Late").await;
    let refused = join(&late, "l").answer(&server).await;
    assert_eq!((refused.status, &*refused.text), (403, "a moderator has to let you in; please wait\n"));
}

#[tokio::test]
async fn token_and_host_moderate_over_http() {
    let server = TestServer::with(|config| {
        config.moderation.default = ModeratorDefault::First;
        config.auth = auth();
    })
    .await;
    let path = "/api/rooms/r/moderate";
    let (host, guest) = (Person::log_in(&server, "Host").await, Person::log_in(&server, "Guest").await);
    let mut h = join(&host, "h").open(&server).await;
    h.until_users(&["h"]).await;
    let mut g = join(&guest, "g").open(&server).await;
    let lock = json!({"action": "lock", "on": true});
    let refused = post(&server, path, &guest, &lock).await;
    assert_eq!((refused.status, &refused.json()["error"]), (403, &json!("you may not moderate this room")));
    // A page of another site cannot do it with the host's cookie.
    let foreign = server.request(&Method::POST, path).header("cookie", host.cookie());
    let foreign = answer(foreign.header("origin", "https://evil.example").body(lock.to_string())).await;
    assert_eq!(foreign.status, 403, "{foreign:?}");
    done(post(&server, path, &host, &lock).await).await;
    g.until_state(|state| state["room"]["locked"] == true).await;
    let token = format!("Bearer {}", token_with("app", "r", json!({"moderate": true})));
    let rename = json!({"action": "rename", "id": "g", "name": "Gast"});
    done(send(&server, Method::POST, path, ("authorization", &token), &rename).await).await;
    g.until_state(|state| state["users"][0]["name"] == "Gast").await;
    done(
        send(
            &server,
            Method::POST,
            path,
            ("authorization", &token),
            &json!({"action": "spotlight", "id": "g"}),
        )
        .await,
    )
    .await;
    h.until_state(|state| state["room"]["spotlight"] == "g").await;
    let none = send(&server, Method::POST, path, ("authorization", &token), &json!({"action": "fly"})).await;
    assert_eq!(none.status, 400, "{none:?}");

    // The end, for everyone; clients that come back by themselves start no other meeting.
    done(post(&server, path, &host, &json!({"action": "end"})).await).await;
    for client in [h, g] {
        let mut client = client;
        assert_eq!(client.until(|message| message["type"] == "ended").await, json!({"type": "ended"}));
        assert_eq!(client.closed().await, (4410, "The meeting was ended".to_owned()));
        let back = client.ask().answer(&server).await;
        assert_eq!((back.status, &*back.text), (403, "a moderator ended this meeting\n"));
    }
    let server = server.restart().await;
    let back = join(&guest, "g").answer(&server).await;
    assert_eq!((back.status, &*back.text), (403, "a moderator ended this meeting\n"));
    join(&guest, "after-a-reload").open(&server).await;
}

/// A token outlasts what a meeting decides about its holder.
#[tokio::test]
async fn removed_holder_changes_no_settings() {
    let server = TestServer::with(|config| config.auth = auth()).await;
    let host = format!("Bearer {}", token_with("host", "r", json!({"moderate": true, "create": true})));
    let by_host = ("authorization", host.as_str());
    let mut ann = Ask::room("r").header(by_host.0, by_host.1).pk("ann").open(&server).await;
    ann.until_users(&["ann"]).await;
    let path = "/api/rooms/r/settings";
    let change = json!({"chat": false});
    done(send(&server, Method::PUT, path, by_host, &change).await).await;
    let guest = Person::log_in(&server, "Guest").await;
    let mut guest = join(&guest, "g").open(&server).await;
    guest.until_users(&["ann", "g"]).await;
    for action in ["revokeModeration", "remove"] {
        let action = json!({"action": action, "id": "ann"});
        done(server.admin_post("/admin/rooms/r/moderate", &action).await).await;
        let refused = send(&server, Method::PUT, path, by_host, &json!({"chat": true})).await;
        assert_eq!(refused.status, 403, "{refused:?}");
        let settings = server.admin_get("/admin/rooms/r/settings").await.json();
        assert_eq!(settings["chat"], false, "{action}");
    }
}
