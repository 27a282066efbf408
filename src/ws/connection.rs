//! The task of one socket: it reads and writes, so that both end together.

mod receiving;

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use tungstenite::protocol::frame::coding::Data;

use super::boundary::BYTES_A_TOKEN;
use super::phase::{EndLabel, Phase};
use super::socket::{ReadEnd, Received, Socket};
use super::throttle::Throttle;
use crate::clock::now;
use crate::id::ConnectionId;
use crate::metrics::{Counted, Metrics};
use crate::protocol::client::MessageLimits;
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::room::arrivals::{ArrivalPermit, ArrivalShare};
use crate::room::link::{MemberLink, RoomGone, Taken};
use crate::room::message::Payload;

/// Maximum bytes taken from the room before they are written. A snapshot that is not yet taken
/// can still be replaced by a newer one.
const WRITE_AHEAD_BYTES: usize = 64 * 1024;

/// Time for a client to answer a close frame, and to read the one that it is sent.
const LINGER: Duration = Duration::from_secs(3);

/// Maximum pause in reading a heavy sender while others fall behind; then its next message is read
/// all the same. A client that never confirms anything must not block the messages of others.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// Limits of one socket.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Limits of a message's text.
    pub message: MessageLimits,
    /// Maximum size in bytes of a `callsApiHistoryEntry`, which is read and dropped.
    pub history_entry_bytes: usize,
    /// Maximum rate at which messages are read, per second.
    pub messages_per_second: NonZeroU32,
    /// Number of messages read at once after a quiet time.
    pub message_burst: NonZeroU32,
    /// Maximum total time for which a socket may be throttled before it is closed.
    pub held_back: Duration,
    /// Maximum time without a byte taken before the socket is closed.
    pub write_stall: Duration,
}

/// One socket and its membership.
pub struct Connection<S> {
    id: ConnectionId,
    socket: Socket<S>,
    link: MemberLink,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    throttle: Throttle,
    phase: Phase,
    /// Tokens owed for a message that was read; until they are paid, nothing more is read.
    debt: Option<TokenDebt>,
    /// Deadline of the pause in reading while other members fall behind with this client's messages.
    behind: Option<Instant>,
    /// True once the pause has reached its deadline: the next message is read anyway.
    is_let_through: bool,
    /// True if the room was told that this socket is not being read.
    is_throttled: bool,
    /// Received bytes of an incomplete message.
    arriving: Counted,
    /// The permit for these bytes.
    arrival: Option<ArrivalPermit>,
    /// The pending permit for the last of these bytes, beyond the memory limit; nothing is read meanwhile.
    awaited: Option<Pin<Box<dyn Future<Output = ArrivalPermit> + Send>>>,
    /// Deadline for a message that exceeds the memory limit: until it is complete, no other one may.
    finish_by: Option<Instant>,
    share: Arc<ArrivalShare>,
    /// Bytes written at the last progress check; growth resets the stall timer.
    written: u64,
    /// Deadline of the next progress in writing.
    stall: Option<Instant>,
    /// Deadline for a closing socket, even if it makes progress.
    linger: Option<Instant>,
    /// True if the client said that its page is left.
    is_page_left: bool,
    _deflated: Option<Counted>,
}

#[derive(Clone, Copy, Debug)]
struct TokenDebt {
    tokens: NonZeroU32,
    since: Instant,
    until: Instant,
}

/// Result of an attempt to read and write.
#[derive(Debug)]
enum IoStep {
    Received(Received),
    /// The permit for more of a long message.
    Admitted(ArrivalPermit),
    ReadEnd(ReadEnd),
    CloseQueued,
    /// The membership has ended, but the client reads so little that the close frame cannot be queued yet.
    EndIsDue,
    /// Others have not confirmed much of this client's data.
    OthersFallBehind,
    /// Others have confirmed enough of this client's data.
    OthersKeepUp,
    /// The stall timer changed: bytes began to wait, wait no more or made progress.
    StallMoved,
    WriteFailed,
    Drained,
    Flushed,
}

