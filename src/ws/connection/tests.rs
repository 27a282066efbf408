//! A connection with Orange's session, whose room and network are simulated by each test.

mod keep_alive;
mod messages;
mod pressure;
mod throttling;
mod writing;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_util::task::AbortOnDropHandle;
use tungstenite::protocol::Role;
use tungstenite::{Message, Utf8Bytes};

use super::*;
use crate::id::NodeId;
use crate::protocol::client::{ClientMessage, MessageLimits};
use crate::protocol::server::MessageKind;
use crate::room::arrivals::Arrivals;
use crate::room::link::MemberLink;
use crate::room::mailbox::{Command, Incoming, Mailbox};
use crate::room::message::SharedMessage;
use crate::room::outbox::{Outbox, OutboxLimits};
use crate::ws::orange_session::OrangeSession;

/// A connection and the room's ends of its link.
struct Stage {
    outbox: Outbox,
    mailbox: Mailbox,
    commands: tokio::sync::mpsc::Receiver<Command>,
    metrics: Arc<Metrics>,
    connection: AbortOnDropHandle<()>,
}

const NODE: NodeId = NodeId::new(0);

const ID: ConnectionId = ConnectionId::new(NODE, 7);

const SHORT_MESSAGES: MessageLimits = MessageLimits { frame_bytes: 2000, user_bytes: 2000 };

const OUTBOX: OutboxLimits =
    OutboxLimits { member_bytes: 1 << 20, all_bytes: 1 << 30, write_stall: Duration::from_secs(20) };

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        message_bytes: 8000,
        messages_per_second: NonZeroU32::new(50).unwrap(),
        message_burst: NonZeroU32::new(200).unwrap(),
        throttled_time: Duration::from_secs(60),
        write_stall: Duration::from_secs(20),
        keep_alive: None,
    }
}

fn stage(limits: ConnectionLimits, network_bytes: usize) -> (Stage, DuplexStream) {
    let (ours, theirs) = duplex(network_bytes);
    (stage_on(ours, limits), theirs)
}

fn stage_on(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, limits: ConnectionLimits) -> Stage {
    stage_with(stream, &Arrivals::new(1 << 20), limits, SHORT_MESSAGES)
}

/// A stage for usual messages with limited memory for incomplete ones, and its client.
async fn stage_within(arrivals: &Arrivals) -> (Stage, WebSocketStream<DuplexStream>) {
    let limits = ConnectionLimits { message_bytes: 8 << 20, ..limits() };
    let (ours, theirs) = duplex(1 << 16);
    (stage_with(ours, arrivals, limits, MessageLimits::default()), client(theirs).await)
}

fn stage_with(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    arrivals: &Arrivals,
    limits: ConnectionLimits,
    message: MessageLimits,
) -> Stage {
    let metrics = Metrics::new();
    let outbox = Outbox::new(OUTBOX, metrics.clone());
    let (mailbox, commands) = Mailbox::new(4);
    let link = MemberLink::new(ID, mailbox.clone(), outbox.attach(now(), ID, Encoding::Identity));
    let session = OrangeSession::new(link, message, metrics.clone());
    let connection = spawn(stream, session, arrivals, limits, &metrics);
    Stage { outbox, mailbox, commands, metrics, connection }
}

#[expect(clippy::disallowed_methods, reason = "the handle owns the task")]
fn spawn(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    session: impl Session + Send + 'static,
    arrivals: &Arrivals,
    limits: ConnectionLimits,
    metrics: &Arc<Metrics>,
) -> AbortOnDropHandle<()> {
    let transport = (stream, Encoding::Identity);
    let connection = Connection::new(ID, transport, session, arrivals.share(None), limits, metrics.clone());
    AbortOnDropHandle::new(tokio::spawn(connection.run()))
}

async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

fn message(text: &str) -> SharedMessage {
    SharedMessage::new(MessageKind::Chat, text.to_owned(), &Metrics::new())
}

fn of_bytes(bytes: usize) -> SharedMessage {
    message(&"x".repeat(bytes))
}

fn of_mls(bytes: usize) -> Message {
    Message::text(format!(r#"{{"type":"e2eeMlsMessage","payload":"{}"}}"#, "x".repeat(bytes)))
}

fn closes(metrics: &Metrics, reason: &'static str) -> u64 {
    metrics.closes.get_or_create(&crate::metrics::ByReason { reason }).get()
}

fn kind(command: Option<Command>) -> String {
    match command {
        Some(Command::Message(Incoming { message: Ok(message), .. })) => message.kind().to_owned(),
        Some(Command::Message(Incoming { message: Err(error), .. })) => error.to_string(),
        Some(Command::Disconnected(_)) => "gone".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A session of another protocol, without a room: it returns every text, and pings before the first.
#[derive(Default)]
struct EchoSession {
    output: std::collections::VecDeque<Output>,
    pongs: usize,
    /// The charge that is due after a message `charge`.
    owed: Option<NonZeroU32>,
}

fn plain(bytes: bytes::Bytes) -> Output {
    Output::Text(Payload { bytes, encoding: Encoding::Identity, kind: MessageKind::Chat })
}

impl Session for EchoSession {
    fn poll_output(&mut self, _: &mut Context<'_>) -> Poll<Output> {
        self.output.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn receive(&mut self, text: &Utf8Bytes) -> Next {
        if text.as_str() == "bye" {
            self.output.push_back(Output::Close(Close::UserLeft));
            return Next::Stop;
        }
        self.owed = NonZeroU32::new(u32::from(text.as_str() == "charge") * 200);
        self.output.push_back(plain(text.clone().into()));
        self.output.push_back(Output::Ping("ping".into()));
        Next::Read
    }

    fn receive_pong(&mut self, _: Instant, payload: &[u8]) -> bool {
        self.pongs += usize::from(payload == b"ping");
        if self.pongs == 1 {
            self.output.push_back(plain("pong".into()));
        }
        payload == b"ping"
    }

    fn poll_handed_on(&mut self, _: &mut Context<'_>) -> Poll<Next> {
        Poll::Ready(self.owed.take().map_or(Next::Read, Next::Charge))
    }

    fn poll_space(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn release_space(&mut self) {}

    fn is_congested(&self) -> bool {
        false
    }

    fn poll_keeps_up(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn set_throttled(&mut self, _: Instant, _: bool) {}

    async fn end(self, _: bool) {}
}

#[tokio::test(start_paused = true)]
async fn connection_carries_another_protocol() {
    let (ours, theirs) = duplex(1 << 16);
    let (metrics, arrivals) = (Metrics::new(), Arrivals::new(1 << 20));
    let connection = spawn(ours, EchoSession::default(), &arrivals, limits(), &metrics);
    let mut client = client(theirs).await;
    client.send(Message::text("no JSON")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("no JSON"));
    assert!(client.next().await.unwrap().unwrap().is_ping());
    client.flush().await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("pong"));
    client.send(Message::text("bye")).await.unwrap();
    let Some(Ok(Message::Close(Some(close)))) = client.next().await else { panic!("no close frame") };
    assert_eq!(u16::from(close.code), 1000);
    assert!(client.next().await.is_none());
    connection.await.unwrap();
    assert_eq!(closes(&metrics, "user_left"), 1);
}
