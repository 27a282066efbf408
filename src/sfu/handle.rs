//! Starts the media server, and gives the rest of the server a handle for requests to it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use str0m::net::Protocol;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::access::SessionAccess;
use super::engine::{self, Engine};
use super::error::SfuError;
use super::id::SessionId;
use super::measures::Measures;
use super::net::addresses::{Advertised, interfaces, shown};
use super::net::bind::{Bound, Buffers, Transport, bind};
use super::net::tcp::Tcp;
use super::net::udp::Udp;
use super::reading::Reading;
use super::request::{Reply, Request, RequestResult, SfuReport};
use super::settings::SfuSettings;
use super::thread::{self, Core, MediaSockets, SfuCommand, SfuThread};
use super::wire::{self, ApiRequest};
use crate::metrics::SfuMetrics;

/// Requests that may wait for the media thread.
const QUESTIONS: usize = 1024;

/// Timeout of a request, including the time in the queue.
const ANSWER: Duration = Duration::from_secs(5);

/// Binds the sockets and starts the media thread.
///
/// The thread ends, with all sessions, when the returned [`SfuThread`] is dropped or joined.
///
/// # Errors
/// The address cannot be bound, or the system refuses a new thread.
pub async fn start(settings: SfuSettings, metrics: SfuMetrics) -> io::Result<(SfuHandle, SfuThread)> {
    let (limits, secret) = (settings.limits, settings.secret.clone());
    let session_prefix = settings.session_prefix;
    let core = |candidates| {
        Engine::new(engine::EngineSettings { limits, candidates, secret, session_prefix }, now())
    };
    start_core(core, settings, metrics).await
}

/// Starts the media thread with the [`Core`] that `core` makes from the advertised addresses.
async fn start_core<C: Core>(
    core: impl FnOnce(Vec<engine::Address>) -> C,
    settings: SfuSettings,
    metrics: SfuMetrics,
) -> io::Result<(SfuHandle, SfuThread)> {
    let Bound { udp, tcp, address, buffers } = bind(settings.listen, settings.transport)?;
    let interfaces = interfaces().unwrap_or_else(|error| {
        warn!(event = "sfuInterfacesUnknown", %error, "this system does not tell its addresses");
        Vec::new()
    });
    let protocols = match settings.transport {
        Transport::Udp => &[Protocol::Udp][..],
        Transport::UdpAndTcp => &[Protocol::Udp, Protocol::Tcp],
    };
    let mut shown = shown(&interfaces, &settings.hidden_interfaces);
    shown.extend(settings.public_address);
    let interfaces: Vec<_> = interfaces.into_iter().map(|interface| interface.ip).collect();
    let advertised = Advertised::choose(&settings.advertise, address, &shown, settings.reach, protocols);
    let advertised = Arc::new(advertised);
    let core = core(advertised.candidates());
    let handle_addresses = advertised.clone();
    let measures = Measures::new(metrics.clone());
    let open = move || {
        let udp = Udp::open(udp, &interfaces, advertised.clone())?;
        let tcp = tcp.map(|tcp| Tcp::open(tcp, advertised, settings.tcp, metrics)).transpose()?;
        Ok(MediaSockets { udp, tcp })
    };
    let (sender, commands) = mpsc::channel(QUESTIONS);
    let thread = thread::start(core, open, commands, measures).await?;
    let handle = SfuHandle {
        commands: sender,
        bound: address,
        buffers,
        advertised: handle_addresses,
        reading: Reading::default(),
    };
    Ok((handle, thread))
}

#[expect(clippy::disallowed_methods, reason = "a shell: it starts the engine's clock")]
fn now() -> Instant {
    Instant::now()
}

/// A handle for requests to the media thread.
#[derive(Clone, Debug)]
pub struct SfuHandle {
    commands: mpsc::Sender<SfuCommand>,
    bound: SocketAddr,
    buffers: Buffers,
    advertised: Arc<Advertised>,
    reading: Reading,
}

impl SfuHandle {
    /// Sends a request and waits for its outcome.
    ///
    /// # Errors
    /// Those of the engine; [`SfuError::Unavailable`] if the thread ended or does not answer in time.
    pub async fn ask(&self, request: Request) -> RequestResult {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(SfuCommand { request, reply }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => Err(SfuError::Unavailable),
        }
    }

