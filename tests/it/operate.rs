//! Operators' commands: the real program, against a real server.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::access_tokens::{auth, token_with};
use crate::client::{Ask, Client};
use crate::harness::{PATIENCE, Person, Reach, TestServer, eventually};
use crate::process::{BINARY, Process};

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SATSUMA_")) {
        command.env_remove(name);
    }
    command.args(args).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program on the machine of a server, with the same settings.
fn local(server: &TestServer, args: &[&str]) -> Command {
    let mut command = program(args);
    command.current_dir(server.data_dir());
    command.env("SATSUMA_ADMIN__LISTEN", server.addresses().admin.to_string());
    command.env("SATSUMA_DATA_DIR", server.data_dir());
    command
}

/// Runs a program to its end; its output, or its exit code and its complaint.
async fn finish(mut command: Command) -> Result<String, (i32, String)> {
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        return Ok(text(output.stdout));
    }
    assert_eq!(text(output.stdout), "", "a failure prints no result");
    Err((output.status.code().unwrap(), text(output.stderr)))
}

/// Runs a command on the machine of the server.
pub async fn operate(server: &TestServer, args: &[&str]) -> Result<String, (i32, String)> {
    finish(local(server, args)).await
}

/// `satsuma events --follow`.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line comes").unwrap().expect("it runs on")
    }

    /// Reads JSON until an event of this type.
    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.line().await).unwrap();
            if event["type"] == kind {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn rooms_and_members_are_listed() {
    let server = TestServer::start().await;
    let run = async |args: &[&str]| operate(&server, args).await.unwrap();
    assert_eq!(run(&["rooms"]).await, "members  connected  queued bytes  meeting  room\n");
    let mut ada = Client::join(&server, "my room/1", "Ada").await;
    let meeting = ada.until_state(|_| true).await["meetingId"].as_str().unwrap().to_owned();
    let rooms = run(&["rooms"]).await;
    let row: Vec<_> =
        rooms.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|s| !s.is_empty()).collect();
    assert_eq!((row[0], row[1], row[3], row[4]), ("1", "1", &*meeting, "my room/1"), "{rooms}");
    let json: Value = serde_json::from_str(&run(&["rooms", "--json"]).await).unwrap();
    assert_eq!(json["rooms"][0]["room"], "my room/1");

    let room = run(&["room", "my room/1"]).await;
    assert!(room.starts_with(&format!("room     my room/1\nmeeting  {meeting}\n")), "{room}");
    assert!(room.lines().last().unwrap().starts_with(&ada.pk()) && room.ends_with("  Ada\n"), "{room}");
    let json: Value = serde_json::from_str(&run(&["room", "my room/1", "--json"]).await).unwrap();
    assert_eq!(json["members"][0]["name"], "Ada");
    let (code, error) = operate(&server, &["room", "other"]).await.unwrap_err();
    assert_eq!((code, &*error), (5, "satsuma: no room \"other\" is running; `satsuma rooms` lists them\n"));
}

