//! The task of one socket: reader and writer share it, and so share their fate.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, Permit};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use tungstenite::Utf8Bytes;

use super::socket::{ReadEnd, Received, Socket};
use crate::id::ConnectionId;
use crate::metrics::{ByType, Metrics};
use crate::protocol::client::ClientMessage;
use crate::protocol::close::Close;
use crate::room::actor::Command;
use crate::room::outbox::{Acknowledged, Taken};
use crate::room::registry::Seat;

/// How much is taken from the outbox before it is written. What is not taken yet can still be
/// replaced by a newer snapshot.
const WRITE_AHEAD_BYTES: usize = 64 * 1024;

/// How long a client has to answer a close frame, and to read the one that it is sent.
const LINGER: Duration = Duration::from_secs(3);

/// The limits of one socket.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// The most bytes of a message.
    pub frame_bytes: usize,
    /// The most bytes of a `callsApiHistoryEntry`, which is read and dropped.
    pub history_entry_bytes: usize,
    /// How many messages a second are read.
    pub messages_per_second: NonZeroU32,
    /// How many messages are read at once after a quiet time.
    pub message_burst: NonZeroU32,
    /// How long a socket may be held back in all before it is closed.
    pub held_back: Duration,
    /// How long a socket may take no byte before it is closed.
    pub write_stall: Duration,
}

/// One socket and its seat.
pub struct Connection<S> {
    id: ConnectionId,
    socket: Socket<S>,
    seat: Seat,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    rate: DefaultDirectRateLimiter,
    phase: Phase,
    /// A message that was read and has no token yet.
    held: Option<Held>,
    held_in_all: Duration,
    /// What the room has no place for yet; nothing is read meanwhile.
    command: Option<Command>,
    /// How many bytes the socket had taken when this was last looked at.
    written: u64,
    /// When the socket is given up for taking none.
    stall: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    received: Received,
    since: Instant,
    until: Instant,
}

/// What the socket is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For messages.
    Open,
    /// For nothing: the member left, and the room will close.
    Left,
    /// For the client's close frame, which answers ours.
    Closing(Close),
    /// For the end of the stream: the client broke a rule, and is told so.
    Draining(Close),
    /// The client closed; what answers it is written.
    Answering,
}

/// What an attempt to read and write led to.
#[derive(Debug)]
enum Step {
    Received(Received),
    ReadEnd(ReadEnd),
    CloseQueued,
    WriteFailed,
    Drained,
    Flushed,
}