    /// Reports on all sessions and tracks, for operators.
    ///
    /// # Errors
    /// [`SfuError::Unavailable`] if the thread ended or does not answer in time.
    pub async fn report(&self) -> Result<SfuReport, SfuError> {
        match self.ask(Request::Report).await? {
            Reply::Report(report) => Ok(*report),
            _ => Err(SfuError::Internal),
        }
    }

    /// Ends all sessions, notifies their peers, and returns the number of sessions.
    ///
    /// # Errors
    /// [`SfuError::Unavailable`] if the thread ended or does not answer in time.
    pub async fn end_all(&self) -> Result<usize, SfuError> {
        match self.ask(Request::EndAll).await? {
            Reply::Ended(sessions) => Ok(sessions),
            _ => Err(SfuError::Internal),
        }
    }

    /// Says what sessions may receive and send from now on. A session for which nothing was said may receive all
    /// tracks.
    ///
    /// # Errors
    /// [`SfuError::Unavailable`] if the thread ended or does not answer in time.
    pub async fn set_access(&self, sessions: Vec<(SessionId, SessionAccess)>) -> Result<(), SfuError> {
        self.ask(Request::SetAccess(sessions)).await.map(drop)
    }

    /// Serves a call of the media API: returns a status and a JSON body.
    pub async fn serve(&self, asked: ApiRequest) -> (StatusCode, String) {
        let target = asked.target.clone();
        // Parsing a description takes longer than any work of the media thread, so it is done outside of it.
        let outcome = match self.reading.read(asked).await {
            Ok(request) => self.ask(request).await,
            Err(error) => Err(error),
        };
        wire::answer(&target, outcome)
    }