#[tokio::test]
async fn kick_and_lock_are_carried_out() {
    let server = TestServer::start().await;
    let (ann, bob) = (Person::log_in(&server, "Ann").await, Person::log_in(&server, "Bob").await);
    let room = |person, pk: &str| Ask::room("r").by(person).pk(pk);
    let mut guest = room(&ann, "a").open(&server).await;
    guest.until_users(&["a"]).await;

    // By name, and without a ban.
    let said = operate(&server, &["kick", "r", "Ann", "--reason", "noise"]).await.unwrap();
    assert_eq!(said, "Ann (a) is removed from r\n");
    let removed = guest.until(|message| message["type"] == "removed").await;
    assert_eq!(removed, json!({"type": "removed", "reason": "noise"}));
    assert_eq!(guest.closed().await.0, 4403);
    let mut host = room(&bob, "b").open(&server).await;
    host.until_users(&["b"]).await;
    let mut guest = room(&ann, "a").open(&server).await;
    guest.until_users(&["a", "b"]).await;

    let said = operate(&server, &["kick", "r", "a", "--ban", "--for", "1h", "--json"]).await.unwrap();
    assert_eq!(said, "{\"ok\":true}\n");
    guest.until(|message| message["type"] == "removed").await;
    assert_eq!(room(&ann, "x").answer(&server).await.text, "a moderator removed you from this meeting\n");

    let zoe = Person::log_in(&server, "Zoe").await;
    assert_eq!(operate(&server, &["lock", "r"]).await.unwrap(), "r is locked\n");
    assert_eq!(room(&zoe, "z").answer(&server).await.text, "this meeting is locked\n");
    assert_eq!(operate(&server, &["lock", "r", "--off"]).await.unwrap(), "r is open\n");
    let mut late = room(&zoe, "z").open(&server).await;
    late.until_users(&["b", "z"]).await;

    for (args, code, said) in [
        (&["kick", "r", "nobody"][..], 5, "r has no member with the id or name \"nobody\""),
        (&["kick", "other", "a"], 5, "no room \"other\" is running"),
        (&["lock", "other"], 5, "no room \"other\" is running"),
        (&["kick", "r", "z", "--reason", &"x".repeat(201)], 1, "\"reason\" has up to 200 characters"),
        (&["kick", "r", "z", "--for", "1h"], 2, "--ban"),
        (&["kick", "r", "z", "--ban", "--for", "soon"], 2, "--for"),
    ] {
        let (found, error) = operate(&server, args).await.unwrap_err();
        assert!(found == code && error.contains(said), "{args:?}: {found}: {error}");
    }
}

#[tokio::test]
async fn every_action_is_carried_out() {
    let server = TestServer::start().await;
    let (ann, bob) = (Person::log_in(&server, "Ann").await, Person::log_in(&server, "Bob").await);
    let room = |person, pk: &str| Ask::room("r").by(person).pk(pk);
    let run = async |args: &[&str]| operate(&server, &[&["moderate", "r"], args].concat()).await;
    let mut host = room(&ann, "a").open(&server).await;
    host.until_users(&["a"]).await;

    assert_eq!(run(&["waiting-room"]).await.unwrap(), "waitingRoom is on in r\n");
    assert_eq!(room(&bob, "b").answer(&server).await.status, 403);
    let shown = operate(&server, &["room", "r"]).await.unwrap();
    assert!(
        shown.contains("waitingRoom") && shown.ends_with("waiting id  name\nb           Bob\n"),
        "{shown}"
    );
    for action in ["refuse", "unban"] {
        assert_eq!(room(&bob, "b").answer(&server).await.status, 403);
        assert_eq!(run(&[action, "b"]).await.unwrap(), format!("done: {action} b in r\n"));
    }
    assert_eq!(room(&bob, "b").answer(&server).await.status, 403);
    run(&["admit", "b"]).await.unwrap();
    let mut guest = room(&bob, "b").open(&server).await;
    guest.until_users(&["a", "b"]).await;
    run(&["waiting-room", "--off"]).await.unwrap();

    run(&["mute", "Bob", "--kind", "video"]).await.unwrap();
    guest.until(|message| message["type"] == "muted" && message["kind"] == "video").await;
    run(&["rename", "Bob", "Robert"]).await.unwrap();
    host.until_state(|state| state["users"].to_string().contains("Robert")).await;
    run(&["spotlight", "Robert"]).await.unwrap();
    host.until_state(|state| state["room"]["spotlight"] == "b").await;
    run(&["grant", "b"]).await.unwrap();
    host.until_state(|state| state["room"]["moderators"] == json!(["b"])).await;
    for args in
        [&["spotlight"][..], &["revoke", "b"], &["lower-hands"], &["lower-hands", "b"], &["clear-chat"]]
    {
        run(args).await.unwrap();
    }
    run(&["chat", "--off"]).await.unwrap();
    run(&["screens", "--off", "--json"]).await.unwrap();
    host.until_state(|state| state["room"]["chat"] == false && state["room"]["screens"] == false).await;
    run(&["end"]).await.unwrap();
    assert_eq!(host.closed().await.0, 4410);
    assert_eq!(guest.closed().await.0, 4410);

    for (args, code, said) in [
        (&["end"][..], 5, "no room \"r\" is running"),
        (&["mute", "b", "--kind", "smell"], 2, "audio, video or screen"),
        (&["admit", "Bob Q"], 1, "_pk"),
        (&["dance"], 2, "dance"),
    ] {
        let (found, error) = run(args).await.unwrap_err();
        assert!(found == code && error.contains(said), "{args:?}: {found}: {error}");
    }
}

