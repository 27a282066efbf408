//! Files in the chat: shared by members, got by members, gone with the meeting.

use std::path::PathBuf;

use axum::http::Method;
use reqwest::Body;
use satsuma::config::{ModeratorDefault, Sharing};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::Ask;
use crate::harness::{Answer, Person, TestServer, answer, eventually};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and what follows";

async fn everyone() -> TestServer {
    TestServer::with(|config| config.files.sharing = Sharing::Everyone).await
}

fn join(person: &Person, pk: &str) -> Ask {
    Ask::room("r").by(person).pk(pk)
}

pub async fn share(server: &TestServer, person: &Person, name: &str, content: impl Into<Body>) -> Answer {
    let path = format!("/api/rooms/r/files?name={name}");
    let request = server.request(&Method::POST, &path).header("cookie", person.cookie());
    answer(request.header("origin", server.http()).body(content)).await
}

pub async fn get(server: &TestServer, person: &Person, room: &str, id: &Value) -> Answer {
    let path = format!("/api/rooms/{room}/files/{}", id.as_str().unwrap());
    answer(server.request(&Method::GET, &path).header("cookie", person.cookie())).await
}

pub fn folder(server: &TestServer) -> PathBuf {
    server.data_dir().join("files")
}

/// Clients that go when they have sent the last byte leave a line and its file, or neither.
#[tokio::test]
async fn file_of_a_client_that_goes_is_whole_or_nothing() {
    let server = TestServer::with(|config| {
        config.files.sharing = Sharing::Everyone;
        (config.files.per_minute, config.files.per_minute_per_network) = (0, 0);
    })
    .await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut a = join(&ada, "a").open(&server).await;
    a.until_users(&["a"]).await;
    let head = format!(
        "POST /api/rooms/r/files?name=x HTTP/1.1\r\nhost: {address}\r\norigin: http://{address}\r\ncookie: {cookie}\r\n\
         content-length: 5\r\n\r\nhello",
        address = server.addresses().http,
        cookie = ada.cookie()
    );
    for _ in 0..60 {
        let mut stream = TcpStream::connect(server.addresses().http).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
    }
    // Its line follows all that were told before.
    let last = share(&server, &ada, "last", "x").await;
    assert_eq!(last.status, 201, "{last:?}");
    let mut told = std::collections::HashSet::new();
    loop {
        let file = a.until(|message| message["type"] == "chat").await["file"].clone();
        told.insert(file["id"].as_str().unwrap().to_owned());
        if file == last.json() {
            break;
        }
    }
    let is_told = async || {
        let meetings = std::fs::read_dir(folder(&server)).unwrap();
        let names = meetings.flat_map(|meeting| std::fs::read_dir(meeting.unwrap().path()).unwrap());
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.contains('.')).all(|name| told.contains(&name))
    };
    eventually("every file has its line".to_owned(), is_told).await;
    let end = json!({"action": "end"});
    assert_eq!(server.admin_post("/admin/rooms/r/moderate", &end).await.status, 200);
    let files = folder(&server);
    eventually("the folder is gone".to_owned(), async || is_empty(&files)).await;
}

