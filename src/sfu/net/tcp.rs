//! Connections of peers whose network lets no UDP through: ICE over TCP, where we are passive.
//!
//! Each connection is one task. What a peer sends waits in one bounded queue for the media thread, so
//! a peer that sends too fast is read more slowly. What a peer is sent waits in two bounded queues of its
//! own, video behind all else. What finds its queue full, or waits too long, is dropped: the media thread
//! never waits, and a slow line gets few pictures rather than late ones.

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
use crate::metrics::{Counted, Metrics};
use crate::network::{ClientNetwork, client_network};
use crate::sfu::engine::{Datagram, Transmit};

/// Frames of all connections that wait for the media thread.
const FRAMES_IN: usize = 256;

/// Frames that wait for one connection: a keyframe, and what comes meanwhile.
const FRAMES_OUT: usize = 256;

/// What the system may hold for one connection, most of it on its way.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// What of it may wait to be sent. More would be late media, behind which audio waits.
const UNSENT_BYTES: u32 = 8 << 10;

/// The pause after an error that a further try would meet again, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What connections may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one client network.
    pub per_network: usize,
    /// How long a first frame may take.
    pub first: Duration,
    /// How long the media server may find no reason to answer.
    pub answered: Duration,
    /// How long a connection may be silent; a peer's checks come each few seconds.
    pub idle: Duration,
    /// How long a peer may take to read what is written to it at once.
    pub unread: Duration,
    /// Timeout of a frame that waits to be written.
    pub waiting: Duration,
    /// Timeout for a peer to close a connection that is closed here.
    pub closing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            per_network: 256,
            first: Duration::from_secs(5),
            answered: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            unread: Duration::from_secs(10),
            waiting: Duration::from_millis(400),
            closing: Duration::from_millis(500),
        }
    }
}

/// A frame that arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    source: SocketAddr,
    destination: SocketAddr,
    contents: Vec<u8>,
}

impl Frame {
    /// The frame, as the engine takes it.
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
    limits: Limits,
    metrics: Arc<Metrics>,
    /// By the other end's address.
    connections: HashMap<SocketAddr, Connection>,
    tasks: JoinSet<End>,
    ends: HashMap<Id, SocketAddr>,
    sender: mpsc::Sender<Frame>,
    frames: mpsc::Receiver<Frame>,
    /// Until when accepting pauses.
    paused: Option<Instant>,
}

/// A connection, as the media thread knows it.
struct Connection {
    outgoing: framing::Outgoing,
    network: ClientNetwork,
    _counted: Counted,
}

impl Tcp {
    /// Hands a listener to the runtime in whose context this is called.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(
        listener: std::net::TcpListener,
        advertised: Arc<Advertised>,
        limits: Limits,
        metrics: Arc<Metrics>,
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

    /// Waits for a frame; accepts connections meanwhile. May be dropped at any time.
    pub async fn next(&mut self) -> Frame {
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

    /// A frame that waits already.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.frames.try_recv().ok()
    }

