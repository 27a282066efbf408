//! The UDP socket shared by all sessions; datagrams are received in batches.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use str0m::net::Protocol;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Undelivered;
use super::addresses::{Advertised, canonical};
use crate::engine::{Datagram, Transmit};

/// Most bytes that the system returns in one buffer: datagrams of one sender that it coalesced.
const MAX_BYTES: usize = 1 << 16;

/// The socket, registered with a runtime.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Addresses of this machine that datagrams can be sent from, if the socket is bound to all.
    sources: Vec<IpAddr>,
    advertised: Arc<Advertised>,
}

/// Buffers for one batch of received datagrams.
pub struct ReceiveBuffers {
    memory: Box<[u8]>,
    metas: [RecvMeta; BATCH_SIZE],
    count: usize,
}

impl ReceiveBuffers {
    /// Allocates the buffers.
    pub fn new() -> Self {
        // The system provides memory only for pages that are written to.
        Self {
            memory: vec![0; BATCH_SIZE * MAX_BYTES].into(),
            metas: [RecvMeta::default(); BATCH_SIZE],
            count: 0,
        }
    }

    /// Discards the batch.
    fn clear(&mut self) {
        self.count = 0;
    }

    /// Time since 1970 at which the system received the oldest datagram; not all systems report it.
    pub fn oldest(&self) -> Option<Duration> {
        self.metas[..self.count].iter().filter_map(|meta| meta.timestamp).min()
    }

    /// Datagrams of the batch in order of arrival, with the addresses that the system reports.
    fn read(&self) -> impl Iterator<Item = (&RecvMeta, &[u8])> {
        let buffers = self.memory.chunks_exact(MAX_BYTES);
        self.metas[..self.count].iter().zip(buffers).flat_map(|(meta, buffer)| {
            let filled = &buffer[..meta.len.min(buffer.len())];
            filled.chunks(meta.stride.max(1)).map(move |contents| (meta, contents))
        })
    }
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self::new()
    }
}

