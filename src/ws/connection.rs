//! The task of one socket: it carries the messages of a session, as fast as the client takes and may send them.
//!
//! The connection is the transport: frames, compression, rates, memory, stalls and the close. What the messages
//! mean, and which rooms they concern, is its [`Session`]'s.

mod leasing;
mod receiving;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use tungstenite::protocol::frame::coding::Data;

use super::arriving::Arriving;
use super::boundary::BYTES_A_TOKEN;
use super::keep_alive::{KeepAlive, Silence, SilenceDue};
use super::lease::Lease;
use super::phase::{EndLabel, Phase};
use super::progress::WriteProgress;
use super::recipient_pause::{PauseChange, RecipientPause};
use super::session::{Next, Output, Session};
use super::socket::{ReadEnd, Received, Socket};
use super::throttle::Throttle;
use crate::auth::lease::LeaseEnd;
use crate::clock::now;
use crate::id::ConnectionId;
use crate::metrics::{Counted, Metrics};
use crate::protocol::close::Close;
use crate::protocol::deflate::Encoding;
use crate::room::arrivals::ArrivalShare;
use crate::room::message::Payload;

/// Maximum bytes taken from the session before they are written. A snapshot that is not yet taken
/// can still be replaced by a newer one.
const WRITE_AHEAD_BYTES: usize = 64 * 1024;

/// Time for a client to answer a close frame, and to read the one that it is sent.
const LINGER: Duration = Duration::from_secs(3);

/// Limits of one socket.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Maximum size of a message in bytes, inflated.
    pub message_bytes: usize,
    /// Maximum rate at which messages are read, per second.
    pub messages_per_second: NonZeroU32,
    /// Number of messages read at once after a quiet time.
    pub message_burst: NonZeroU32,
    /// Maximum total time for which a socket may be throttled before it is closed.
    pub throttled_time: Duration,
    /// Maximum time without a byte taken before the socket is closed.
    pub write_stall: Duration,
    /// The keep-alive, for a protocol in which a client may be silent.
    pub keep_alive: Option<KeepAlive>,
}

/// One socket and its session.
pub struct Connection<S, P> {
    /// Id in logs.
    id: ConnectionId,
    /// The frames on the stream.
    socket: Socket<S>,
    /// The protocol, and the rooms behind it.
    session: P,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    /// The rate of reading.
    throttle: Throttle,
    /// The memory of a message that is not yet complete.
    arriving: Arriving,
    /// The pause in reading while other members are slow to take this client's messages.
    pause: RecipientPause,
    /// True if the rooms know that the socket is not being read.
    is_throttled: bool,
    /// The progress of writing.
    progress: WriteProgress,
    /// The time since the client's last frame.
    silence: Silence,
    /// True if the last attempt to read was not held up by anything but the client.
    is_heard: bool,
    /// The purpose of reading: messages, or the end.
    phase: Phase,
    /// Deadline for a closing socket, even if it makes progress.
    linger: Option<Instant>,
    /// The right by which the client is here, if that has an end.
    lease: Option<Lease>,
    /// True if the client said that its page is left, or may not come back.
    is_page_left: bool,
    /// This socket in the gauge of compressed ones.
    _deflated: Option<Counted>,
}

/// Result of an attempt to read and write.
#[derive(Debug)]
enum IoStep {
    Received(Received),
    ReadEnd(ReadEnd),
    CloseQueued,
    /// The session has ended, but the client reads so little that the close frame cannot be queued yet.
    EndIsDue,
    /// A deadline changed, so that the timer must be set anew.
    DeadlineMoved,
    /// The client may be here no longer.
    LeaseEnded(LeaseEnd),
    WriteFailed,
    Drained,
    Flushed,
}

/// State of filling the socket with the session's output.
#[derive(Debug)]
enum Filled {
    /// The write-ahead limit is reached; there may be more.
    Partly,
    /// Everything was taken; the next output wakes this task.
    All,
    /// The close frame was taken.
    Close,
}

