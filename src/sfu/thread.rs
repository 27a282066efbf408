//! The media thread: it owns the engine, the sockets and the clock.
//!
//! It is a separate thread, so that media and rooms do not delay each other. It works in rounds, each with a bounded
//! share of every kind of work: one request, some TCP frames, one batch of datagrams, due timers. After each of these
//! the packets that the engine produced are sent, or dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use str0m::net::Protocol;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, warn};

use super::counters::Counters;
use super::engine::{Datagram, Engine, Transmit};
use super::measures::Measures;
use super::net::Undelivered;
use super::net::batch::SendBatch;
use super::net::tcp::{ReceivedFrame, Tcp};
use super::net::udp::{ReceiveBuffers, Udp};
use super::request::{Request, RequestResult};

/// Most TCP frames handled in one round.
const FRAMES_A_ROUND: usize = 32;

/// Rounds after which the thread yields to the tasks of TCP connections.
const ROUNDS_AT_ONCE: usize = 8;

/// Interval at which metrics are exported.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);

/// Pause after a failure to read the socket; an immediate retry would likely fail again.
const PAUSE: Duration = Duration::from_millis(100);

/// The logic that the thread runs: an [`Engine`], or a test's replacement.
pub trait Core: Send + 'static {
    /// Handles a request.
    fn handle(&mut self, now: Instant, request: Request) -> RequestResult;
    /// Processes a received packet.
    fn receive(&mut self, now: Instant, datagram: Datagram<'_>);
    /// Time at which [`Core::advance`] is due.
    fn deadline(&self) -> Option<Instant>;
    /// Runs due timers.
    fn advance(&mut self, now: Instant);
    /// The next packet to send; called after each of the methods above until it returns `None`.
    fn transmit(&mut self) -> Option<Transmit>;
    /// The current counts.
    fn counters(&self) -> &Counters;
}

impl Core for Engine {
    fn handle(&mut self, now: Instant, request: Request) -> RequestResult {
        Engine::handle(self, now, request)
    }

    fn receive(&mut self, now: Instant, datagram: Datagram<'_>) {
        Engine::receive(self, now, datagram);
    }

    fn deadline(&self) -> Option<Instant> {
        Engine::deadline(self)
    }

    fn advance(&mut self, now: Instant) {
        Engine::advance(self, now);
    }

    fn transmit(&mut self) -> Option<Transmit> {
        Engine::transmit(self)
    }

    fn counters(&self) -> &Counters {
        Engine::counters(self)
    }
}

/// A request, and the channel for its outcome.
#[derive(Debug)]
pub(super) struct SfuCommand {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<RequestResult>,
}

/// The thread's sockets.
pub(super) struct MediaSockets {
    pub(super) udp: Udp,
    pub(super) tcp: Option<Tcp>,
}

impl MediaSockets {
    /// Sends all packets that the engine produced.
    fn drain(&self, core: &mut impl Core, measures: &mut Measures) {
        let mut batch = SendBatch::default();
        while let Some(transmit) = core.transmit() {
            if transmit.proto == Protocol::Udp {
                if let Some(next) = batch.add(transmit, self.udp.most_segments()) {
                    self.send(&mut batch, measures);
                    // An empty batch accepts any datagram.
                    let _ = batch.add(next, 1);
                }
                continue;
            }
            let sent = self.tcp.as_ref().ok_or(Undelivered::Gone).and_then(|tcp| tcp.send(transmit));
            if let Err(why) = sent {
                measures.undelivered(why, 1);
            }
        }
        self.send(&mut batch, measures);
    }

    fn send(&self, batch: &mut SendBatch, measures: &mut Measures) {
        let Some((transmit, segment, packets)) = batch.take() else { return };
        if let Err(why) = self.udp.send(&transmit, segment) {
            measures.undelivered(why, packets);
        }
    }

    /// Waits for a frame; pending forever without TCP.
    async fn frame(tcp: &mut Option<Tcp>) -> ReceivedFrame {
        match tcp {
            Some(tcp) => tcp.next().await,
            None => std::future::pending().await,
        }
    }
}

/// The running thread; stopped and awaited by its owner.
#[derive(Debug)]
pub struct SfuThread {
    stop: DropGuard,
    ended: oneshot::Receiver<()>,
    thread: thread::JoinHandle<Result<(), Panicked>>,
}

/// The media thread ended by a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media thread ended by a panic")]
pub struct Panicked;

impl SfuThread {
    /// Stops the thread and waits until it has ended.
    ///
    /// # Errors
    /// The thread ended by a panic.
    pub async fn join(self) -> Result<(), Panicked> {
        self.stop.disarm().cancel();
        // The sender is dropped at the very end of the thread, also after a panic, so joining takes no time.
        let _ = self.ended.await;
        self.thread.join().unwrap_or(Err(Panicked))
    }
}

