//! Moderation over the wire: two protocols, the operators' API, and evasions of what moderators decided.

use satsuma::config::ModeratorDefault;
use serde_json::{Value, json};

use crate::access_tokens::{auth, token_with};
use crate::client::{Ask, Client};
use crate::harness::{Person, TestServer};

fn room(person: &Person, pk: &str) -> Ask {
    Ask::room("r").by(person).pk(pk)
}

/// Asks for an action, and waits for its answer.
async fn act(client: &mut Client, mut action: Value) -> Value {
    action["type"] = "moderate".into();
    action["ref"] = "1".into();
    client.say(action).await;
    client.until(|message| message["type"] == "moderated").await
}

fn done() -> Value {
    json!({"type": "moderated", "ref": "1", "ok": true})
}

async fn phoenix(server: &TestServer, person: &Person) -> Client {
    Ask::path("/socket/websocket?vsn=2.0.0").by(person).header("origin", &server.http()).open(server).await
}

async fn phoenix_join(client: &mut Client, reference: &str, pk: &str) -> Value {
    client.say(json!([reference, reference, "room:r", "phx_join", {"_pk": pk}])).await;
    client.until(|frame| frame[1] == reference && frame[3] == "phx_reply").await[4].clone()
}

/// Two hosts and three guests, of whom one comes over Phoenix.
#[tokio::test]
async fn hosts_run_a_meeting_with_guests() {
    let server = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let people = ["Host", "Second", "Ann", "Bob", "Cyd"];
    let mut persons = Vec::new();
    for name in people {
        persons.push(Person::log_in(&server, name).await);
    }
    let [first, second, ann, bob, cyd] = &persons[..] else { unreachable!() };
    let mut host = room(first, "h").open(&server).await;
    let state = host.until_users(&["h"]).await;
    assert_eq!(state["room"], json!({"moderators": ["h"], "locked": false, "waitingRoom": false}));
    let mut other = room(second, "s").open(&server).await;
    host.until_users(&["h", "s"]).await;
    assert_eq!(act(&mut host, json!({"action": "grantModeration", "id": "s"})).await, done());
    let state = host.until_state(|state| state["room"]["moderators"] == json!(["h", "s"])).await;
    assert_eq!(state["room"]["locked"], false);

    // The waiting room, for each protocol.
    assert_eq!(act(&mut other, json!({"action": "waitingRoom", "on": true})).await, done());
    let waits = room(ann, "a").answer(&server).await;
    assert_eq!((waits.status, &*waits.text), (403, "a moderator has to let you in; please wait\n"));
    let mut by_phoenix = phoenix(&server, bob).await;
    let reply = phoenix_join(&mut by_phoenix, "1", "b").await;
    assert_eq!(reply["response"]["reason"], "a moderator has to let you in; please wait");
    for moderator in [&mut host, &mut other] {
        let knocks =
            moderator.until(|message| message["knocks"].as_array().is_some_and(|all| all.len() == 2)).await;
        let both = json!([{"id": "a", "name": "Ann"}, {"id": "b", "name": "Bob"}]);
        assert_eq!(knocks, json!({"type": "knocks", "knocks": both}));
    }
    for id in ["a", "b"] {
        assert_eq!(act(&mut host, json!({"action": "admit", "id": id})).await, done());
    }
    let mut guest = room(ann, "a").open(&server).await;
    assert_eq!(phoenix_join(&mut by_phoenix, "2", "b").await["status"], "ok");
    guest.until_users(&["a", "b", "h", "s"]).await;

    // Guests may not.
    let refused = act(&mut guest, json!({"action": "remove", "id": "h"})).await;
    assert_eq!(refused["error"], "you may not moderate this room");
    by_phoenix.say(json!(["2", "3", "room:r", "moderate", {"action": "lock", "on": true}])).await;
    let reply = by_phoenix.until(|frame| frame[1] == "3" && frame[3] == "phx_reply").await;
    assert_eq!(reply[4]["response"]["reason"], "you may not moderate this room");
    guest.say(json!({"type": "muteUser", "id": "h"})).await;
    assert_eq!(guest.until(|message| message["type"] == "error").await["error"], "you may not mute others");

    assert_eq!(act(&mut host, json!({"action": "mute", "id": "a"})).await, done());
    guest.until(|message| message["type"] == "muteMic").await;

    // A removed guest hears why, and comes back by no way.
    let action = json!({"action": "remove", "id": "a", "reason": "noise"});
    assert_eq!(act(&mut host, action).await, done());
    let removed = guest.until(|message| message["type"] == "removed").await;
    assert_eq!(removed, json!({"type": "removed", "by": "Host", "reason": "noise"}));
    assert_eq!(guest.closed().await, (4403, "Removed by a moderator".to_owned()));
    for pk in ["a", "another"] {
        let out = room(ann, pk).answer(&server).await;
        assert_eq!((out.status, &*out.text), (403, "a moderator removed you from this meeting\n"));
    }
    let renamed = ann.rename(&server, "Somebody else").await;
    assert_eq!(room(&renamed, "x").try_open(&server).await.err(), Some(403));
    let mut second_protocol = phoenix(&server, ann).await;
    let reply = phoenix_join(&mut second_protocol, "1", "y").await;
    assert_eq!(reply["response"]["reason"], "a moderator removed you from this meeting");

    // A moderator on Phoenix is told as everybody else is.
    assert_eq!(act(&mut host, json!({"action": "lock", "on": true})).await, done());
    assert_eq!(act(&mut host, json!({"action": "waitingRoom", "on": false})).await, done());
    let locked = room(cyd, "c").answer(&server).await;
    assert_eq!((locked.status, &*locked.text), (403, "this meeting is locked\n"));
    by_phoenix.until(|frame| frame[4]["state"]["room"]["locked"] == true).await;

    // The rules outlast a restart.
    drop((host, other, by_phoenix, second_protocol));
    let server = server.restart().await;
    assert_eq!(room(ann, "a").answer(&server).await.text, "a moderator removed you from this meeting\n");
    assert_eq!(room(cyd, "c").answer(&server).await.text, "this meeting is locked\n");
    let mut host = room(first, "h").open(&server).await;
    assert_eq!(act(&mut host, json!({"action": "lock", "on": false})).await, done());
    room(cyd, "c").open(&server).await.until_users(&["b", "c", "h", "s"]).await;
}