pub fn is_empty(folder: &PathBuf) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test]
async fn members_share_files_and_members_alone_get_them() {
    let server = everyone().await;
    let [ada, bob, eve] = ["Ada", "Bob", "Eve"].map(|name| Person::log_in(&server, name));
    let (ada, bob, eve) = (ada.await, bob.await, eve.await);
    let mut a = join(&ada, "a").open(&server).await;
    let mut phoenix = Ask::path("/socket/websocket?vsn=2.0.0")
        .by(&bob)
        .header("origin", &server.http())
        .open(&server)
        .await;
    phoenix.say(json!(["1", "1", "room:r", "phx_join", {"_pk": "b"}])).await;
    a.until_users(&["a", "b"]).await;

    let shared = share(&server, &ada, "h%C3%A9%20%22.png", PNG).await;
    assert_eq!(shared.status, 201, "{shared:?}");
    let file = shared.json();
    assert_eq!((&file["name"], &file["kind"]), (&json!("hé \".png"), &json!("image/png")), "by its content");
    let line = a.until(|message| message["type"] == "chat").await;
    assert_eq!((&line["from"], &line["file"]), (&json!("a"), &file));
    assert_eq!(line["message"], "hé \".png (25 bytes)", "for clients that know no files");
    let by_phoenix = phoenix.until(|frame| frame[3] == "chat").await;
    assert_eq!(by_phoenix[4]["file"], file);

    let got = get(&server, &bob, "r", &file["id"]).await;
    assert_eq!((got.status, got.text.as_bytes().ends_with(b"and what follows")), (200, true), "{got:?}");
    assert_eq!(got.header("content-disposition"), "attachment; filename*=UTF-8''h%C3%A9%20%22%2Epng");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert_eq!(got.header("content-security-policy"), "default-src 'none'; sandbox");
    assert_eq!(got.header("content-type"), "image/png");
    assert_eq!(got.header("cache-control"), "private, no-store");

    // Whoever knows the id and is no member gets nothing, and learns nothing.
    assert_eq!(get(&server, &eve, "r", &file["id"]).await.status, 404);
    let _e = Ask::room("another").by(&eve).pk("e").open(&server).await;
    assert_eq!(get(&server, &eve, "another", &file["id"]).await.status, 404);
    assert_eq!(get(&server, &eve, "r", &file["id"]).await.status, 404);
    assert_eq!(share(&server, &eve, "x", "x").await.status, 404);

    // A later member reads of it, and so do all after a restart.
    let mut e = join(&eve, "e").open(&server).await;
    let history = e.until(|message| message["type"] == "chatHistory").await;
    assert_eq!(history["messages"][0]["file"], file);
    assert_eq!(get(&server, &eve, "r", &file["id"]).await.status, 200);
    drop((a, e, phoenix));
    let server = server.restart().await;
    let _a = join(&ada, "a").open(&server).await;
    assert_eq!(get(&server, &ada, "r", &file["id"]).await.status, 200);

    // The end of the meeting is theirs.
    let end = json!({"action": "end"});
    assert_eq!(server.admin_post("/admin/rooms/r/moderate", &end).await.status, 200);
    let files = folder(&server);
    eventually("its folder is gone".to_owned(), async || is_empty(&files)).await;
    let _b = Ask::room("r").by(&bob).pk("b2").open(&server).await;
    assert_eq!(get(&server, &bob, "r", &file["id"]).await.status, 404, "another meeting");
}

#[tokio::test]
async fn moderators_decide_who_shares_files() {
    let server = TestServer::with(|config| config.moderation.default = ModeratorDefault::First).await;
    let (ada, bob) = (Person::log_in(&server, "Ada").await, Person::log_in(&server, "Bob").await);
    let mut a = join(&ada, "a").open(&server).await;
    let mut b = join(&bob, "b").open(&server).await;
    a.until_users(&["a", "b"]).await;
    let refused = share(&server, &bob, "x", "x").await;
    assert_eq!(
        (refused.status, refused.json()["error"].clone()),
        (403, json!("only moderators share files in this room"))
    );
    assert_eq!(share(&server, &ada, "x", "x").await.status, 201);
    a.say(json!({"type": "moderate", "action": "files", "on": true})).await;
    b.until_state(|state| state["room"]["files"] == true).await;
    assert_eq!(share(&server, &bob, "x", "x").await.status, 201);
    a.say(json!({"type": "moderate", "action": "chat", "on": false})).await;
    b.until_state(|state| state["room"]["chat"] == false).await;
    assert_eq!(share(&server, &bob, "x", "x").await.json()["error"], "you may not write to the chat");

    let server = TestServer::with(|config| config.files.sharing = Sharing::Nobody).await;
    let ada = Person::log_in(&server, "Ada").await;
    let _a = join(&ada, "a").open(&server).await;
    let on = json!({"files": true});
    assert_eq!(server.admin_put("/admin/rooms/r/settings", &on).await.status, 200);
    let refused = share(&server, &ada, "x", "x").await;
    assert_eq!((refused.status, &*refused.text), (403, "this server does not let members share files\n"));
}