/// State of filling the socket with what the room sends.
#[derive(Debug)]
enum Filled {
    /// The write-ahead limit is reached; there may be more.
    Partly,
    /// Everything was taken; the next message wakes this task.
    All,
    /// The close frame was taken.
    Close,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection whose member was admitted and whose handshake is done.
    pub fn new(
        id: ConnectionId,
        stream: S,
        link: MemberLink,
        share: Arc<ArrivalShare>,
        limits: ConnectionLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (encoding, throttle) = (link.encoding(), Throttle::new(&limits));
        let socket =
            Socket::new(stream, limits.message.frame_bytes.max(limits.history_entry_bytes), encoding);
        let deflated =
            (encoding == Encoding::Deflate).then(|| Counted::new(&metrics.deflated_connections, 1));
        Self {
            id,
            socket,
            link,
            limits,
            throttle,
            phase: Phase::Open,
            debt: None,
            behind: None,
            is_let_through: false,
            is_throttled: false,
            arriving: Counted::new(&metrics.arriving_bytes, 0),
            arrival: None,
            awaited: None,
            finish_by: None,
            share,
            written: 0,
            stall: None,
            linger: None,
            is_page_left: false,
            _deflated: deflated,
            metrics,
        }
    }

    /// Runs until the socket is gone, then tells the room.
    #[expect(clippy::manual_async_fn, reason = "an async fn would hold the connection twice")]
    pub fn run(mut self) -> impl Future<Output = ()> + use<S> {
        async move {
            let end = self.serve().await;
            Metrics::count(&self.metrics.closes, end);
            debug!(event = "socketClosed", socket = %self.id, reason = end);
            self.link.disconnect(self.is_page_left).await;
        }
    }

    async fn serve(&mut self) -> EndLabel {
        loop {
            let owed = self.debt.map(|owed| owed.until);
            let timer = [self.linger, owed, self.stall, self.behind, self.finish_by];
            let timer = timer.into_iter().flatten().min();
            let step = tokio::select! {
                biased;
                step = std::future::poll_fn(|context| self.poll_step(context)) => step,
                () = sleep_until(timer) => {
                    let now = now();
                    if self.linger.is_some_and(|at| at <= now) && !self.phase.is_before_close() {
                        return self.phase.label();
                    }
                    if [self.stall, self.linger].into_iter().flatten().any(|at| at <= now) {
                        return Close::Stalled.label();
                    }
                    if self.finish_by.take_if(|at| *at <= now).is_some() && self.phase.is_before_close() {
                        self.break_off(Close::TooMuchArrives);
                    }
                    if self.behind.take_if(|until| *until <= now).is_some() {
                        self.is_let_through = true;
                    }
                    if let Some(owed) = self.debt.take_if(|owed| owed.until <= now) {
                        self.throttle.add_wait(now - owed.since, now);
                        let charge = self.throttle.pay(owed.tokens);
                        self.settle(charge);
                    }
                    continue;
                }
            };
            match step {
                IoStep::Received(received) => {
                    let is_long = received.bytes() >= BYTES_A_TOKEN;
                    self.receive(received);
                    if is_long {
                        // Inflating and parsing it took as long as hundreds of usual messages.
                        tokio::task::yield_now().await;
                    }
                }
                IoStep::ReadEnd(ReadEnd::Broken(close)) if self.phase.is_before_close() => {
                    debug!(event = "onErrorHandler", socket = %self.id, reason = close.label());
                    self.break_off(close);
                }
                IoStep::ReadEnd(ReadEnd::Closed { is_page_left }) if self.phase.is_before_close() => {
                    self.is_page_left = is_page_left;
                    self.phase = Phase::Answering;
                }
                // After our close frame, any end of reading ends the socket.
                IoStep::ReadEnd(_) | IoStep::WriteFailed | IoStep::Drained | IoStep::Flushed => {
                    let shutdown = std::future::poll_fn(|context| self.socket.poll_shutdown(context));
                    let _ = timeout_at(self.linger.unwrap_or_else(|| now() + LINGER), shutdown).await;
                    return self.phase.label();
                }
                IoStep::EndIsDue => self.linger = Some(now() + self.limits.write_stall),
                IoStep::CloseQueued => self.linger = None,
                IoStep::StallMoved => {}
                IoStep::OthersFallBehind => {
                    self.metrics.held_back.inc();
                    self.behind = Some(now() + LONGEST_HOLD);
                }
                IoStep::OthersKeepUp => self.behind = None,
                IoStep::Admitted(permit) => {
                    self.awaited = None;
                    self.admit(permit);
                }
            }
            if self.linger.is_none() && !self.phase.is_before_close() {
                self.linger = Some(now() + LINGER);
            }
        }
    }

