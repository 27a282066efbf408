//! TCP connections of peers whose network blocks UDP: ICE-TCP (RFC 6544), with this server as the passive side.
//!
//! Each connection is a task. Received frames wait in one bounded queue for the media thread, so a peer that sends too
//! fast is read more slowly. Frames to a peer wait in two bounded queues of its connection, video behind all others. A
//! frame is dropped if its queue is full or if it waits too long: the media thread never waits, and a slow connection
//! gets fewer video frames instead of late ones.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use str0m::net::Protocol;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::warn;

use super::Undelivered;
use super::addresses::{Advertised, canonical};
use super::framing::{self, End};
use crate::engine::{Datagram, Transmit};
use crate::metrics::{OpenConnection, SfuMetrics};
use crate::network::{ClientNetwork, client_network};
use crate::settings::TcpLimits;

/// Received frames, of all connections, that may wait for the media thread.
const FRAMES_IN: usize = 256;

/// Frames that may wait in each queue of a connection: a keyframe, and the frames that follow meanwhile.
const FRAMES_OUT: usize = 256;

/// System's send buffer of a connection, in bytes; most of them are in flight.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// Unsent bytes in the send buffer of a connection. More would be late media that delays audio.
const UNSENT_BYTES: u32 = 8 << 10;

/// Pause after an error that would recur at once, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A received frame.
#[derive(Debug, PartialEq, Eq)]
pub struct ReceivedFrame {
    source: SocketAddr,
    destination: SocketAddr,
    contents: Vec<u8>,
}

impl ReceivedFrame {
    /// The frame as a datagram for the engine.
    pub fn datagram(&self) -> Datagram<'_> {
        Datagram {
            proto: Protocol::Tcp,
            source: self.source,
            destination: self.destination,
            contents: &self.contents,
        }
    }
}

/// The listener and its connections.
pub struct Tcp {
    listener: TcpListener,
    advertised: Arc<Advertised>,
    limits: TcpLimits,
    metrics: SfuMetrics,
    /// Connections by the peer's address.
    connections: HashMap<SocketAddr, MediaConnection>,
    tasks: JoinSet<End>,
    ends: HashMap<Id, SocketAddr>,
    sender: mpsc::Sender<ReceivedFrame>,
    frames: mpsc::Receiver<ReceivedFrame>,
    /// End of a pause in accepting.
    paused: Option<Instant>,
}

/// The media thread's side of a connection.
struct MediaConnection {
    outgoing: framing::FrameSender,
    network: ClientNetwork,
    _counted: OpenConnection,
}