impl Udp {
    /// Registers a bound socket with the current runtime, in whose context this must be called.
    ///
    /// # Errors
    /// The system refuses a socket option.
    pub fn open(
        socket: std::net::UdpSocket,
        interfaces: &[IpAddr],
        advertised: Arc<Advertised>,
    ) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let socket = UdpSocket::from_std(socket)?;
        let local = socket.local_addr()?;
        let sources = if local.ip().is_unspecified() { interfaces.to_vec() } else { Vec::new() };
        Ok(Self { socket, state, local, sources, advertised })
    }

    /// Waits until the socket may be readable.
    pub async fn readable(&self) {
        // Fails only when the runtime shuts down, which ends the caller too.
        let _ = self.socket.readable().await;
    }

    /// Receives at most one batch; it is empty if nothing arrived.
    ///
    /// # Errors
    /// Those of the system; unread datagrams stay in the socket.
    pub fn receive(&self, inbox: &mut ReceiveBuffers) -> io::Result<()> {
        inbox.clear();
        let mut count = 0;
        let result = self.socket.try_io(Interest::READABLE, || {
            let mut buffers = inbox.memory.chunks_exact_mut(MAX_BYTES);
            let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
            count = self.state.recv((&self.socket).into(), &mut buffers, &mut inbox.metas)?;
            // An incomplete batch has emptied the socket. Returning `WouldBlock` saves the call that would find it
            // empty; later datagrams wake the task again.
            if count < BATCH_SIZE { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        inbox.count = count;
        match result {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// The datagrams of a batch, in the order of arrival.
    pub fn datagrams<'a>(&'a self, inbox: &'a ReceiveBuffers) -> impl Iterator<Item = Datagram<'a>> {
        inbox.read().map(|(meta, contents)| Datagram {
            proto: Protocol::Udp,
            source: canonical(meta.addr),
            destination: self.advertised.meant_by(self.arrived_at(meta)),
            contents,
        })
    }

    /// Local address at which a datagram arrived.
    fn arrived_at(&self, meta: &RecvMeta) -> SocketAddr {
        let ip = meta.dst_ip.unwrap_or_else(|| self.local.ip()).to_canonical();
        if !ip.is_unspecified() {
            return SocketAddr::new(ip, self.local.port());
        }
        // The system did not report the address: only its family is known.
        let unspecified: IpAddr = match canonical(meta.addr) {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(unspecified, self.local.port())
    }

    /// Most datagrams that the system accepts as one buffer.
    pub fn most_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends one datagram, or several of `segment` bytes each, from the address that the peer expects. Never waits.
    ///
    /// # Errors
    /// The reason that it was not sent.
    pub fn send(&self, transmit: &Transmit, segment: Option<usize>) -> Result<(), Undelivered> {
        // Behind NAT the source is no address of this machine, and the route determines the source.
        let source = transmit.source.ip();
        let source = self.sources.contains(&source).then(|| self.in_family(source));
        let destination =
            SocketAddr::new(self.in_family(transmit.destination.ip()), transmit.destination.port());
        let transmit = quinn_udp::Transmit {
            destination,
            ecn: None,
            contents: &transmit.contents,
            segment_size: segment,
            src_ip: source,
        };
        // Sends without waiting for the runtime to report the socket as writable.
        self.state.try_send((&self.socket).into(), &transmit).map_err(|error| match error {
            error if error.kind() == io::ErrorKind::WouldBlock => Undelivered::Full,
            error if quinn_udp::is_msg_size_err(&error) => Undelivered::TooLong,
            _ => Undelivered::Refused,
        })
    }

    /// Converts the address to the socket's family.
    fn in_family(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if self.local.is_ipv6() => v4.to_ipv6_mapped().into(),
            ip => ip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addresses::{Reach, interfaces};
    use crate::net::bind::{Transport, bind};
    use crate::settings::MediaAddress;

    /// A socket on `address` that advertises `configured`.
    fn open(address: &str, configured: &[&str]) -> Udp {
        let configured: Vec<MediaAddress> = configured.iter().map(|text| text.parse().unwrap()).collect();
        let bound = bind(address.parse().unwrap(), Transport::Udp).unwrap();
        let interfaces: Vec<_> = interfaces().unwrap().iter().map(|interface| interface.ip).collect();
        let advertised =
            Advertised::choose(&configured, bound.address, &interfaces, Reach::Loopback, &[Protocol::Udp]);
        Udp::open(bound.udp, &interfaces, advertised.into()).unwrap()
    }

    /// Waits for `count` datagrams; returns the source, destination and contents of each.
    async fn receive(udp: &Udp, count: usize) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut inbox = ReceiveBuffers::new();
        let mut got = Vec::new();
        while got.len() < count {
            udp.readable().await;
            udp.receive(&mut inbox).unwrap();
            got.extend(udp.datagrams(&inbox).map(|it| (it.source, it.destination, it.contents.to_vec())));
        }
        got
    }

    fn reply(to: &(SocketAddr, SocketAddr, Vec<u8>)) -> Transmit {
        Transmit {
            proto: Protocol::Udp,
            source: to.1,
            destination: to.0,
            is_video: false,
            contents: to.2.clone(),
        }
    }

    #[tokio::test]
    async fn answers_come_from_the_address_contacted() {
        let udp = open("[::]:0", &[]);
        let port = udp.local.port();
        let own = udp.sources.iter().map(IpAddr::to_canonical);
        let own: Vec<IpAddr> =
            own.filter(|ip| ip.is_loopback() && (ip.is_ipv4() || udp.local.is_ipv6())).collect();
        assert!(!own.is_empty());
        for ip in own {
            let peer = UdpSocket::bind((ip, 0)).await.unwrap();
            peer.send_to(b"ping", (ip, port)).await.unwrap();
            let got = receive(&udp, 1).await;
            assert_eq!(got[0].0, peer.local_addr().unwrap());
            assert_eq!(got[0].1, SocketAddr::new(ip, port));
            assert_eq!(got[0].2, b"ping");
            udp.send(&reply(&got[0]), None).unwrap();
            let mut buffer = [0; 8];
            let (length, from) = peer.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from), (&b"ping"[..], SocketAddr::new(ip, port)));
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn answer_source_is_chosen_among_addresses() {
        // All of 127.0.0.0/8 belongs to this machine on Linux; by the route alone, answers would come from 127.0.0.1.
        let mut udp = open("[::]:0", &["127.0.0.2"]);
        udp.sources.push("127.0.0.2".parse().unwrap());
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let asked = SocketAddr::new("127.0.0.2".parse().unwrap(), udp.local.port());
        peer.send_to(b"ping", asked).await.unwrap();
        let got = receive(&udp, 1).await;
        assert_eq!(got[0].1, asked);
        udp.send(&reply(&got[0]), None).unwrap();
        let (_, from) = peer.recv_from(&mut [0; 8]).await.unwrap();
        assert_eq!(from, asked);
    }

    #[tokio::test]
    async fn advertised_address_is_mapped_behind_nat() {
        let udp = open("127.0.0.1:0", &["203.0.113.7:9000", "[2001:db8::7]:9000"]);
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        peer.send_to(b"ping", udp.local).await.unwrap();
        let got = receive(&udp, 1).await;
        assert_eq!(got[0].1, "203.0.113.7:9000".parse().unwrap());
        udp.send(&reply(&got[0]), None).unwrap();
        let (_, from) = peer.recv_from(&mut [0; 8]).await.unwrap();
        assert_eq!(from, udp.local);
    }

    #[tokio::test]
    async fn burst_is_received_completely_and_in_order() {
        let udp = open("127.0.0.1:0", &[]);
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // More than one batch, so a single read does not return all.
        let sent: Vec<Vec<u8>> = (1..=3 * BATCH_SIZE).map(|n| vec![n as u8; n]).collect();
        for contents in &sent {
            peer.send_to(contents, udp.local).await.unwrap();
        }
        let got: Vec<Vec<u8>> = receive(&udp, sent.len()).await.into_iter().map(|it| it.2).collect();
        assert_eq!(got, sent);
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn coalesced_datagrams_are_split() {
        let udp = open("127.0.0.1:0", &[]);
        let peer = open("127.0.0.1:0", &[]);
        let contents: Vec<u8> = (0..250).collect();
        let (source, destination) = (peer.local, udp.local);
        let together = Transmit {
            proto: Protocol::Udp,
            source,
            destination,
            is_video: false,
            contents: contents.clone(),
        };
        assert!(peer.most_segments() > 1);
        peer.send(&together, Some(100)).unwrap();
        let got: Vec<Vec<u8>> = receive(&udp, 3).await.into_iter().map(|it| it.2).collect();
        assert_eq!(got, [&contents[..100], &contents[100..200], &contents[200..]]);
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn arrival_time_is_from_the_system() {
        let udp = open("127.0.0.1:0", &[]);
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut inbox = ReceiveBuffers::new();
        assert_eq!(inbox.oldest(), None);
        peer.send_to(b"ping", udp.local).await.unwrap();
        udp.readable().await;
        udp.receive(&mut inbox).unwrap();
        assert!(inbox.oldest().unwrap() > Duration::from_secs(1_700_000_000));
        udp.receive(&mut inbox).unwrap();
        assert_eq!((inbox.oldest(), udp.datagrams(&inbox).count()), (None, 0), "an empty batch");
    }

    #[tokio::test]
    async fn send_failure_has_a_reason() {
        let udp = open("127.0.0.1:0", &[]);
        let mut transmit = Transmit {
            proto: Protocol::Udp,
            source: udp.local,
            destination: udp.local,
            is_video: false,
            contents: vec![0; 1 << 17],
        };
        assert_eq!(udp.send(&transmit, None), Err(Undelivered::TooLong));
        transmit.contents.truncate(10);
        transmit.destination = "[2001:db8::1]:9".parse().unwrap();
        assert_eq!(udp.send(&transmit, None), Err(Undelivered::Refused), "a family that it does not speak");
    }
}