#[tokio::test]
async fn token_with_the_grant_moderates() {
    let server = TestServer::with(|config| {
        config.auth = auth();
        config.moderation.default = ModeratorDefault::Nobody;
    })
    .await;
    let bearer = |token: &str| Ask::room("r").header("authorization", &format!("Bearer {token}"));
    let ann = Person::log_in(&server, "Ann").await;
    let mut guest = room(&ann, "a").open(&server).await;
    let refused = act(&mut guest, json!({"action": "lock", "on": true})).await;
    assert_eq!(refused["ok"], false);
    let host = token_with("Host", "r", json!({"moderate": true}));
    let mut host = bearer(&host).pk("h").open(&server).await;
    assert_eq!(act(&mut host, json!({"action": "lock", "on": true})).await, done());
    // Moderators pass, others do not.
    let late = token_with("Late", "r", json!({"moderate": true}));
    bearer(&late).pk("l").open(&server).await.until_users(&["a", "h", "l"]).await;
    let nobody = token_with("Nobody", "r", json!({}));
    assert_eq!(bearer(&nobody).try_open(&server).await.err(), Some(403));
}

#[tokio::test]
async fn operator_moderates_over_http() {
    let server = TestServer::start().await;
    let ann = Person::log_in(&server, "Ann").await;
    let mut guest = room(&ann, "a").open(&server).await;
    guest.until_users(&["a"]).await;
    let post = async |body: Value| {
        let answered = server.admin_post("/admin/rooms/r/moderate", &body).await;
        (answered.status, answered.text)
    };
    assert_eq!(post(json!({"action": "lock", "on": true})).await, (200, r#"{"ok":true}"#.to_owned()));
    guest.until_state(|state| state["room"] == json!({"locked": true, "waitingRoom": false})).await;
    let unknown = post(json!({"action": "mute", "id": "b"})).await;
    assert_eq!(unknown, (409, r#"{"error":"\"id\" is not a member of this room","ok":false}"#.to_owned()));
    for body in [
        json!({}),
        json!({"action": "fly"}),
        json!({"action": "mute"}),
        json!({"action": "mute", "id": "ai"}),
    ] {
        assert_eq!(post(body.clone()).await.0, 400, "{body}");
    }
    let long = json!({"action": "remove", "id": "a", "reason": "x".repeat(201)});
    assert_eq!(
        post(long).await,
        (400, r#"{"error":"\"reason\" has up to 200 characters","ok":false}"#.to_owned())
    );
    assert_eq!(post(json!({"action": "remove", "id": "a"})).await.0, 200);
    assert_eq!(guest.until(|message| message["type"] == "removed").await, json!({"type": "removed"}));
    assert_eq!(guest.closed().await.0, 4403);
    let bob = Person::log_in(&server, "Bob").await;
    assert_eq!(post(json!({"action": "lock", "on": false})).await.0, 200, "until the next tick");
    let mut by_phoenix = phoenix(&server, &bob).await;
    assert_eq!(phoenix_join(&mut by_phoenix, "1", "b").await["status"], "ok");
    assert_eq!(post(json!({"action": "remove", "id": "b", "reason": "noise"})).await.0, 200);
    let removed = by_phoenix.until(|frame| frame[3] == "removed").await;
    assert_eq!(removed[4], json!({"type": "removed", "reason": "noise"}));
    // Not an error, after which it would come back.
    by_phoenix.until(|frame| frame[3] == "phx_close").await;
    let lock = json!({"action": "lock", "on": true});
    let none = server.admin_post("/admin/rooms/none/moderate", &lock).await;
    assert_eq!((none.status, none.text.as_str()), (404, "no meeting is running in this room\n"));
}