    /// True while the media thread runs.
    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// The addresses advertised to peers.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.advertised.sockets()
    }

    /// The addresses advertised to peers, with their protocols.
    pub fn advertised(&self) -> &Advertised {
        &self.advertised
    }

    /// The address that the sockets are bound to.
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Buffer sizes of the UDP socket.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UdpSocket};

    use super::*;
    use crate::counters::Counters;
    use crate::engine::{Address, Datagram, IceSecret, Transmit};
    use crate::net::addresses::Reach;
    use crate::thread::Panicked;

    /// Echoes each datagram: at once, or after [`WAIT`] if it is [`LATER`].
    #[derive(Default)]
    struct Echo {
        counters: Counters,
        transmits: VecDeque<Transmit>,
        later: Option<(Instant, Transmit)>,
    }

    const LATER: &[u8] = b"later";

    /// Delay of the echo of [`LATER`].
    const WAIT: Duration = Duration::from_millis(30);

    impl Core for Echo {
        fn handle(&mut self, _now: Instant, request: Request) -> RequestResult {
            match request {
                Request::Report => Ok(Reply::Report(Box::default())),
                Request::Tracks { .. } => panic!("a bug"),
                _ => Err(SfuError::NoSession),
            }
        }

        fn receive(&mut self, now: Instant, datagram: Datagram<'_>) {
            self.counters.received_packets += 1;
            self.counters.sessions = 1;
            let transmit = Transmit {
                proto: datagram.proto,
                source: datagram.destination,
                destination: datagram.source,
                is_video: false,
                contents: datagram.contents.to_vec(),
            };
            if datagram.contents == LATER {
                self.later = Some((now + WAIT, transmit));
            } else {
                self.transmits.push_back(transmit);
            }
        }

        fn deadline(&self) -> Option<Instant> {
            self.later.as_ref().map(|(at, _)| *at)
        }

        fn advance(&mut self, now: Instant) {
            if let Some((_, transmit)) = self.later.take_if(|(at, _)| *at <= now) {
                self.transmits.push_back(transmit);
            }
        }

        fn transmit(&mut self) -> Option<Transmit> {
            self.transmits.pop_front()
        }

        fn counters(&self) -> &Counters {
            &self.counters
        }
    }

    fn settings(listen: &str) -> SfuSettings {
        let listen = listen.parse().unwrap();
        SfuSettings { listen, reach: Reach::Loopback, ..SfuSettings::new(IceSecret::new(b"a secret")) }
    }

    async fn start_echo(metrics: &SfuMetrics) -> (SfuHandle, SfuThread) {
        let core = |_: Vec<Address>| Echo::default();
        start_core(core, settings("127.0.0.1:0"), metrics.clone()).await.unwrap()
    }

    /// Sends a datagram, waits for its echo, and returns the socket.
    async fn echoed(handle: &SfuHandle, contents: &[u8]) -> UdpSocket {
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        peer.send_to(contents, handle.bound()).await.unwrap();
        let mut buffer = [0; 64];
        let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (contents, handle.bound()));
        peer
    }

    fn tracks() -> Request {
        Request::Tracks { session: SessionId::parse("a".repeat(32).as_str()).unwrap() }
    }

    #[tokio::test]
    async fn packets_are_echoed_and_requests_answered() {
        let metrics = SfuMetrics::default();
        let (handle, thread) = start_echo(&metrics).await;
        assert_eq!(handle.addresses(), [handle.bound()]);
        assert!(handle.buffers().receive_bytes > 0);
        echoed(&handle, b"hello").await;
        let mut peer = TcpStream::connect(handle.bound()).await.unwrap();
        let check = [0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let wire = [&[0, 20][..], &check, b"\0\x05hello"].concat();
        peer.write_all(&wire).await.unwrap();
        let mut got = vec![0; wire.len()];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(got, wire);
        assert!(matches!(handle.ask(Request::Report).await, Ok(Reply::Report(_))));
        thread.join().await.unwrap();
        assert!(!handle.is_running());
        assert!(matches!(handle.ask(Request::Report).await, Err(SfuError::Unavailable)));
        assert_eq!(metrics.received_packets.get(), 3);
        assert_eq!(metrics.sessions.get(), 0);
        assert_eq!(metrics.tcp_connections.get(), 0);
        assert!(metrics.busy_seconds.get() > 0.0);
    }

    #[tokio::test]
    async fn deadline_wakes_thread_without_a_packet() {
        let metrics = SfuMetrics::default();
        let (handle, thread) = start_echo(&metrics).await;
        let start = now();
        echoed(&handle, LATER).await;
        assert!(now() - start >= WAIT);
        thread.join().await.unwrap();
    }

    #[tokio::test]
    async fn metrics_are_published_while_running() {
        let metrics = SfuMetrics::default();
        let (handle, _thread) = start_echo(&metrics).await;
        echoed(&handle, b"hello").await;
        let published = async {
            while metrics.received_packets.get() == 0 || metrics.sessions.get() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), published).await.unwrap();
    }

    #[tokio::test]
    async fn panicked_thread_makes_handle_unavailable() {
        let metrics = SfuMetrics::default();
        let (handle, thread) = start_echo(&metrics).await;
        echoed(&handle, b"hello").await;
        assert!(matches!(handle.ask(tracks()).await, Err(SfuError::Unavailable)));
        assert!(matches!(handle.ask(Request::Report).await, Err(SfuError::Unavailable)));
        assert_eq!(thread.join().await, Err(Panicked));
        assert!(!handle.is_running());
        assert_eq!(metrics.sessions.get(), 0);
    }

    #[tokio::test]
    async fn joined_thread_frees_the_port() {
        let metrics = SfuMetrics::default();
        let core = |_: Vec<Address>| Echo::default();
        let (handle, thread) = start_echo(&metrics).await;
        let again = settings(&handle.bound().to_string());
        let error = start_core(core, again.clone(), metrics.clone()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        thread.join().await.unwrap();
        let (handle, thread) = start_core(core, again, metrics).await.unwrap();
        echoed(&handle, b"hello").await;
        thread.join().await.unwrap();
    }

    #[tokio::test]
    async fn dropped_thread_ends() {
        let metrics = SfuMetrics::default();
        let (handle, thread) = start_echo(&metrics).await;
        drop(thread);
        tokio::time::timeout(Duration::from_secs(20), handle.commands.closed()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn busy_thread_makes_request_time_out() {
        let (sender, _nobody_reads) = mpsc::channel(1);
        let bound = "127.0.0.1:1".parse().unwrap();
        let advertised = Advertised::choose(&[], bound, &[], Reach::Loopback, &[Protocol::Udp]).into();
        let buffers = Buffers { receive_bytes: 0, send_bytes: 0 };
        let handle = SfuHandle { commands: sender, bound, buffers, advertised, reading: Reading::default() };
        for _ in 0..2 {
            // The second request waits for a slot in the queue. Paused time advances only while all tasks wait.
            let early = tokio::time::timeout(ANSWER - Duration::from_millis(1), handle.ask(Request::Report));
            assert!(early.await.is_err());
            assert!(matches!(handle.ask(Request::Report).await, Err(SfuError::Unavailable)));
        }
    }
}
