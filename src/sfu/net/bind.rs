//! Binds UDP and TCP to one port, for IPv6 and IPv4 at once, with large buffers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::info;

use super::addresses::canonical;

/// What both buffers of the UDP socket are raised to. A keyframe for a hundred subscribers is sent at
/// once, and a machine that is busy for 50 ms gets as much as that.
pub const BUFFER_BYTES: usize = 4 << 20;

/// How many free ports are tried, where any will do, before TCP and UDP are both free.
const FREE_PORTS: usize = 16;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Whether peers may also come by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By UDP alone.
    Udp,
    /// By TCP where UDP does not get through.
    UdpAndTcp,
}

/// What the system gives to the UDP socket, in bytes of datagrams and their book-keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// For what arrives.
    pub receive_bytes: usize,
    /// For what leaves.
    pub send_bytes: usize,
}

impl Buffers {
    /// Whether it is less than wanted.
    pub fn are_small(&self) -> bool {
        self.receive_bytes.min(self.send_bytes) < BUFFER_BYTES
    }
}

/// Sockets that are bound, but read by nobody yet.
#[derive(Debug)]
pub struct Bound {
    /// For datagrams.
    pub udp: UdpSocket,
    /// For connections, on the same port.
    pub tcp: Option<TcpListener>,
    /// The address of both.
    pub address: SocketAddr,
    /// What the system gave to the UDP socket.
    pub buffers: Buffers,
}

/// Binds the sockets to `address`; port 0 is any that is free.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: SocketAddr, transport: Transport) -> io::Result<Bound> {
    let mut tries = if address.port() == 0 { FREE_PORTS } else { 1 };
    loop {
        tries -= 1;
        match bind_once(address, transport) {
            // UDP found a port that is free, but somebody has it in TCP.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_once(address: SocketAddr, transport: Transport) -> io::Result<Bound> {
    let address = canonical(address);
    let socket = match open(address, Type::DGRAM, Protocol::UDP) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && may_lack_ipv6(&error) => {
            let address = (Ipv4Addr::UNSPECIFIED, address.port()).into();
            // The first error says more: it is of the address that was asked for.
            let socket =
                open(address, Type::DGRAM, Protocol::UDP).map_err(|_| io::Error::from(error.kind()))?;
            info!(event = "sfuWithoutIpv6", %error, "this system has no IPv6; media go by IPv4 alone");
            socket
        }
        socket => socket?,
    };
    let udp = UdpSocket::from(socket);
    let address = udp.local_addr()?;
    let buffers = raise(&udp)?;
    let tcp = match transport {
        Transport::Udp => None,
        Transport::UdpAndTcp => {
            let socket = open(address, Type::STREAM, Protocol::TCP)?;
            socket.listen(BACKLOG)?;
            Some(TcpListener::from(socket))
        }
    };
    Ok(Bound { udp, tcp, address, buffers })
}

/// A socket that does not block, bound to `address`.
fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Connections of a server before this one would hold the port for minutes. Elsewhere the option
    // means that two may have one port.
    #[cfg(unix)]
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether the error may be that of a system without IPv6: each has its own.
fn may_lack_ipv6(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Raises both buffers, as far as the system lets us.
fn raise(socket: &UdpSocket) -> io::Result<Buffers> {
    let socket = socket2::SockRef::from(socket);
    // Some systems give what they can, others refuse and leave it as it was.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    // Linux tells twice of what it was asked for, for its book-keeping.
    let told = if cfg!(any(target_os = "linux", target_os = "android")) { 2 } else { 1 };
    let buffers = Buffers {
        receive_bytes: socket.recv_buffer_size()? / told,
        send_bytes: socket.send_buffer_size()? / told,
    };
    Ok(buffers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_have_one_port() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), Transport::UdpAndTcp).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert_eq!(bound.tcp.unwrap().local_addr().unwrap(), bound.address);
        assert_eq!(bound.udp.local_addr().unwrap(), bound.address);
        assert!(bound.buffers.receive_bytes > 0 && bound.buffers.send_bytes > 0);
    }

    #[test]
    fn a_port_that_somebody_has_is_an_error() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = bind(udp.local_addr().unwrap(), Transport::Udp).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(tcp.local_addr().unwrap(), Transport::UdpAndTcp).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn all_addresses_of_both_families_are_one_socket() {
        // What a peer says by IPv4 arrives, whether the system has IPv6 or not.
        let bound = bind("[::]:0".parse().unwrap(), Transport::UdpAndTcp).unwrap();
        bound.udp.set_nonblocking(false).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"hello", ("127.0.0.1", bound.address.port())).unwrap();
        let mut buffer = [0; 8];
        let (length, from) = bound.udp.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert_eq!(canonical(from), peer.local_addr().unwrap());
    }
}