impl<S: AsyncRead + AsyncWrite + Unpin, P: Session> Connection<S, P> {
    /// A connection after its handshake, in which `encoding` was negotiated.
    pub fn new(
        id: ConnectionId,
        (stream, encoding): (S, Encoding),
        session: P,
        share: Arc<ArrivalShare>,
        limits: ConnectionLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let is_deflated = encoding == Encoding::Deflate;
        Self {
            id,
            socket: Socket::new(stream, limits.message_bytes, encoding),
            session,
            throttle: Throttle::new(&limits),
            arriving: Arriving::new(share, limits.write_stall, &metrics),
            pause: RecipientPause::default(),
            is_throttled: false,
            progress: WriteProgress::new(limits.write_stall),
            silence: Silence::new(limits.keep_alive, now()),
            is_heard: true,
            phase: Phase::Open,
            linger: None,
            lease: None,
            is_page_left: false,
            _deflated: is_deflated.then(|| Counted::new(&metrics.deflated_connections, 1)),
            limits,
            metrics,
        }
    }

    /// Runs until the socket is gone, then ends the session.
    #[expect(clippy::manual_async_fn, reason = "an async fn would hold the connection twice")]
    pub fn run(mut self) -> impl Future<Output = ()> + use<S, P> {
        async move {
            let end = self.serve().await;
            Metrics::count(&self.metrics.closes, end);
            debug!(event = "socketClosed", socket = %self.id, reason = end);
            self.session.end(self.is_page_left).await;
        }
    }

    async fn serve(&mut self) -> EndLabel {
        loop {
            // First, since a deadline can be the reason for the close as well as a step.
            if self.linger.is_none() && !self.phase.is_before_close() {
                self.linger = Some(now() + LINGER);
            }
            let deadline = self.deadline();
            let step = tokio::select! {
                biased;
                step = std::future::poll_fn(|context| self.poll_step(context)) => step,
                () = sleep_until(deadline) => match self.expire(now()) {
                    Some(end) => return end,
                    None => continue,
                },
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
                IoStep::DeadlineMoved => {}
                IoStep::LeaseEnded(end) => self.end_lease(end),
            }
        }
    }

    /// The next deadline of anything.
    fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.linger,
            self.throttle.deadline(),
            self.progress.deadline(),
            self.pause.deadline(),
            self.arriving.deadline(),
            self.silence.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Carries out the consequences of deadlines that have passed; returns the socket's end, if it is one.
    fn expire(&mut self, now: Instant) -> Option<EndLabel> {
        if self.linger.is_some_and(|at| at <= now) && !self.phase.is_before_close() {
            return Some(self.phase.label());
        }
        if [self.progress.deadline(), self.linger].into_iter().flatten().any(|at| at <= now) {
            return Some(Close::Stalled.label());
        }
        if self.arriving.take_overdue(now) && self.phase.is_before_close() {
            self.break_off(Close::TooMuchArrives);
        }
        self.pause.expire(now);
        self.expire_silence(now);
        let charge = self.throttle.pay_due(now);
        self.settle(charge);
        None
    }

    /// Pings a silent client, or closes the socket of one that answers no ping.
    fn expire_silence(&mut self, now: Instant) {
        if !self.is_heard || self.phase != Phase::Open {
            // It was not read, so that nothing of it could be heard.
            self.silence.end(|| now);
            return;
        }
        match self.silence.take_due(now) {
            Some(SilenceDue::Ping) => self.socket.queue_ping(Bytes::new()),
            Some(SilenceDue::Close) => self.break_off(Close::Idle),
            None => {}
        }
    }