/// Starts the thread.
///
/// `open` is called in the thread's own runtime and registers the sockets with it. Joining or dropping the
/// returned value ends the thread.
///
/// # Errors
/// The system refuses a thread or a runtime, or `open` failed.
pub(super) async fn start<C: Core>(
    core: C,
    open: impl FnOnce() -> io::Result<MediaSockets> + Send + 'static,
    commands: mpsc::Receiver<SfuCommand>,
    measures: Measures,
) -> io::Result<SfuThread> {
    let (started, start) = oneshot::channel();
    let (ending, ended) = oneshot::channel();
    let stop = CancellationToken::new();
    let token = stop.clone();
    let body = move || {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let opened = runtime.and_then(|runtime| {
            let entered = runtime.enter();
            let sockets = open()?;
            drop(entered);
            Ok((runtime, sockets))
        });
        let (runtime, sockets) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = started.send(Err(error));
                return Ok(());
            }
        };
        let _ = started.send(Ok(()));
        let media = MediaThread::new(core, sockets, commands, measures, token);
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(media.run())));
        if result.is_err() {
            error!(event = "sfuEnded", reason = "panic", "the media thread ended by a panic; no media flow");
        }
        drop(runtime);
        drop(ending);
        result.map_err(|_| Panicked)
    };
    let thread = thread::Builder::new().name("sfu-media".into()).spawn(body)?;
    match start.await {
        Ok(Ok(())) => Ok(SfuThread { stop: stop.drop_guard(), ended, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other(Panicked)),
    }
}

/// Reason that the thread woke up.
enum Woken {
    Stop,
    Command(SfuCommand),
    Frame(ReceivedFrame),
    /// Datagrams arrived, or a timer is due: each round checks both.
    Other,
}

/// State of the thread.
struct MediaThread<C> {
    core: C,
    sockets: MediaSockets,
    commands: mpsc::Receiver<SfuCommand>,
    inbox: ReceiveBuffers,
    measures: Measures,
    publish_at: Instant,
    /// End of the pause in which the UDP socket is not read.
    receive_paused_until: Option<Instant>,
    stop: CancellationToken,
}

#[expect(clippy::disallowed_methods, reason = "a shell: it is the clock of the engine")]
impl<C: Core> MediaThread<C> {
    fn new(
        core: C,
        sockets: MediaSockets,
        commands: mpsc::Receiver<SfuCommand>,
        measures: Measures,
        stop: CancellationToken,
    ) -> Self {
        Self {
            core,
            sockets,
            commands,
            inbox: ReceiveBuffers::new(),
            measures,
            publish_at: Instant::now(),
            receive_paused_until: None,
            stop,
        }
    }