    /// Leaves a frame to its connection, or drops it.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn send(&self, transmit: Transmit) -> Result<(), Undelivered> {
        if u16::try_from(transmit.contents.len()).is_err() {
            return Err(Undelivered::TooLong);
        }
        let connection = self.connections.get(&transmit.destination).ok_or(Undelivered::Gone)?;
        connection.outgoing.send(transmit.is_video, transmit.contents)
    }

    /// Closes all connections, each once its peer has read what it was sent, or after [`Limits::closing`].
    pub async fn close(mut self) {
        // The ends of their queues are the connections' word to go.
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
        // Without these the connection is only slower.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        let (outgoing, waiting) = framing::Outgoing::new(FRAMES_OUT);
        let (frames, limits) = (self.sender.clone(), self.limits);
        let arrived = move |contents| {
            let frames = frames.clone();
            // An error is the media thread's end, and with it that of this task.
            async move { drop(frames.send(Frame { source, destination, contents }).await) }
        };
        let metrics = self.metrics.clone();
        let late = move || Metrics::count(&metrics.sfu_undelivered, Undelivered::Late.label());
        let task = self.tasks.spawn(framing::serve(stream, arrived, waiting, late, limits));
        self.ends.insert(task.id(), source);
        let counted = Counted::new(&self.metrics.sfu_tcp_connections, 1);
        self.connections.insert(source, Connection { outgoing, network, _counted: counted });
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
        Metrics::count(&self.metrics.accept_errors, "resources");
        self.paused = Some(Instant::now() + PAUSE);
    }

    fn count(&self, end: End) {
        Metrics::count(&self.metrics.sfu_tcp_ends, end.label());
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
    use crate::metrics::ByReason;
    use crate::sfu::net::addresses::Reach;

    const MOST_WAIT: Duration = Duration::from_secs(20);

    fn open(limits: Limits) -> (Tcp, SocketAddr, Arc<Metrics>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let advertised = Advertised::choose(&[], address, &[], Reach::Loopback, &[Protocol::Tcp]);
        let metrics = Metrics::new();
        (Tcp::open(listener, advertised.into(), limits, metrics.clone()).unwrap(), address, metrics)
    }

    async fn next(tcp: &mut Tcp) -> Frame {
        tokio::time::timeout(MOST_WAIT, tcp.next()).await.unwrap()
    }

    /// Lets connections come and go until `is_done`.
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
        tokio::time::timeout(MOST_WAIT, ran).await.unwrap();
    }

    /// A peer that was let in, and its frame.
    async fn connect(tcp: &mut Tcp, address: SocketAddr) -> (TcpStream, Frame) {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(&framed(&CHECK)).await.unwrap();
        let frame = next(tcp).await;
        (peer, frame)
    }

    fn answer(frame: &Frame, contents: &[u8]) -> Transmit {
        Transmit {
            proto: Protocol::Tcp,
            source: frame.destination,
            destination: frame.source,
            is_video: false,
            contents: contents.to_vec(),
        }
    }

    fn ends(metrics: &Metrics, end: End) -> u64 {
        metrics.sfu_tcp_ends.get_or_create(&ByReason { reason: end.label() }).get()
    }

    #[tokio::test]
    async fn each_peer_is_answered_on_its_own_connection() {
        let (mut tcp, address, metrics) = open(Limits::default());
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
        assert_eq!(metrics.sfu_tcp_connections.get(), 2);
        drop((first, second));
        run(&mut tcp, || metrics.sfu_tcp_connections.get() == 0).await;
        assert_eq!(tcp.send(answer(&first_frame, b"late")), Err(Undelivered::Gone));
        assert_eq!(tcp.ends.len(), 0);
    }

    #[tokio::test]
    async fn what_a_slow_peer_is_sent_is_dropped_and_nobody_waits() {
        let (mut tcp, address, _metrics) = open(Limits::default());
        let (_peer, frame) = connect(&mut tcp, address).await;
        // Nothing is awaited here, so the connection's task takes none of them.
        for _ in 0..FRAMES_OUT {
            tcp.send(answer(&frame, b"media")).unwrap();
        }
        assert_eq!(tcp.send(answer(&frame, b"media")), Err(Undelivered::Full));
        assert_eq!(tcp.send(answer(&frame, &[0; 1 << 16])), Err(Undelivered::TooLong));
    }

    #[tokio::test]
    async fn there_are_only_so_many_connections() {
        for (limits, end) in [
            (Limits { connections: 1, ..Limits::default() }, End::TooMany),
            (Limits { per_network: 1, ..Limits::default() }, End::TooManyOfAddress),
        ] {
            let (mut tcp, address, metrics) = open(limits);
            let (first, _) = connect(&mut tcp, address).await;
            let mut second = TcpStream::connect(address).await.unwrap();
            run(&mut tcp, || ends(&metrics, end) == 1).await;
            assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0, "it was closed");
            drop(first);
            run(&mut tcp, || metrics.sfu_tcp_connections.get() == 0).await;
            connect(&mut tcp, address).await;
        }
    }

    #[tokio::test]
    async fn a_stranger_to_the_protocol_is_sent_away() {
        let (mut tcp, address, metrics) = open(Limits::default());
        let mut stranger = TcpStream::connect(address).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        run(&mut tcp, || ends(&metrics, End::BadFrame) == 1).await;
        assert_eq!(metrics.sfu_tcp_connections.get(), 0);
    }
}