#[tokio::test]
async fn settings_are_changed_and_shown() {
    let server = TestServer::start().await;
    let file = server.data_dir().join("standup.password");
    std::fs::write(&file, "open sesame\n").unwrap();
    let run = async |args: &[&str]| operate(&server, &[&["settings", "standup"], args].concat()).await;
    let shown = run(&[]).await.unwrap();
    assert!(shown.contains("chat=true\n") && shown.contains("password=false\n"), "{shown}");
    let shown = run(&["chat=false", "--password-file", file.to_str().unwrap()]).await.unwrap();
    assert!(shown.contains("chat=false\n") && shown.contains("password=true\n"), "{shown}");
    let ann = Person::log_in(&server, "Ann").await;
    assert_eq!(Ask::room("standup").by(&ann).pk("a").answer(&server).await.status, 403);
    run(&["--no-password"]).await.unwrap();
    let all = operate(&server, &["settings"]).await.unwrap();
    let settings = "chat=false chatHistory=true files=false locked=false password=false screens=true videos=true \
                    waitingRoom=false";
    assert_eq!(all, format!("room     settings\nstandup  {settings}\n"));
    Ask::room("standup").by(&ann).pk("a").open(&server).await.until_users(&["a"]).await;
    for (args, code, said) in [
        (&["dance=true"][..], 1, "dance"),
        (&["chat=off"], 2, "true or false"),
        (&["password=sesame"], 2, "--password-file"),
        (&["--password-file", "/nonexistent"], 1, "/nonexistent"),
    ] {
        let (found, error) = run(args).await.unwrap_err();
        assert!(found == code && error.contains(said), "{args:?}: {found}: {error}");
    }
    let (found, error) = operate(&server, &["settings", "--no-password"]).await.unwrap_err();
    assert!(found == 1 && error.contains("room's name"), "{found}: {error}");
}

#[tokio::test]
async fn remote_server_needs_its_own_token() {
    let server = TestServer::with(|config| config.auth = auth()).await;
    let url = format!("http://{}", server.addresses().admin);
    let dir = tempfile::tempdir().unwrap();
    let remote = async |args: &[&str], variable: Option<&str>| {
        let mut command = program(&[args, &["--server", &url]].concat());
        command.current_dir(dir.path());
        command.envs(variable.map(|token| ("SATSUMA_OPERATOR_TOKEN", token)));
        finish(command).await
    };
    let file = server.data_dir().join("operator.token");
    let token = std::fs::read_to_string(&file).unwrap();
    let admin = token_with("Ops", "*", json!({"admin": true}));
    assert!(remote(&["rooms", "--token-file", file.to_str().unwrap()], None).await.is_ok());
    assert!(remote(&["rooms"], Some(token.trim())).await.is_ok());
    assert!(remote(&["rooms"], Some(&admin)).await.is_ok());

    let (code, error) = remote(&["rooms"], None).await.unwrap_err();
    assert!(code == 4 && error.contains("--token-file"), "{code}: {error}");
    let wrong = "not-the-operator-token";
    for args in [&["rooms"][..], &["events", "--follow"], &["lock", "r"]] {
        let (code, error) = remote(args, Some(wrong)).await.unwrap_err();
        assert!(code == 4 && error.contains("refuses the token: this needs the operator token"), "{error}");
        assert!(!error.contains(wrong), "a token is not shown: {error}");
    }
    let of_room = token_with("Ops", "r", json!({"admin": true}));
    assert_eq!(remote(&["rooms"], Some(&of_room)).await.unwrap_err().0, 4);

    // The public listener is another one.
    let mut command = program(&["rooms", "--server", &server.http()]);
    command.current_dir(dir.path()).env("SATSUMA_OPERATOR_TOKEN", token.trim());
    let (code, _) = finish(command).await.unwrap_err();
    assert!([1, 5].contains(&code), "{code}");
}