    async fn run(mut self) {
        let runtime = runtime::Handle::current().metrics();
        for round in 1_usize.. {
            match self.wait().await {
                Woken::Stop => break,
                Woken::Command(command) => self.answer(Some(command)),
                Woken::Frame(frame) => {
                    self.frames(Some(frame));
                    self.answer(None);
                }
                Woken::Other => {
                    self.answer(None);
                    self.frames(None);
                }
            }
            self.datagrams();
            self.due();
            let now = Instant::now();
            if now >= self.publish_at {
                self.publish_at = now + PUBLISH_EVERY;
                self.measures.publish(self.core.counters(), runtime.worker_total_busy_duration(0));
            }
            if round % ROUNDS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        // Ends sessions that were opened after the shutdown began, or that it did not reach.
        let _ = self.core.handle(Instant::now(), Request::EndAll);
        self.sockets.drain(&mut self.core, &mut self.measures);
        if let Some(tcp) = self.sockets.tcp.take() {
            tcp.close().await;
        }
        self.measures.publish(self.core.counters(), runtime.worker_total_busy_duration(0));
    }

    /// Waits for the next work.
    async fn wait(&mut self) -> Woken {
        let until = self.core.deadline().map_or(self.publish_at, |deadline| deadline.min(self.publish_at));
        let (udp, deaf_until) = (&self.sockets.udp, self.receive_paused_until);
        let readable = async {
            if let Some(until) = deaf_until {
                tokio::time::sleep_until(until.into()).await;
            }
            udp.readable().await;
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::Stop,
            Some(command) = self.commands.recv() => Woken::Command(command),
            frame = MediaSockets::frame(&mut self.sockets.tcp) => Woken::Frame(frame),
            () = readable => Woken::Other,
            () = tokio::time::sleep_until(until.into()) => Woken::Other,
        }
    }

    /// Handles one request: the given one, or the next in the queue.
    fn answer(&mut self, command: Option<SfuCommand>) {
        let Some(SfuCommand { request, reply }) = command.or_else(|| self.commands.try_recv().ok()) else {
            return;
        };
        // The caller timed out: a session that nobody knows of would only use up the limits.
        if reply.is_closed() {
            return;
        }
        let outcome = self.core.handle(Instant::now(), request);
        self.sockets.drain(&mut self.core, &mut self.measures);
        let _ = reply.send(outcome);
    }

    /// Passes TCP frames to the engine.
    fn frames(&mut self, first: Option<ReceivedFrame>) {
        let mut next = first;
        for _ in 0..FRAMES_A_ROUND {
            let Some(frame) = next.take().or_else(|| self.sockets.tcp.as_mut()?.try_next()) else {
                return;
            };
            self.core.receive(Instant::now(), frame.datagram());
            self.sockets.drain(&mut self.core, &mut self.measures);
        }
    }

    /// Passes a batch of datagrams to the engine.
    fn datagrams(&mut self) {
        if let Some(until) = self.receive_paused_until {
            if Instant::now() < until {
                return;
            }
            self.receive_paused_until = None;
        }
        let Self { core, sockets, inbox, measures, .. } = self;
        if let Err(error) = sockets.udp.receive(inbox) {
            warn!(event = "sfuReceiveFailed", %error, "reading the media socket pauses");
            measures.receive_failed();
            self.receive_paused_until = Some(Instant::now() + PAUSE);
            return;
        }
        // One time for the whole batch: later times would report our own queueing to senders as network delay.
        let arrived = Instant::now();
        for datagram in sockets.udp.datagrams(inbox) {
            core.receive(arrived, datagram);
        }
        // Sent once per batch, so that the packets of one video frame to a peer leave in one system call.
        sockets.drain(core, measures);
        let oldest = inbox.oldest().and_then(|oldest| UNIX_EPOCH.checked_add(oldest));
        // Skipped if the clock was set back in between.
        if let Some(Ok(after)) = oldest.map(|oldest| SystemTime::now().duration_since(oldest)) {
            measures.forwarded(after);
        }
    }

    /// Runs due timers of the engine.
    fn due(&mut self) {
        let now = Instant::now();
        if self.core.deadline().is_some_and(|deadline| deadline <= now) {
            self.core.advance(now);
            self.sockets.drain(&mut self.core, &mut self.measures);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::error::SfuError;
    use crate::metrics::SfuMetrics;
    use crate::net::addresses::{Advertised, Reach};
    use crate::net::bind::{Transport, bind};

    /// Records its inputs, in order.
    #[derive(Default)]
    struct Recorder {
        counters: Counters,
        record: Arc<Mutex<String>>,
    }

    impl Core for Recorder {
        fn handle(&mut self, _now: Instant, request: Request) -> RequestResult {
            // The thread requests EndAll at its end, too.
            let end = matches!(request, Request::EndAll);
            self.record.lock().unwrap().push(if end { '!' } else { '?' });
            Err(SfuError::NoSession)
        }

        fn receive(&mut self, _now: Instant, _datagram: Datagram<'_>) {
            self.record.lock().unwrap().push('.');
        }

        fn deadline(&self) -> Option<Instant> {
            None
        }

        fn advance(&mut self, _now: Instant) {}

        fn transmit(&mut self) -> Option<Transmit> {
            None
        }

        fn counters(&self) -> &Counters {
            &self.counters
        }
    }

    const QUESTIONS: usize = 20;

    #[tokio::test]
    async fn requests_and_datagrams_alternate() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), Transport::Udp).unwrap();
        let address = bound.address;
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let batch = quinn_udp::BATCH_SIZE;
        for _ in 0..10 * batch {
            peer.send_to(b"media", address).unwrap();
        }
        let (sender, commands) = mpsc::channel(64);
        let mut answers = Vec::new();
        for number in 0..2 * QUESTIONS {
            let (reply, answer) = oneshot::channel();
            sender.try_send(SfuCommand { request: Request::Report, reply }).unwrap();
            // Every other caller gave up.
            if number % 2 == 0 {
                answers.push(answer);
            }
        }
        let core = Recorder::default();
        let record = core.record.clone();
        let open = move || {
            let advertised = Advertised::choose(&[], address, &[], Reach::Loopback, &[Protocol::Udp]);
            Ok(MediaSockets { udp: Udp::open(bound.udp, &[], advertised.into())?, tcp: None })
        };
        let measures = Measures::new(SfuMetrics::default());
        let thread = start(core, open, commands, measures).await.unwrap();
        for answer in answers {
            assert!(answer.await.unwrap().is_err());
        }
        let all = async {
            while record.lock().unwrap().matches('.').count() < 10 * batch {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        thread.join().await.unwrap();
        let record = record.lock().unwrap();
        let record = record.strip_suffix('!').expect("the last is the end");
        assert_eq!(record.matches('?').count(), QUESTIONS, "those who gave up are not answered: {record}");
        let datagrams = record.trim_matches('.').split('?').map(str::len).max().unwrap();
        assert!(datagrams <= 2 * batch, "{datagrams} datagrams before a question had its turn: {record}");
        let questions = record.trim_end_matches('?').split('.').map(str::len).max().unwrap();
        assert!(questions <= ROUNDS_AT_ONCE, "{questions} questions before media had their turn: {record}");
    }

    #[tokio::test]
    async fn socket_failure_is_returned_by_start() {
        let (_sender, commands) = mpsc::channel(1);
        let open = || Err(io::ErrorKind::PermissionDenied.into());
        let measures = Measures::new(SfuMetrics::default());
        let started = start(Recorder::default(), open, commands, measures).await;
        assert_eq!(started.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