/// How a connection ended, as metrics and logs count it.
type EndLabel = &'static str;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection whose seat is taken and whose handshake is done.
    pub fn new(
        id: ConnectionId,
        stream: S,
        seat: Seat,
        limits: ConnectionLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let quota = Quota::per_second(limits.messages_per_second).allow_burst(limits.message_burst);
        let socket = Socket::new(stream, limits.frame_bytes.max(limits.history_entry_bytes));
        Self {
            id,
            socket,
            seat,
            limits,
            metrics,
            rate: RateLimiter::direct(quota),
            phase: Phase::Open,
            held: None,
            held_in_all: Duration::ZERO,
            command: None,
            written: 0,
            stall: None,
        }
    }

    /// Runs until the socket is gone, then tells the room.
    pub async fn run(mut self) {
        let end = self.serve().await;
        Metrics::count(&self.metrics.closes, end);
        debug!(event = "socketClosed", socket = %self.id, reason = end);
        // What the client said before it went still counts, in its order.
        for command in self.command.take().into_iter().chain([Command::Disconnected { connection: self.id }])
        {
            // A room that is gone needs no goodbye.
            let _ = self.seat.mailbox.send(command).await;
        }
    }

    async fn serve(&mut self) -> EndLabel {
        let mailbox = self.seat.mailbox.clone();
        let mut linger: Option<Instant> = None;
        loop {
            self.watch_progress();
            let timer = [linger, self.held.as_ref().map(|held| held.until), self.stall];
            let timer = timer.into_iter().flatten().min();
            let wants_room = self.command.is_some();
            let step = tokio::select! {
                biased;
                step = std::future::poll_fn(|context| self.poll_step(context)) => step,
                permit = reserve(&mailbox), if wants_room => {
                    match (permit, self.command.take()) {
                        (Some(permit), Some(command)) => permit.send(command),
                        // The room is gone; its outbox closes the socket.
                        _ => self.phase = Phase::Left,
                    }
                    continue;
                }
                () = sleep_until(timer) => {
                    let now = now();
                    if linger.is_some_and(|at| at <= now) {
                        return self.phase.label();
                    }
                    if self.stall.is_some_and(|at| at <= now) {
                        return Close::Stalled.label();
                    }
                    if let Some(held) = self.held.take_if(|held| held.until <= now) {
                        self.held_in_all += now - held.since;
                        self.receive(held.received);
                    }
                    continue;
                }
            };
            match step {
                Step::Received(received) => self.receive(received),
                Step::ReadEnd(ReadEnd::Broken(close)) if self.phase.is_before_close() => {
                    self.socket.queue_close(close);
                    self.phase = Phase::Draining(close);
                }
                Step::ReadEnd(ReadEnd::Closed) if self.phase.is_before_close() => {
                    self.phase = Phase::Answering
                }
                // After our close frame, whatever ends the reading ends the socket.
                Step::ReadEnd(_) | Step::WriteFailed | Step::Drained | Step::Flushed => {
                    let shutdown = std::future::poll_fn(|context| self.socket.poll_shutdown(context));
                    let _ = timeout_at(linger.unwrap_or_else(|| now() + LINGER), shutdown).await;
                    return self.phase.label();
                }
                Step::CloseQueued => {}
            }
            if linger.is_none() && !self.phase.is_before_close() {
                linger = Some(now() + LINGER);
            }
        }
    }

    /// Fills the socket from the outbox, writes, and reads, as far as each goes without waiting.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        loop {
            while self.phase.is_before_close() && self.socket.unwritten_bytes() < WRITE_AHEAD_BYTES {
                match self.seat.outbox.poll_take(context) {
                    Poll::Ready(Taken::Message(text)) => self.socket.queue_text(text),
                    Poll::Ready(Taken::Ping(number)) => {
                        self.socket.queue_ping(Bytes::copy_from_slice(&number.to_be_bytes()));
                    }
                    Poll::Ready(Taken::Close(close)) => {
                        self.close(close);
                        return Poll::Ready(Step::CloseQueued);
                    }
                    Poll::Pending => break,
                }
            }
            if self.socket.unwritten_bytes() == 0 {
                break;
            }
            match self.socket.poll_write(context) {
                // There may be more to take by now.
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Step::WriteFailed),
                Poll::Pending => break,
            }
        }
        if self.phase == Phase::Answering && self.socket.unwritten_bytes() == 0 {
            return Poll::Ready(Step::Flushed);
        }
        match self.phase {
            Phase::Open if self.held.is_some() || self.command.is_some() => Poll::Pending,
            Phase::Open | Phase::Closing(_) => {
                self.socket.poll_receive(context).map(|received| match received {
                    Ok(received) => Step::Received(received),
                    Err(end) => Step::ReadEnd(end),
                })
            }
            Phase::Draining(_) => self.socket.poll_drain(context).map(|()| Step::Drained),
            Phase::Left | Phase::Answering => Poll::Pending,
        }
    }

    /// Takes in what the client sent, if there is a token for it; holds it back otherwise.
    fn receive(&mut self, received: Received) {
        if self.phase != Phase::Open {
            return;
        }
        if let Received::Pong(payload) = &received
            && let Ok(number) = <[u8; 8]>::try_from(&**payload)
            && self.seat.outbox.acknowledge(u64::from_be_bytes(number)) == Acknowledged::News
        {
            // It answers us, and is none of the client's own messages.
            return;
        }
        if let Err(not_yet) = self.rate.check() {
            let now = now();
            if self.held_in_all >= self.limits.held_back {
                self.close(Close::TooFast);
                return;
            }
            self.metrics.held_back.inc();
            // The time that is left is all that it may still wait.
            let wait = not_yet.wait_time_from(DefaultClock::default().now());
            let wait = wait.min(self.limits.held_back - self.held_in_all).max(Duration::from_millis(1));
            self.held = Some(Held { received, since: now, until: now + wait });
            return;
        }
        if let Received::Text(text) = received {
            self.said(&text);
        }
    }

    fn said(&mut self, text: &Utf8Bytes) {
        self.metrics.received_bytes.inc_by(text.len() as u64);
        let message = ClientMessage::parse(text);
        let kind = message.as_ref().map_or("invalid", ClientMessage::kind);
        self.metrics.messages.get_or_create(&ByType { r#type: kind }).inc();
        let is_history = matches!(message, Ok(ClientMessage::CallsApiHistoryEntry(_)));
        if text.len() > self.limits.frame_bytes && !is_history {
            self.socket.queue_close(Close::MessageTooBig);
            self.phase = Phase::Draining(Close::MessageTooBig);
            return;
        }
        if matches!(message, Ok(ClientMessage::UserLeft)) {
            self.phase = Phase::Left;
        }
        self.command = Some(Command::Said { connection: self.id, message });
    }

    fn close(&mut self, close: Close) {
        self.socket.queue_close(close);
        self.phase = Phase::Closing(close);
    }

    /// Winds the stall timer up anew whenever the socket took something.
    fn watch_progress(&mut self) {
        let written = self.socket.written_bytes();
        self.metrics.sent_bytes.inc_by(written - self.written);
        let progressed = written > self.written;
        self.written = written;
        self.stall = match self.stall {
            _ if self.socket.unwritten_bytes() == 0 => None,
            Some(at) if !progressed => Some(at),
            _ => Some(now() + self.limits.write_stall),
        };
    }
}

impl Phase {
    fn is_before_close(self) -> bool {
        matches!(self, Self::Open | Self::Left)
    }

    fn label(self) -> EndLabel {
        match self {
            Self::Closing(close) | Self::Draining(close) => close.label(),
            Self::Answering => "closed_by_client",
            Self::Open | Self::Left => "connection_lost",
        }
    }
}

async fn reserve(mailbox: &mpsc::Sender<Command>) -> Option<Permit<'_, Command>> {
    mailbox.reserve().await.ok()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[expect(clippy::disallowed_methods, reason = "a connection is a shell: it measures its socket's waits")]
fn now() -> Instant {
    Instant::now()
}