#[tokio::test]
async fn server_that_is_down_is_told() {
    let server = TestServer::start().await;
    let address = server.addresses().admin;
    let stopped = server.stop().await;
    for args in [&["rooms"][..], &["events", "--follow"]] {
        let mut command = program(args);
        command.current_dir(stopped.data_dir());
        command.env("SATSUMA_ADMIN__LISTEN", address.to_string()).env("SATSUMA_DATA_DIR", stopped.data_dir());
        let (code, error) = finish(command).await.unwrap_err();
        assert!(code == 3 && error.contains(&format!("http://{address}/admin/")), "{code}: {error}");
        assert!(error.contains("cannot be reached: ") && error.contains("refused"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = program(&["rooms"]);
    command.current_dir(dir.path());
    let (code, error) = finish(command).await.unwrap_err();
    assert!(code == 4 && error.contains("did the server start here?"), "{code}: {error}");
}

#[tokio::test]
async fn followed_events_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Process::start(&data, &[]).await;
    let addresses = server.reached_at();
    let mut command = program(&["events", "--follow", "--room", "r*", "--type", "meeting.*", "--json"]);
    command.current_dir(dir.path()).env("SATSUMA_DATA_DIR", &data);
    command.env("SATSUMA_ADMIN__LISTEN", addresses.admin.to_string());
    let mut follower = Follower::start(command);
    let streams = async || crate::harness::metric(&addresses, "satsuma_event_streams").await == 1.0;
    eventually("the stream is open".to_owned(), streams).await;
    let ada = Client::join(&addresses, "other", "Ada").await;
    let bob = Client::join(&addresses, "r1", "Bob").await;
    let started = follower.until("meeting.started").await;
    assert_eq!(started["room"], "r1");
    drop((ada, bob));

    // While the follower has no connection, too, nothing is missed.
    server.stop().await;
    let http = addresses.http.to_string();
    let admin = addresses.admin.to_string();
    let settings = [
        ("SATSUMA_HTTP__LISTEN", &*http),
        ("SATSUMA_ADMIN__LISTEN", &*admin),
        ("SATSUMA_ROOM__TICK", "50ms"),
    ];
    let server = Process::start(&data, &settings).await;
    let mut cyd = Client::join(&addresses, "r2", "Cyd").await;
    assert_eq!(follower.until("meeting.started").await["room"], "r2");
    cyd.say(json!({"type": "userLeft"})).await;
    let ended = follower.until("meeting.ended").await;
    assert_eq!((&ended["room"], &ended["seq"].is_u64()), (&json!("r2"), &true));
    drop((server, follower.child));
}

#[tokio::test]
async fn recorded_events_are_printed_once() {
    let server = TestServer::with(|config| config.room.tick = Duration::from_millis(50)).await;
    // The log begins with its first reader.
    assert_eq!(operate(&server, &["events"]).await.unwrap(), "");
    let mut ada = Client::join(&server, "r", "Ada").await;
    ada.say(json!({"type": "userLeft"})).await;
    ada.closed().await;
    let has_ended = async || {
        let events = operate(&server, &["events"]).await.unwrap();
        let types: Vec<_> = events.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
        types == ["meeting.started", "member.joined", "member.left", "meeting.ended"]
    };
    eventually("the meeting is over".to_owned(), has_ended).await;
    let lines = operate(&server, &["events", "--json", "--type", "member.*"]).await.unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (events.len(), &events[0]["type"], &events[1]["type"]),
        (2, &json!("member.joined"), &json!("member.left"))
    );
    let after =
        operate(&server, &["events", "--json", "--after", events[1]["id"].as_str().unwrap()]).await.unwrap();
    assert_eq!(after.lines().count(), 1, "{after}");
    let (code, error) = operate(&server, &["events", "--type", "meetings"]).await.unwrap_err();
    assert!(code == 1 && error.contains("events are types of events"), "{error}");

    // A reader that goes away ends the program without an error.
    let mut follower = Follower::start(local(&server, &["events", "--follow", "--json"]));
    server.until_metric("satsuma_event_streams", 1.0).await;
    let _bob = Client::join(&server, "r", "Bob").await;
    follower.until("member.joined").await;
    let Follower { mut child, lines } = follower;
    drop(lines);
    let _cyd = Client::join(&server, "r", "Cyd").await;
    assert!(timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap().success());
}