impl Tcp {
    /// Registers a listener with the current runtime, in whose context this must be called.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn open(
        listener: std::net::TcpListener,
        advertised: Arc<Advertised>,
        limits: TcpLimits,
        metrics: SfuMetrics,
    ) -> io::Result<Self> {
        let (sender, frames) = mpsc::channel(FRAMES_IN);
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            advertised,
            limits,
            metrics,
            connections: HashMap::new(),
            tasks: JoinSet::new(),
            ends: HashMap::new(),
            sender,
            frames,
            paused: None,
        })
    }

    /// Waits for a frame, and accepts connections meanwhile. Cancel safe.
    pub async fn next(&mut self) -> ReceivedFrame {
        loop {
            tokio::select! {
                Some(frame) = self.frames.recv() => return frame,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = until(self.paused), if self.paused.is_some() => self.paused = None,
                accepted = self.listener.accept(), if self.paused.is_none() => match accepted {
                    Ok((stream, source)) => self.accept(stream, canonical(source)),
                    Err(error) => self.accept_failed(&error),
                },
            }
        }
    }

    /// The next frame that is already queued.
    pub fn try_next(&mut self) -> Option<ReceivedFrame> {
        self.frames.try_recv().ok()
    }

    /// Queues a frame for its connection, or drops it.
    ///
    /// # Errors
    /// The reason that it was dropped.
    pub fn send(&self, transmit: Transmit) -> Result<(), Undelivered> {
        if u16::try_from(transmit.contents.len()).is_err() {
            return Err(Undelivered::TooLong);
        }
        let connection = self.connections.get(&transmit.destination).ok_or(Undelivered::Gone)?;
        connection.outgoing.send(transmit.is_video, transmit.contents)
    }

    /// Closes all connections, each after its peer has read all frames, or after [`TcpLimits::closing`].
    pub async fn close(mut self) {
        // A connection closes when the sender of its queues is dropped.
        self.connections.clear();
        self.frames.close();
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
        }
    }

    fn accept(&mut self, stream: TcpStream, source: SocketAddr) {
        if let Err(end) = self.admit(stream, source) {
            self.count(end);
        }
    }

    fn admit(&mut self, stream: TcpStream, source: SocketAddr) -> Result<(), End> {
        let network = client_network(source.ip());
        if self.connections.len() >= self.limits.connections {
            return Err(End::TooMany);
        }
        let of_network = self.connections.values().filter(|connection| connection.network == network);
        if of_network.count() >= self.limits.per_network || self.connections.contains_key(&source) {
            return Err(End::TooManyOfAddress);
        }
        let local = stream.local_addr().map_err(|_| End::Failed)?;
        let destination = self.advertised.meant_by(canonical(local));
        // Failures only make the connection slower.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        let (outgoing, waiting) = framing::FrameSender::new(FRAMES_OUT);
        let (frames, limits) = (self.sender.clone(), self.limits);
        let arrived = move |contents| {
            let frames = frames.clone();
            // Fails only when the media thread ends, and this task ends with it.
            async move { drop(frames.send(ReceivedFrame { source, destination, contents }).await) }
        };
        let metrics = self.metrics.clone();
        let late = move || SfuMetrics::count(&metrics.undelivered, Undelivered::Late.label());
        let task = self.tasks.spawn(framing::serve(stream, arrived, waiting, late, limits));
        self.ends.insert(task.id(), source);
        let counted = OpenConnection::new(&self.metrics.tcp_connections);
        self.connections.insert(source, MediaConnection { outgoing, network, _counted: counted });
        Ok(())
    }

    fn ended(&mut self, ended: Result<(Id, End), JoinError>) {
        let (id, end) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), End::Failed),
        };
        if let Some(source) = self.ends.remove(&id) {
            self.connections.remove(&source);
        }
        self.count(end);
    }

    #[expect(clippy::disallowed_methods, reason = "a shell: it waits for the system")]
    fn accept_failed(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return self.count(End::Failed);
        }
        warn!(event = "sfuAcceptFailed", %error, "accepting media connections pauses");
        self.metrics.accept_failed();
        self.paused = Some(Instant::now() + PAUSE);
    }

    fn count(&self, end: End) {
        SfuMetrics::count(&self.metrics.tcp_ends, end.label());
    }
}

