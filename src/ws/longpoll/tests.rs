//! Sessions with Orange's protocol, whose room is simulated by each test.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Duration;
use tokio_util::task::AbortOnDropHandle;

use super::answer::Chunk;
use super::body::to_frames;
use super::poller::{Answer, POLL_TIME, PollerHandle, Post, SESSION_TIME};
use super::{LongPollSessions, serve};
use crate::clock::now;
use crate::id::{ConnectionId, NodeId};
use crate::metrics::Metrics;
use crate::protocol::client::MessageLimits;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::protocol::server::MessageKind;
use crate::room::arrivals::Arrivals;
use crate::room::link::MemberLink;
use crate::room::mailbox::{Command, Mailbox};
use crate::room::message::SharedMessage;
use crate::room::outbox::{Outbox, OutboxLimits};
use crate::ws::connection::{Connection, ConnectionLimits};
use crate::ws::orange_session::OrangeSession;

struct Stage {
    outbox: Outbox,
    commands: mpsc::Receiver<Command>,
    handle: PollerHandle,
    task: AbortOnDropHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the handle owns the task")]
fn stage() -> Stage {
    let metrics = Metrics::new();
    let limits =
        OutboxLimits { member_bytes: 1 << 20, all_bytes: 1 << 30, write_stall: Duration::from_secs(20) };
    let outbox = Outbox::new(limits, metrics.clone());
    let (mailbox, commands) = Mailbox::new(2);
    let id = ConnectionId::new(NodeId::new(0), 1);
    let link = MemberLink::new(id, mailbox, outbox.attach(now(), id, Encoding::Identity));
    let session = OrangeSession::new(link, MessageLimits::default(), metrics.clone());
    let limits = ConnectionLimits {
        message_bytes: 1 << 20,
        messages_per_second: NonZeroU32::new(50).unwrap(),
        message_burst: NonZeroU32::new(200).unwrap(),
        throttled_time: Duration::from_secs(60),
        write_stall: Duration::from_secs(20),
        keep_alive: None,
    };
    let (ours, theirs) = tokio::io::duplex(1 << 14);
    let share = Arrivals::new(1 << 20).share(None);
    let connection = Connection::new(id, (ours, Encoding::Identity), session, share, limits, metrics);
    let sessions = Arc::new(LongPollSessions::default());
    let (session, listed, poller) = sessions.open(POLL_TIME, Arrivals::new(1000).share(None)).unwrap();
    let task = async move { serve(connection.run(), (poller, theirs), listed).await };
    let handle = session.handle().clone();
    Stage { outbox, commands, handle, task: AbortOnDropHandle::new(tokio::spawn(task)) }
}

fn message(text: &str) -> SharedMessage {
    SharedMessage::new(MessageKind::Chat, text.to_owned(), &Metrics::new())
}

/// An answer in full.
#[derive(Debug, PartialEq)]
enum Received {
    Messages(Vec<String>),
    Gone,
}

fn messages<const N: usize>(texts: [&str; N]) -> Received {
    Received::Messages(texts.map(str::to_owned).into())
}

async fn receive(answer: oneshot::Receiver<Answer>) -> Received {
    match answer.await {
        Ok(Answer::Messages(mut chunks)) => {
            let mut json = b"[".to_vec();
            loop {
                let Chunk { bytes, is_last } = chunks.recv().await.expect("the answer is whole");
                assert!(bytes.len() < 20_000, "pieces are short");
                json.extend_from_slice(&bytes);
                if is_last {
                    break;
                }
            }
            json.push(b']');
            Received::Messages(serde_json::from_slice(&json).unwrap())
        }
        Ok(Answer::Nothing) => Received::Messages(Vec::new()),
        Ok(Answer::Gone) | Err(_) => Received::Gone,
    }
}

impl Stage {
    async fn begin_poll(&self) -> oneshot::Receiver<Answer> {
        let (poll, answer) = oneshot::channel();
        self.handle.polls.send(poll).await.unwrap();
        answer
    }

