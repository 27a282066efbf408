//! A session whose rooms are simulated by each test.

use std::task::{Context, Poll, Waker};

use secrecy::SecretSlice;
use tokio::sync::mpsc;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::super::super::session::{Output, Session};
use super::*;
use crate::auth::token::SigningKey;
use crate::auth::{Identities, Identity};
use crate::config::Config;
use crate::id::{ConnectionId, Grants, IdentityId, NodeId, RoomScope, UserId};
use crate::protocol::server::MessageKind;
use crate::room::mailbox::{Command, Incoming, Mailbox};
use crate::room::message::SharedMessage;
use crate::room::outbox::{Outbox, OutboxLimits};
use crate::room::registry::tests::{TestRegistry, test_registry};

const MEBIBYTE: usize = 1 << 20;

/// A session in no room.
fn session(of: &TestRegistry) -> PhoenixSession {
    let (config, metrics) = (Config::default(), of.metrics.clone());
    let identities = Identities::new(SigningKey::new(&SecretSlice::from(vec![1; 64])), None, None);
    let http = HttpContext::new(&config, identities, metrics.clone());
    let sockets =
        Sockets::new(&config, NodeId::new(0), of.registry.clone(), metrics, CancellationToken::new());
    let identity = Identity {
        lease: None,
        id: IdentityId::new("cookie:a"),
        name: "Ann".into(),
        grants: Grants::everyone(),
        scope: RoomScope::any(),
    };
    let client = SocketClient { user: SocketUser::User(identity), network: None, answers_pings: true };
    let format = (Version::V2, Encoding::Identity);
    PhoenixSession::new(http.into(), sockets.into(), client, format, "test")
}

/// A room that the session has joined.
struct SimulatedRoom {
    outbox: Outbox,
    mailbox: Mailbox,
    commands: mpsc::Receiver<Command>,
}

fn join(session: &mut PhoenixSession, name: &str) -> SimulatedRoom {
    let limits =
        OutboxLimits { member_bytes: MEBIBYTE, all_bytes: 1 << 30, write_stall: Duration::from_secs(20) };
    let outbox = Outbox::new(limits, session.http.metrics.clone());
    let (mailbox, commands) = Mailbox::new(16);
    session.last_number += 1;
    let id = ConnectionId::new(NodeId::new(0), u64::from(session.last_number));
    let link = MemberLink::new(id, mailbox.clone(), outbox.attach(now(), id, Encoding::Identity));
    let permit = session.sockets.phoenix.as_ref().unwrap().memberships.try_acquire(None).unwrap();
    let channel = Channel {
        join_ref: None,
        user: UserId::parse("a").unwrap(),
        outlasts_socket: false,
        number: session.last_number,
        link,
        is_leaving: false,
        ended: None,
        permit,
    };
    session.add_topic(name.into(), TopicState::Joined(channel));
    SimulatedRoom { outbox, mailbox, commands }
}

fn chat(text: &str) -> SharedMessage {
    SharedMessage::new(MessageKind::Chat, format!(r#"{{"text":"{text}"}}"#), &Metrics::new())
}

/// The texts that the session has for its client now.
fn outputs(session: &mut PhoenixSession) -> Vec<String> {
    let mut context = Context::from_waker(Waker::noop());
    let mut texts = Vec::new();
    loop {
        let _ = session.poll_handed_on(&mut context);
        match session.poll_output(&mut context) {
            Poll::Ready(Output::Reply(text)) => texts.push(text),
            Poll::Ready(Output::Enveloped { head, payload, tail }) => {
                texts.push(head + str::from_utf8(&payload.bytes).unwrap() + tail);
            }
            Poll::Ready(other) => texts.push(format!("{other:?}")),
            Poll::Pending => return texts,
        }
    }
}

#[tokio::test]
async fn failed_room_ends_its_topic_alone() {
    let registry = test_registry(Duration::from_secs(15), 10).await;
    let mut session = session(&registry);
    let (bad, good) = (join(&mut session, "room:bad"), join(&mut session, "room:good"));
    session.receive(&r#"[null,"1","room:bad","chat",{"message":"x"}]"#.into());
    assert_eq!(outputs(&mut session), [""; 0]);
    drop(bad);
    good.outbox.push(now(), &chat("y"), None).unwrap();
    let failed =
        r#"[null,"1","room:bad","phx_reply",{"response":{"reason":"the room failed"},"status":"error"}]"#;
    let crashed = r#"[null,null,"room:bad","phx_error",{"reason":"channel_crash"}]"#;
    let event = r#"[null,null,"room:good","chat",{"text":"y"}]"#;
    let mut seen = outputs(&mut session);
    seen.sort_unstable_by_key(|text| text.contains("good"));
    assert_eq!(seen, [failed, crashed, event]);
    session.receive(&r#"[null,"2","room:bad","chat",{"message":"x"}]"#.into());
    assert!(outputs(&mut session)[0].contains("unmatched topic"));
}

#[tokio::test]
async fn flooded_topic_leaves_others_their_turn() {
    let registry = test_registry(Duration::from_secs(15), 10).await;
    let mut session = session(&registry);
    let [loud, quiet, other] = ["room:loud", "room:quiet", "room:other"].map(|name| join(&mut session, name));
    for _ in 0..100 {
        loud.outbox.push(now(), &chat("loud"), None).unwrap();
    }
    quiet.outbox.push(now(), &chat("quiet"), None).unwrap();
    other.outbox.push(now(), &chat("other"), None).unwrap();
    let seen = outputs(&mut session);
    assert_eq!(seen.iter().filter(|text| text.contains("chat")).count(), 102);
    for name in ["quiet", "other"] {
        assert!(seen[..3].iter().any(|text| text.contains(name)), "{name}: {:?}", &seen[..4]);
    }
}

/// Two sockets in the same two rooms would otherwise each hold what the other waits for.
#[tokio::test]
async fn space_of_a_room_is_not_held_for_another() {
    let registry = test_registry(Duration::from_secs(15), 10).await;
    let mut session = session(&registry);
    let (mut full, roomy) = (join(&mut session, "room:full"), join(&mut session, "room:roomy"));
    let long = || Incoming {
        connection: ConnectionId::new(NodeId::new(0), 9),
        message: Ok(ClientMessage::Heartbeat),
        bytes: MEBIBYTE,
        permit: None,
        reply: None,
    };
    for _ in 0..4 {
        full.mailbox.try_deliver(long(), None).unwrap();
    }
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(session.poll_space(&mut context).is_pending() && session.is_congested());
        let _ = session.poll_handed_on(&mut context);
    }
    for _ in 0..4 {
        assert!(roomy.mailbox.try_deliver(long(), None).is_ok(), "no space of this room is reserved");
    }
    drop(roomy);
    drop(full.commands.recv().await);
    let _ = session.poll_handed_on(&mut context);
    assert!(session.poll_space(&mut context).is_ready());
}