async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::framing::tests::{CHECK, framed};
    use super::*;
    use crate::metrics::Reason;
    use crate::net::addresses::Reach;

    const MAX_WAIT: Duration = Duration::from_secs(20);

    fn open(limits: TcpLimits) -> (Tcp, SocketAddr, SfuMetrics) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let advertised = Advertised::choose(&[], address, &[], Reach::Loopback, &[Protocol::Tcp]);
        let metrics = SfuMetrics::default();
        (Tcp::open(listener, advertised.into(), limits, metrics.clone()).unwrap(), address, metrics)
    }

    async fn next(tcp: &mut Tcp) -> ReceivedFrame {
        tokio::time::timeout(MAX_WAIT, tcp.next()).await.unwrap()
    }

    /// Accepts and ends connections until `is_done`.
    async fn run(tcp: &mut Tcp, is_done: impl Fn() -> bool) {
        let done = async {
            while !is_done() {
                tokio::task::yield_now().await;
            }
        };
        let ran = async {
            tokio::select! {
                () = done => {}
                frame = tcp.next() => panic!("{frame:?}"),
            }
        };
        tokio::time::timeout(MAX_WAIT, ran).await.unwrap();
    }

    /// A connected peer, and the frame received from it.
    async fn connect(tcp: &mut Tcp, address: SocketAddr) -> (TcpStream, ReceivedFrame) {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(&framed(&CHECK)).await.unwrap();
        let frame = next(tcp).await;
        (peer, frame)
    }

    fn answer(frame: &ReceivedFrame, contents: &[u8]) -> Transmit {
        Transmit {
            proto: Protocol::Tcp,
            source: frame.destination,
            destination: frame.source,
            is_video: false,
            contents: contents.to_vec(),
        }
    }

    fn ends(metrics: &SfuMetrics, end: End) -> u64 {
        metrics.tcp_ends.get_or_create(&Reason { reason: end.label() }).get()
    }

    #[tokio::test]
    async fn peers_are_answered_on_their_own_connections() {
        let (mut tcp, address, metrics) = open(TcpLimits::default());
        let (mut first, first_frame) = connect(&mut tcp, address).await;
        let (mut second, second_frame) = connect(&mut tcp, address).await;
        let datagram = first_frame.datagram();
        assert_eq!(datagram.source, first.local_addr().unwrap());
        assert_eq!((datagram.destination, datagram.contents), (address, &CHECK[..]));
        tcp.send(answer(&second_frame, b"two")).unwrap();
        tcp.send(answer(&first_frame, b"one")).unwrap();
        for (peer, wire) in [(&mut first, b"\0\x03one"), (&mut second, b"\0\x03two")] {
            let mut got = [0; 5];
            peer.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, wire);
        }
        assert_eq!(metrics.tcp_connections.get(), 2);
        drop((first, second));
        run(&mut tcp, || metrics.tcp_connections.get() == 0).await;
        assert_eq!(tcp.send(answer(&first_frame, b"late")), Err(Undelivered::Gone));
        assert_eq!(tcp.ends.len(), 0);
    }

    #[tokio::test]
    async fn frames_to_slow_peer_are_dropped() {
        let (mut tcp, address, _metrics) = open(TcpLimits::default());
        let (_peer, frame) = connect(&mut tcp, address).await;
        // No await here, so the connection's task takes no frame from its queues.
        for _ in 0..FRAMES_OUT {
            tcp.send(answer(&frame, b"media")).unwrap();
        }
        assert_eq!(tcp.send(answer(&frame, b"media")), Err(Undelivered::Full));
        assert_eq!(tcp.send(answer(&frame, &[0; 1 << 16])), Err(Undelivered::TooLong));
    }

    #[tokio::test]
    async fn connection_limits_are_enforced() {
        for (limits, end) in [
            (TcpLimits { connections: 1, ..TcpLimits::default() }, End::TooMany),
            (TcpLimits { per_network: 1, ..TcpLimits::default() }, End::TooManyOfAddress),
        ] {
            let (mut tcp, address, metrics) = open(limits);
            let (first, _) = connect(&mut tcp, address).await;
            let mut second = TcpStream::connect(address).await.unwrap();
            run(&mut tcp, || ends(&metrics, end) == 1).await;
            assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "it was closed");
            drop(first);
            run(&mut tcp, || metrics.tcp_connections.get() == 0).await;
            connect(&mut tcp, address).await;
        }
    }

    #[tokio::test]
    async fn http_request_to_media_port_is_closed() {
        let (mut tcp, address, metrics) = open(TcpLimits::default());
        let mut browser = TcpStream::connect(address).await.unwrap();
        browser.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        run(&mut tcp, || ends(&metrics, End::BadFrame) == 1).await;
        assert_eq!(metrics.tcp_connections.get(), 0);
    }
}