    /// Fills the socket from the room, writes, and reads, as far as each goes without waiting; and tells the
    /// room if the socket is not read.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<IoStep> {
        let step = self.poll_io(context);
        let is_throttled = self.debt.is_some()
            || self.link.is_congested()
            || self.awaited.is_some()
            || self.behind.is_some();
        if std::mem::replace(&mut self.is_throttled, is_throttled) != is_throttled {
            self.link.set_throttled(now(), is_throttled);
        }
        step
    }

    fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<IoStep> {
        if self.link.poll_sent(context) == Poll::Ready(Err(RoomGone)) && self.phase.is_before_close() {
            // Its last action is a close.
            self.phase = Phase::Left;
        }
        loop {
            let taken_all = match self.fill(context) {
                Filled::Partly => false,
                Filled::All => true,
                Filled::Close => return Poll::Ready(IoStep::CloseQueued),
            };
            if !self.socket.wants_write() {
                break;
            }
            match self.socket.poll_write(context) {
                // A message put into the empty outbox from now on wakes this task.
                Poll::Ready(Ok(())) if taken_all => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(IoStep::WriteFailed),
                Poll::Pending => break,
            }
        }
        let stall_moved = self.watch_progress();
        let (unwritten, wants_write) = (self.socket.unwritten_bytes(), self.socket.wants_write());
        if self.phase == Phase::Answering && !wants_write {
            return Poll::Ready(IoStep::Flushed);
        }
        if self.linger.is_none()
            && self.phase.is_before_close()
            && unwritten >= WRITE_AHEAD_BYTES
            && self.link.poll_end(context).is_ready()
        {
            return Poll::Ready(IoStep::EndIsDue);
        }
        if stall_moved {
            return Poll::Ready(IoStep::StallMoved);
        }
        match self.phase {
            Phase::Open | Phase::Closing(_) if self.debt.is_some() || self.link.is_sending() => Poll::Pending,
            Phase::Open | Phase::Closing(_) if let Some(permit) = &mut self.awaited => {
                permit.as_mut().poll(context).map(IoStep::Admitted)
            }
            Phase::Open if !self.is_let_through && self.link.poll_keeps_up(context).is_pending() => {
                if self.behind.is_some() { Poll::Pending } else { Poll::Ready(IoStep::OthersFallBehind) }
            }
            Phase::Open if self.behind.is_some() => Poll::Ready(IoStep::OthersKeepUp),
            Phase::Open if self.link.poll_space(context).is_pending() => Poll::Pending,
            Phase::Open | Phase::Closing(_) => {
                let received = self.socket.poll_receive(context);
                if received.is_pending() {
                    self.link.release_space();
                }
                received.map(|received| match received {
                    Ok(received) => IoStep::Received(received),
                    Err(end) => IoStep::ReadEnd(end),
                })
            }
            Phase::Draining(_) => {
                if !wants_write {
                    // The client waits for the server to end the stream (RFC 6455 section 7.1.1).
                    let _ = self.socket.poll_shutdown(context);
                }
                self.socket.poll_drain(context).map(|()| IoStep::Drained)
            }
            Phase::Left | Phase::Answering => Poll::Pending,
        }
    }

    /// Fills the socket from the room, up to the write-ahead limit.
    fn fill(&mut self, context: &Context<'_>) -> Filled {
        while self.phase.is_before_close() && self.socket.unwritten_bytes() < WRITE_AHEAD_BYTES {
            match self.link.poll_next(context) {
                Poll::Ready(Taken::Message(Payload { bytes, encoding })) => {
                    self.socket.queue_message(Data::Text, encoding, bytes);
                }
                Poll::Ready(Taken::Ping(number)) => {
                    self.socket.queue_ping(Bytes::copy_from_slice(&number.to_be_bytes()));
                }
                Poll::Ready(Taken::Close(close)) => {
                    self.close(close);
                    return Filled::Close;
                }
                Poll::Pending => return Filled::All,
            }
        }
        Filled::Partly
    }

    /// Sends a close frame for the rule that the client broke, and reads no more messages.
    fn break_off(&mut self, close: Close) {
        self.has_arrived();
        self.socket.queue_close(close);
        self.phase = Phase::Draining(close);
    }

    fn close(&mut self, close: Close) {
        self.socket.queue_close(close);
        self.phase = Phase::Closing(close);
    }

    /// Resets the stall timer whenever the socket made progress. True if the timer changed.
    fn watch_progress(&mut self) -> bool {
        let written = self.socket.written_bytes();
        self.metrics.sent_bytes.inc_by(written - self.written);
        let progressed = written > self.written;
        self.written = written;
        let before = self.stall;
        self.stall = match before {
            _ if !self.socket.wants_write() => None,
            Some(at) if !progressed => Some(at),
            _ => Some(now() + self.limits.write_stall),
        };
        self.stall != before
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};
    use tokio_tungstenite::WebSocketStream;
    use tokio_util::task::AbortOnDropHandle;
    use tungstenite::Message;
    use tungstenite::protocol::Role;

    use super::*;
    use crate::protocol::client::ClientMessage;
    use crate::room;
    use crate::room::arrivals::Arrivals;
    use crate::room::mailbox::{Command, Incoming, Mailbox};
    use crate::room::outbox::{Outbox, OutboxLimits};

    /// A connection whose room and network are simulated by the test.
    struct Stage {
        outbox: Outbox,
        mailbox: Mailbox,
        commands: tokio::sync::mpsc::Receiver<Command>,
        metrics: Arc<Metrics>,
        connection: AbortOnDropHandle<()>,
    }

    const ID: ConnectionId = ConnectionId(7);

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            message: MessageLimits { frame_bytes: 2000, user_bytes: 2000 },
            history_entry_bytes: 8000,
            messages_per_second: NonZeroU32::new(50).unwrap(),
            message_burst: NonZeroU32::new(200).unwrap(),
            held_back: Duration::from_secs(60),
            write_stall: Duration::from_secs(20),
        }
    }

    fn stage(limits: ConnectionLimits, network_bytes: usize) -> (Stage, DuplexStream) {
        let (ours, theirs) = duplex(network_bytes);
        (stage_on(ours, limits), theirs)
    }

    fn stage_on(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        limits: ConnectionLimits,
    ) -> Stage {
        stage_with(stream, &Arrivals::new(1 << 20), limits)
    }

    #[expect(clippy::disallowed_methods, reason = "the handle owns the task")]
    fn stage_with(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        arrivals: &Arrivals,
        limits: ConnectionLimits,
    ) -> Stage {
        let metrics = Metrics::new();
        let limits_of_outbox =
            OutboxLimits { member_bytes: 1 << 20, all_bytes: 1 << 30, write_stall: Duration::from_secs(20) };
        let outbox = Outbox::new(limits_of_outbox, metrics.clone());
        let (mailbox, commands) = Mailbox::new(4);
        let link = MemberLink::new(ID, mailbox.clone(), outbox.attach(now(), ID, Encoding::Identity));
        let connection = Connection::new(ID, stream, link, arrivals.share(None), limits, metrics.clone());
        let connection = AbortOnDropHandle::new(tokio::spawn(connection.run()));
        Stage { outbox, mailbox, commands, metrics, connection }
    }

    async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }

    fn message(text: &str) -> room::message::SharedMessage {
        room::message::SharedMessage::new(text.to_owned(), &Metrics::new())
    }

    fn of_bytes(bytes: usize) -> room::message::SharedMessage {
        message(&"x".repeat(bytes))
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

    #[tokio::test(start_paused = true)]
    async fn only_a_stalled_client_is_closed() {
        let (mut stage, mut network) = stage(limits(), 1000);
        stage.outbox.push(now(), &of_bytes(10_000), None).unwrap();
        let mut taken = [0; 100];
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(19)).await;
            network.read_exact(&mut taken).await.unwrap();
        }
        assert!(!stage.connection.is_finished());
        let start = now();
        assert_eq!(kind(stage.commands.recv().await), "gone");
        assert!((19..=20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        assert_eq!(closes(&stage.metrics, "stalled"), 1);
    }

    /// Data that a TLS stream had encrypted, and that the network did not take at once, stayed in
    /// the stream until the next message.
    #[tokio::test(start_paused = true)]
    async fn buffering_stream_is_flushed() {
        let (ours, mut network) = duplex(100);
        let stage = stage_on(BufWriter::with_capacity(5000, ours), limits());
        stage.outbox.push(now(), &of_bytes(996), None).unwrap();
        let mut taken = [0; 1000];
        let arrived = tokio::time::timeout(Duration::from_secs(19), network.read_exact(&mut taken));
        arrived.await.expect("all of it arrives").unwrap();
        // Nothing is queued any more, so nothing can stall.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!stage.connection.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_client_of_buffering_stream_is_closed() {
        let (ours, _network) = duplex(100);
        let mut stage = stage_on(BufWriter::with_capacity(5000, ours), limits());
        stage.outbox.push(now(), &of_bytes(996), None).unwrap();
        let start = now();
        let end = tokio::time::timeout(Duration::from_secs(60), stage.commands.recv()).await;
        assert_eq!(kind(end.expect("an end")), "gone");
        assert_eq!(start.elapsed().as_secs(), 20);
        assert_eq!(closes(&stage.metrics, "stalled"), 1);
    }

    /// A client that took a few bytes now and then kept its socket long after its membership had ended.
    #[tokio::test(start_paused = true)]
    async fn slow_reader_is_closed_at_its_end_deadline() {
        let (mut stage, mut network) = stage(limits(), 1000);
        stage.outbox.push(now(), &of_bytes(200_000), None).unwrap();
        let (start, mut taken) = (now(), [0; 100]);
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                if network.read_exact(&mut taken).await.is_err() {
                    break;
                }
                if start.elapsed() == Duration::from_secs(100) {
                    stage.outbox.close(Close::TimedOut);
                }
            }
        };
        let gone = async { assert_eq!(kind(stage.commands.recv().await), "gone") };
        tokio::select! {
            () = trickle => {}
            () = gone => {}
        }
        assert!((120..=121).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        assert_eq!(closes(&stage.metrics, "stalled"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_messages_are_read_later() {
        let (mut stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        for number in 0..230 {
            let text = format!(r#"{{"type":"directMessage","to":"b","message":"{number}"}}"#);
            client.send(Message::text(text)).await.unwrap();
        }
        for number in 0..230 {
            let Some(Command::Message(Incoming {
                message: Ok(ClientMessage::DirectMessage { message, .. }),
                ..
            })) = stage.commands.recv().await
            else {
                panic!("message {number} is lost")
            };
            assert_eq!(message.as_json(), format!("\"{number}\""));
        }
        assert!(stage.metrics.held_back.get() >= 1);
    }

    /// Each throttled socket held its last message, up to 8 MiB inflated from a few kilobytes.
    #[tokio::test(start_paused = true)]
    async fn message_is_delivered_before_its_tokens_are_paid() {
        let message_burst = NonZeroU32::new(2).unwrap();
        let (mut stage, network) = stage(ConnectionLimits { message_burst, ..limits() }, 1 << 20);
        let mut client = client(network).await;
        for _ in 0..4 {
            client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
        }
        let start = now();
        let mut arrived = Vec::new();
        for _ in 0..4 {
            assert_eq!(kind(stage.commands.recv().await), "heartbeat");
            arrived.push(start.elapsed().as_millis() / 10);
        }
        assert_eq!(arrived, [0, 0, 0, 2], "50 a second");
    }

    /// Each socket read one message more than the mailbox had space for, and inflated it.
    #[tokio::test(start_paused = true)]
    async fn full_mailbox_stops_reading() {
        let (mut stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        let long =
            Incoming { connection: ID, message: Ok(ClientMessage::Heartbeat), bytes: 4 << 20, permit: None };
        stage.mailbox.try_deliver(long, None).unwrap();
        client.send(Message::text(r#"{"type":"userLeft"}"#)).await.unwrap();
        let second = Duration::from_secs(1);
        tokio::time::sleep(second).await;
        assert!(stage.outbox.take_throttled(), "it is alive");
        assert_eq!(stage.metrics.received_bytes.get(), 0);
        let handled = stage.commands.recv().await;
        assert!(tokio::time::timeout(second, stage.commands.recv()).await.is_err(), "it is not handled yet");
        drop(handled);
        assert_eq!(kind(stage.commands.recv().await), "userLeft");
    }

    fn of_mls(bytes: usize) -> Message {
        Message::text(format!(r#"{{"type":"e2eeMlsMessage","payload":"{}"}}"#, "x".repeat(bytes)))
    }

    /// A stage for usual messages with limited memory for incomplete ones, and its client.
    async fn stage_within(arrivals: &Arrivals) -> (Stage, WebSocketStream<DuplexStream>) {
        let message = MessageLimits::default();
        let limits = ConnectionLimits { message, history_entry_bytes: 8 << 20, ..limits() };
        let (ours, theirs) = duplex(1 << 16);
        (stage_with(ours, arrivals, limits), client(theirs).await)
    }

    /// A socket that waited for space released it before it read, and found it taken by the next, forever.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the handles own the tasks")]
    async fn sockets_that_wait_for_a_full_room_take_turns() {
        const SOCKETS: u64 = 9;
        let message = MessageLimits::default();
        let (mailbox, mut commands) = Mailbox::new(256);
        let metrics = Metrics::new();
        let arrivals = Arrivals::new(1 << 30);
        let of_outbox =
            OutboxLimits { member_bytes: 1 << 20, all_bytes: 1 << 30, write_stall: Duration::from_secs(20) };
        let outboxes: Vec<_> = (0..SOCKETS).map(|_| Outbox::new(of_outbox, metrics.clone())).collect();
        let long = format!(r#"{{"type":"e2eeMlsMessage","payload":"{}"}}"#, "x".repeat(900_000));
        let (mut tasks, mut clients) = (Vec::new(), Vec::new());
        for (number, outbox) in outboxes.iter().enumerate() {
            let id = ConnectionId(number as u64);
            let link = MemberLink::new(id, mailbox.clone(), outbox.attach(now(), id, Encoding::Identity));
            let (ours, theirs) = duplex(8 << 20);
            let limits = ConnectionLimits { message, history_entry_bytes: 1 << 20, ..limits() };
            let connection = Connection::new(id, ours, link, arrivals.share(None), limits, metrics.clone());
            tasks.push(AbortOnDropHandle::new(tokio::spawn(connection.run())));
            clients.push(client(theirs).await);
        }
        for _ in 0..3 {
            for client in &mut clients {
                client.send(Message::text(&long)).await.unwrap();
            }
        }
        let all = async {
            for _ in 0..3 * SOCKETS {
                // Other tasks run before the command is handled and its space is free.
                let command = commands.recv().await;
                tokio::task::yield_now().await;
                assert_eq!(kind(command), "e2eeMlsMessage");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("all arrive");
    }

    /// A thousand sockets that each began a message of 8 MiB took 8 GB.
    #[tokio::test(start_paused = true)]
    async fn long_message_waits_for_memory() {
        let arrivals = Arrivals::new(1 << 20);
        let held = arrivals.share(None).try_acquire(1 << 20);
        let overrun = arrivals.share(None).acquire(1).await;
        let (mut stage, mut client) = stage_within(&arrivals).await;
        let minute = Duration::from_secs(60);
        client.send(of_mls(60_000)).await.unwrap();
        assert_eq!(kind(stage.commands.recv().await), "e2eeMlsMessage");
        let sent = tokio::time::timeout(minute, client.send(of_mls(900_000))).await;
        assert!(sent.is_err(), "it is read no further");
        assert!(stage.outbox.take_throttled() && !stage.connection.is_finished(), "and is alive");
        assert!((60_000..300_000).contains(&stage.metrics.arriving_bytes.get()));
        drop((held, overrun));
        let (arrived, flushed) = tokio::join!(stage.commands.recv(), client.flush());
        flushed.unwrap();
        assert_eq!(kind(arrived), "e2eeMlsMessage");
        assert_eq!(stage.metrics.arriving_bytes.get(), 0);
        assert!(arrivals.share(None).try_acquire(1 << 20).is_some(), "all is given back");
    }

    /// Each would have waited for bytes that the others hold.
    #[tokio::test(start_paused = true)]
    async fn incomplete_messages_do_not_deadlock() {
        let arrivals = Arrivals::new(200_000);
        let mut stages = Vec::new();
        for _ in 0..4 {
            stages.push(stage_within(&arrivals).await);
        }
        let all = stages.iter_mut().map(|(stage, client)| async {
            let (arrived, sent) = tokio::join!(stage.commands.recv(), client.send(of_mls(1_000_000)));
            sent.unwrap();
            kind(arrived)
        });
        let all = tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(all)).await;
        assert_eq!(all.expect("an end"), ["e2eeMlsMessage"; 4]);
    }

    /// Otherwise no other socket could complete a long message during this one's lifetime.
    #[tokio::test(start_paused = true)]
    async fn overrun_message_must_complete_in_time() {
        let (arrivals, start) = (Arrivals::new(1000), now());
        let (ours, mut network) = duplex(1 << 16);
        let message = MessageLimits::default();
        let mut stage = stage_with(ours, &arrivals, ConnectionLimits { message, ..limits() });
        let mut part = vec![0x81, 0xff];
        part.extend(1_000_000_u64.to_be_bytes());
        part.resize(300_000, b'x');
        network.write_all(&part).await.expect("it is read");
        let mut close = [0; 4];
        network.read_exact(&mut close).await.unwrap();
        assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1013));
        assert_eq!(start.elapsed().as_secs(), 20);
        assert_eq!(stage.metrics.arriving_bytes.get(), 0);
        drop(network);
        assert_eq!(kind(stage.commands.recv().await), "gone");
    }

    /// A few kilobytes, compressed, made the server inflate and read 8 MiB, and counted as one message.
    #[tokio::test(start_paused = true)]
    async fn a_long_message_counts_as_several() {
        let message_burst = NonZeroU32::new(20).unwrap();
        let limits = ConnectionLimits { message: MessageLimits::default(), message_burst, ..limits() };
        let (mut stage, network) = stage(limits, 1 << 21);
        let mut client = client(network).await;
        let long = format!(r#"{{"type":"heartbeat","and":"{}"}}"#, "x".repeat(10 * BYTES_A_TOKEN));
        for is_held_back in [false, true] {
            client.send(Message::text(&long)).await.unwrap();
            assert_eq!(kind(stage.commands.recv().await), "heartbeat");
            assert_eq!(stage.metrics.held_back.get() > 0, is_held_back);
        }
    }

    /// Millions of frames of an endless message were read as fast as they came, for no token.
    #[tokio::test(start_paused = true)]
    async fn empty_frames_are_charged_as_they_arrive() {
        let (mut stage, network) = stage(limits(), 1 << 16);
        let (mut hear, mut say) = tokio::io::split(network);
        let sent = std::cell::Cell::new(0);
        // A first frame of a text, then empty ones that continue it, each masked with zeros.
        let flood = async {
            let mut frames = [0x00, 0x80, 0, 0, 0, 0].repeat(1000);
            frames[0] = 0x01;
            loop {
                say.write_all(&frames).await.unwrap();
                frames[0] = 0x00;
                sent.set(sent.get() + 1000);
            }
        };
        let mut close_frame = [0; 2];
        tokio::select! {
            () = flood => {}
            read = hear.read_exact(&mut close_frame) => assert_eq!(read.unwrap(), 2),
        }
        let sent = sent.get();
        assert_eq!(close_frame[0], 0x88);
        drop((hear, say));
        assert_eq!(kind(stage.commands.recv().await), "gone");
        assert_eq!(closes(&stage.metrics, "too_fast"), 1);
        // 60 s of 50 tokens and a burst of 200, 16 frames each; and the data buffered in the network.
        assert!((50_000..90_000).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn throttled_too_long_socket_is_closed() {
        let limits = ConnectionLimits { held_back: Duration::from_millis(30), ..limits() };
        let (mut stage, network) = stage(limits, 1 << 20);
        let (mut say, mut hear) = client(network).await.split();
        let flood = async { while say.send(Message::text(r#"{"type":"heartbeat"}"#)).await.is_ok() {} };
        let drain = async { while kind(stage.commands.recv().await) != "gone" {} };
        let close = async {
            loop {
                if let Some(Ok(Message::Close(close))) = hear.next().await {
                    break close.unwrap().code;
                }
            }
        };
        let (_, (), code) = tokio::join!(flood, drain, close);
        assert_eq!(u16::from(code), 1008);
    }

    #[tokio::test(start_paused = true)]
    async fn heavy_sender_waits_for_others_for_limited_time() {
        let (mut stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        let account = stage.outbox.account().clone();
        account.set_most(10);
        let charge = account.charge(1000);
        for _ in 0..3 {
            client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
        }
        let half = LONGEST_HOLD / 2;
        assert!(tokio::time::timeout(half, stage.commands.recv()).await.is_err(), "others fall behind");
        assert!(stage.outbox.take_throttled(), "it is alive");
        // One message is read anyway; then the next waits as long.
        assert_eq!(
            kind(tokio::time::timeout(LONGEST_HOLD, stage.commands.recv()).await.unwrap()),
            "heartbeat"
        );
        assert!(tokio::time::timeout(half, stage.commands.recv()).await.is_err());
        drop(charge);
        assert_eq!(kind(tokio::time::timeout(half, stage.commands.recv()).await.unwrap()), "heartbeat");
        assert!(!stage.outbox.take_throttled() || !stage.outbox.take_throttled());
    }

    #[tokio::test(start_paused = true)]
    async fn full_mailbox_does_not_stop_writing() {
        let (mut stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        for _ in 0..10 {
            client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
        }
        // The mailbox holds four and nobody reads it.
        stage.outbox.push(now(), &message("still heard"), None).unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("still heard"));
        for _ in 0..10 {
            assert_eq!(kind(stage.commands.recv().await), "heartbeat");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_confirmed_by_the_clients_pong() {
        let (stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        stage.outbox.push(now(), &message("event"), None).unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("event"));
        assert_ne!(stage.outbox.event_bytes(), 0, "written is not arrived");
        assert!(client.next().await.unwrap().unwrap().is_ping());
        client.flush().await.unwrap();
        while stage.outbox.event_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// The answer was delayed until the next write or read.
    #[tokio::test(start_paused = true)]
    async fn a_ping_is_answered_at_once() {
        let (_stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        for payload in ["one", "two"] {
            client.send(Message::Ping(payload.into())).await.unwrap();
            let pong = tokio::time::timeout(Duration::from_secs(1), client.next()).await.expect("an answer");
            assert_eq!(pong.unwrap().unwrap(), Message::Pong(payload.into()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_user_left_nothing_is_read() {
        let (mut stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        client.send(Message::text(r#"{"type":"userLeft"}"#)).await.unwrap();
        client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
        assert_eq!(kind(stage.commands.recv().await), "userLeft");
        stage.outbox.close(Close::UserLeft);
        let Some(Ok(Message::Close(Some(close)))) = client.next().await else { panic!("no close frame") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "User left"));
        assert!(client.next().await.is_none(), "the server ends the stream once the close is answered");
        assert_eq!(kind(stage.commands.recv().await), "gone");
    }

    #[tokio::test(start_paused = true)]
    async fn overlong_message_closes_but_history_entry_does_not() {
        let (mut stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        let long = "x".repeat(3000);
        let entry =
            format!(r#"{{"type":"callsApiHistoryEntry","entry":{{"endpoint":"/x","body":"{long}"}}}}"#);
        client.send(Message::text(entry)).await.unwrap();
        assert_eq!(kind(stage.commands.recv().await), "callsApiHistoryEntry");
        client
            .send(Message::text(format!(r#"{{"type":"e2eeMlsMessage","payload":"{long}"}}"#)))
            .await
            .unwrap();
        let Some(Ok(Message::Close(Some(close)))) = client.next().await else { panic!("no close frame") };
        assert_eq!(u16::from(close.code), 1009);
        drop(client);
        assert_eq!(kind(stage.commands.recv().await), "gone");
    }

    #[tokio::test(start_paused = true)]
    async fn broken_frames_are_closed_with_their_codes() {
        // A text frame whose payload is no UTF-8; one without a mask; one with a reserved bit.
        let frames: [(&[u8], u16, &str); 3] = [
            (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007, "invalid_text"),
            (&[0x81, 0x01, b'x'], 1002, "protocol_error"),
            (&[0xc1, 0x81, 0, 0, 0, 0, b'x'], 1002, "protocol_error"),
        ];
        for (frame, code, reason) in frames {
            let (mut stage, mut network) = stage(limits(), 1 << 20);
            network.write_all(frame).await.unwrap();
            let mut head = [0; 4];
            network.read_exact(&mut head).await.unwrap();
            assert_eq!((head[0], u16::from_be_bytes([head[2], head[3]])), (0x88, code));
            drop(network);
            assert_eq!(kind(stage.commands.recv().await), "gone");
            assert_eq!(closes(&stage.metrics, reason), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_before_stream_broke_are_delivered() {
        let (mut stage, network) = stage(limits(), 1 << 20);
        let mut client = client(network).await;
        for _ in 0..6 {
            client.send(Message::text(r#"{"type":"heartbeat"}"#)).await.unwrap();
        }
        client.send(Message::text(r#"{"type":"userLeft"}"#)).await.unwrap();
        drop(client);
        for _ in 0..6 {
            assert_eq!(kind(stage.commands.recv().await), "heartbeat");
        }
        assert_eq!(kind(stage.commands.recv().await), "userLeft");
        stage.outbox.close(Close::UserLeft);
        assert_eq!(kind(stage.commands.recv().await), "gone");
    }
}