#[tokio::test]
async fn files_over_a_limit_leave_nothing_behind() {
    let server = TestServer::with(|config| {
        config.files.sharing = Sharing::Everyone;
        config.files.file_bytes = 1000;
        config.files.room_bytes = 2000;
        config.files.identity_bytes = 1500;
        config.files.per_minute = 12;
    })
    .await;
    let (ada, bob) = (Person::log_in(&server, "Ada").await, Person::log_in(&server, "Bob").await);
    let (_a, _b) = (join(&ada, "a").open(&server).await, join(&bob, "b").open(&server).await);
    let refusal = async |person: &Person, bytes: usize| {
        let refused = share(&server, person, "x", "x".repeat(bytes)).await;
        let json: Value = serde_json::from_str(&refused.text).unwrap_or_default();
        (refused.status, json["error"].as_str().unwrap_or_default().to_owned())
    };
    let too_large = (413, "the file has more than 1000 bytes (files.file_bytes)".to_owned());
    assert_eq!(refusal(&ada, 1001).await, too_large);
    // One that does not say how long it is.
    let parts = (0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(100)));
    let endless = Body::wrap_stream(futures_util::stream::iter(parts));
    assert_eq!(share(&server, &ada, "x", endless).await.status, 413);
    assert_eq!(refusal(&ada, 1000).await.0, 201);
    let own = (409, "your files would have more than 1500 bytes (files.identity_bytes)".to_owned());
    assert_eq!(refusal(&ada, 600).await, own);
    let of_room =
        (409, "the files of this meeting would have more than 2000 bytes (files.room_bytes)".to_owned());
    assert_eq!(refusal(&bob, 1000).await.0, 201);
    assert_eq!(refusal(&ada, 500).await, of_room);
    for name in ["", "..%2Fx", "a%00b", &"x".repeat(129)] {
        let refused = share(&server, &ada, name, "x").await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.text.contains("\"name\"") || refused.text.contains("name"), "{refused:?}");
    }
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && statuses.len() < 20 {
        statuses.push(refusal(&ada, 600).await.0);
    }
    assert_eq!(statuses.last(), Some(&429));
    // Two files, each with its description.
    let meeting = std::fs::read_dir(folder(&server)).unwrap().next().unwrap().unwrap().path();
    let whole = async || std::fs::read_dir(&meeting).unwrap().count() == 4;
    eventually("nothing else is there".to_owned(), whole).await;
}

#[tokio::test]
async fn files_of_meetings_that_are_over_are_swept_at_the_start() {
    let server = everyone().await;
    let stopped = server.stop().await;
    let left = stopped.data_dir().join("files/6b1f4a2e-6c5c-4a0e-9d0e-3f1f6c1d2e3f");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("AAAAAAAAAAAAAAAAAAAAAA"), "x").unwrap();
    let _server = stopped.start_with(|_| {}).await;
    assert!(!left.exists());
}

#[tokio::test]
async fn foreign_page_shares_nothing() {
    let server = everyone().await;
    let ada = Person::log_in(&server, "Ada").await;
    let mut a = join(&ada, "a").open(&server).await;
    let request = server.request(&Method::POST, "/api/rooms/r/files?name=x").header("cookie", ada.cookie());
    let refused = answer(request.header("origin", "https://evil.example").body("x")).await;
    assert_eq!(refused.status, 403);
    assert!(a.echo().await.iter().all(|message| message["type"] != "chat"));
    assert!(is_empty(&folder(&server)));
}