    async fn poll(&self) -> Received {
        let (poll, answer) = oneshot::channel();
        match self.handle.polls.send(poll).await {
            Ok(()) => receive(answer).await,
            Err(_) => Received::Gone,
        }
    }

    async fn post(&self, body: &str) -> oneshot::Receiver<()> {
        let (done, posted) = oneshot::channel();
        let frames: BytesMut = to_frames(body.as_bytes(), false).unwrap();
        self.handle.posts.send(Post { frames, _permit: None, done }).await.unwrap();
        posted
    }

    fn say(&self, text: &str) {
        self.outbox.push(now(), &message(text), None).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn poll_waits_for_messages() {
    let stage = stage();
    let answer = stage.begin_poll().await;
    tokio::time::sleep(POLL_TIME / 2).await;
    stage.say("one");
    assert_eq!(receive(answer).await, messages(["one"]));
    for text in ["two", "three"] {
        stage.say(text);
    }
    assert_eq!(stage.poll().await, messages(["two", "three"]));
    let begin = now();
    assert_eq!(stage.poll().await, messages([]));
    assert_eq!(begin.elapsed(), POLL_TIME);
}

#[tokio::test(start_paused = true)]
async fn next_poll_confirms_the_answer() {
    let stage = stage();
    stage.say("one");
    assert_eq!(stage.poll().await, messages(["one"]));
    tokio::time::sleep(SESSION_TIME / 2).await;
    assert!(stage.outbox.event_bytes() > 0, "the answer may be lost");
    assert_eq!(stage.poll().await, messages([]));
    assert_eq!(stage.outbox.event_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn answer_that_nobody_took_is_given_again() {
    let stage = stage();
    let dropped = stage.begin_poll().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(dropped);
    stage.say("one");
    // A poll of a client that is gone in the moment of the answer.
    let (poll, answer) = oneshot::channel();
    drop(answer);
    stage.handle.polls.send(poll).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.poll().await, messages(["one"]));
}

#[tokio::test(start_paused = true)]
async fn newer_poll_ends_the_older() {
    let stage = stage();
    let older = stage.begin_poll().await;
    let newer = stage.begin_poll().await;
    assert_eq!(receive(older).await, messages([]));
    stage.say("one");
    assert_eq!(receive(newer).await, messages(["one"]));
}

#[tokio::test(start_paused = true)]
async fn session_ends_without_polls() {
    let mut stage = stage();
    let begin = now();
    assert_eq!(stage.poll().await, messages([]));
    assert!(matches!(stage.commands.recv().await, Some(Command::Disconnected(_))));
    assert_eq!(begin.elapsed(), POLL_TIME + SESSION_TIME);
    (&mut stage.task).await.unwrap();
    let (poll, _) = oneshot::channel();
    assert!(stage.handle.polls.send(poll).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn close_is_told_after_the_last_messages() {
    let mut stage = stage();
    stage.say("last");
    stage.outbox.close(Close::ServiceRestart);
    assert_eq!(stage.poll().await, messages(["last"]));
    assert_eq!(stage.poll().await, Received::Gone);
    (&mut stage.task).await.unwrap();

    let mut stage = self::stage();
    let waiting = stage.begin_poll().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.outbox.close(Close::ServiceRestart);
    assert_eq!(receive(waiting).await, Received::Gone, "at once");
    (&mut stage.task).await.unwrap();
}

/// A session whose client did not come back held up the shutdown for its whole time.
#[tokio::test(start_paused = true)]
async fn closed_session_without_a_poll_ends_soon() {
    let mut stage = stage();
    stage.say("last");
    let begin = now();
    stage.outbox.close(Close::ServiceRestart);
    (&mut stage.task).await.unwrap();
    assert!(begin.elapsed() < SESSION_TIME / 3, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn snapshots_wait_in_the_outbox_for_a_poll() {
    let stage = stage();
    let long = "x".repeat(100_000);
    for number in 0..20 {
        stage.outbox.put_snapshot(&message(&format!("{number}{long}"))).unwrap();
        tokio::task::yield_now().await;
    }
    let mut received = Vec::new();
    loop {
        let Received::Messages(messages) = stage.poll().await else { panic!("it has ended") };
        if messages.is_empty() {
            break;
        }
        received.extend(messages.iter().map(|message| message.len() - long.len()));
    }
    assert!(received.len() <= 3 && received.last() == Some(&2), "{received:?}");
}

#[tokio::test(start_paused = true)]
async fn post_is_done_once_the_connection_has_it() {
    let mut stage = stage();
    let heartbeat = r#"{"type":"heartbeat"}"#;
    stage.post(heartbeat).await.await.unwrap();
    assert!(matches!(stage.commands.recv().await, Some(Command::Message(_))));
    // Those for a room without space wait in the connection, the pipe, and then here.
    let long = format!(r#"{{"type":"e2eeMlsMessage","payload":"{}"}}"#, "x".repeat(90_000));
    let mut posted = stage.post(&long).await;
    loop {
        match tokio::time::timeout(Duration::from_secs(5), &mut posted).await {
            Ok(done) => done.unwrap(),
            Err(_) => break,
        }
        posted = stage.post(&long).await;
    }
    for _ in 0..4 {
        assert!(matches!(stage.commands.recv().await, Some(Command::Message(_))));
    }
    posted.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn post_to_ended_connection_is_not_done() {
    let mut stage = stage();
    stage.post("no text of the protocol \u{e9}").await.await.unwrap();
    assert!(matches!(stage.commands.recv().await, Some(Command::Message(_))));
    stage.post(r#"{"type":"userLeft"}"#).await.await.unwrap();
    stage.outbox.close(Close::UserLeft);
    assert_eq!(stage.poll().await, Received::Gone);
    assert!(matches!(stage.commands.recv().await, Some(Command::Message(_))));
    (&mut stage.task).await.unwrap();
    let (done, posted) = oneshot::channel();
    let frames = BytesMut::new();
    assert!(stage.handle.posts.send(Post { frames, _permit: None, done }).await.is_err());
    assert!(posted.await.is_err());
}

/// A client that took no byte of its answer held a copy of it for minutes, of megabytes in a large room.
#[tokio::test(start_paused = true)]
async fn untaken_answer_holds_little_and_ends_the_session() {
    let mut stage = stage();
    let long = message(&"\u{1}\"".repeat(500_000));
    stage.outbox.put_snapshot(&long).unwrap();
    let answer = stage.begin_poll().await;
    let Ok(Answer::Messages(mut chunks)) = answer.await else { panic!("no messages") };
    let first = chunks.recv().await.unwrap();
    assert!(!first.is_last);
    let begin = now();
    assert!(matches!(stage.commands.recv().await, Some(Command::Disconnected(_))));
    assert!(begin.elapsed() <= SESSION_TIME, "{:?}", begin.elapsed());
    let mut rest = 0;
    while let Some(chunk) = chunks.recv().await {
        assert!(!chunk.is_last);
        rest += chunk.bytes.len();
    }
    assert!(rest < 200_000, "{rest}");
    (&mut stage.task).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn broken_off_answer_ends_the_session() {
    let mut stage = stage();
    stage.say(&"x".repeat(500_000));
    let answer = stage.begin_poll().await;
    let Ok(Answer::Messages(chunks)) = answer.await else { panic!("no messages") };
    drop(chunks);
    assert!(matches!(stage.commands.recv().await, Some(Command::Disconnected(_))));
    (&mut stage.task).await.unwrap();
    assert!(stage.outbox.event_bytes() > 0, "the event comes again");
}

#[tokio::test(start_paused = true)]
async fn long_messages_are_answered_one_by_one() {
    let stage = stage();
    let long: Vec<String> = (0..3).map(|number| number.to_string().repeat(300_000)).collect();
    for text in &long {
        stage.say(text);
    }
    for text in &long {
        let Received::Messages(messages) = stage.poll().await else { panic!("it has ended") };
        assert_eq!(messages.iter().map(String::len).collect::<Vec<_>>(), [300_000]);
        assert!(messages == [text.as_str()], "another message");
    }
}