    /// Fills the socket from the session, writes, and reads, as far as each goes without waiting; and tells the
    /// rooms if the socket is not read.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<IoStep> {
        if let Poll::Ready(end) = self.poll_lease(context) {
            return Poll::Ready(IoStep::LeaseEnded(end));
        }
        let step = self.poll_io(context);
        let is_throttled = self.throttle.is_owing()
            || self.session.is_congested()
            || self.arriving.is_waiting()
            || self.pause.is_active();
        if std::mem::replace(&mut self.is_throttled, is_throttled) != is_throttled {
            self.session.set_throttled(now(), is_throttled);
        }
        step
    }

    fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<IoStep> {
        self.is_heard = false;
        let handed_on = self.session.poll_handed_on(context);
        if let Poll::Ready(next) = handed_on {
            self.follow(next);
            if let Next::Charge(_) = next {
                // Nothing wakes this task at the end of a debt that the timer does not know.
                return Poll::Ready(IoStep::DeadlineMoved);
            }
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
                // Output that the session has from now on wakes this task.
                Poll::Ready(Ok(())) if taken_all => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(IoStep::WriteFailed),
                Poll::Pending => break,
            }
        }
        let (unwritten, wants_write) = (self.socket.unwritten_bytes(), self.socket.wants_write());
        let checked = self.progress.check(now, self.socket.written_bytes(), wants_write);
        self.metrics.sent_bytes.inc_by(checked.written);
        if self.phase == Phase::Answering && !wants_write {
            return Poll::Ready(IoStep::Flushed);
        }
        if self.linger.is_none()
            && self.phase.is_before_close()
            && unwritten >= WRITE_AHEAD_BYTES
            && self.session.poll_end(context).is_ready()
        {
            return Poll::Ready(IoStep::EndIsDue);
        }
        if checked.is_moved {
            return Poll::Ready(IoStep::DeadlineMoved);
        }
        match self.phase {
            Phase::Open | Phase::Closing(_) if handed_on.is_pending() => Poll::Pending,
            Phase::Open | Phase::Closing(_) => self.poll_read(context),
            Phase::Draining(_) => {
                if !wants_write {
                    // The client waits for the server to end the stream (RFC 6455 section 7.1.1).
                    let _ = self.socket.poll_shutdown(context);
                }
                self.socket.poll_drain(context).map(|()| IoStep::Drained)
            }
            Phase::Stopped | Phase::Answering => Poll::Pending,
        }
    }

    /// Reads, unless something forbids that.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<IoStep> {
        if self.throttle.is_owing() {
            return Poll::Pending;
        }
        if self.arriving.is_waiting() {
            return self.arriving.poll_permitted(now(), context).map(|()| IoStep::DeadlineMoved);
        }
        // At the end, messages on their way are read without regard for others: they must not be lost.
        if self.phase == Phase::Open {
            if let Some(step) = self.poll_pause(context) {
                // A socket that is not read must not hold space from others of the room.
                self.session.release_space();
                return step;
            }
            if self.session.poll_space(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.is_heard = true;
        let received = self.socket.poll_receive(context);
        if received.is_pending() {
            self.session.release_space();
        }
        received.map(|received| match received {
            Ok(received) => IoStep::Received(received),
            Err(end) => IoStep::ReadEnd(end),
        })
    }

    /// The step to take instead of reading, while other members fall behind with this client's messages.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Option<Poll<IoStep>> {
        let fall_behind = !self.pause.allows_next() && self.session.poll_keeps_up(context).is_pending();
        match self.pause.update(now, fall_behind) {
            Some(change) => {
                if change == PauseChange::Begun {
                    self.metrics.throttled.inc();
                }
                Some(Poll::Ready(IoStep::DeadlineMoved))
            }
            None => fall_behind.then_some(Poll::Pending),
        }
    }

    /// Fills the socket from the session, up to the write-ahead limit.
    fn fill(&mut self, context: &mut Context<'_>) -> Filled {
        while self.phase.is_before_close() && self.socket.unwritten_bytes() < WRITE_AHEAD_BYTES {
            match self.session.poll_output(context) {
                Poll::Ready(Output::Text(Payload { bytes, encoding, .. })) => {
                    self.socket.queue_message(Data::Text, encoding, bytes);
                }
                Poll::Ready(Output::Enveloped { head, payload, tail }) => {
                    self.socket.queue_enveloped(&head, payload.encoding, payload.bytes, tail);
                }
                Poll::Ready(Output::Reply(text)) => {
                    self.socket.queue_message(Data::Text, Encoding::Identity, text.into());
                }
                Poll::Ready(Output::Ping(payload)) => self.socket.queue_ping(payload),
                Poll::Ready(Output::Close(close)) => {
                    self.close(close);
                    return Filled::Close;
                }
                Poll::Pending => return Filled::All,
            }
        }
        Filled::Partly
    }

    /// Carries out the consequence of a message for the connection.
    fn follow(&mut self, next: Next) {
        match next {
            Next::Read => {}
            Next::Charge(tokens) => {
                let charge = self.throttle.charge_more(tokens);
                self.settle(charge);
            }
            Next::Stop if self.phase.is_before_close() => self.phase = Phase::Stopped,
            Next::Stop => {}
            Next::Reject(close) => self.break_off(close),
        }
    }

    /// Sends a close frame for the rule that the client broke, and reads no more messages.
    fn break_off(&mut self, close: Close) {
        self.arriving.clear();
        self.socket.queue_close(close);
        self.phase = Phase::Draining(close);
    }

    fn close(&mut self, close: Close) {
        self.socket.queue_close(close);
        self.phase = Phase::Closing(close);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
