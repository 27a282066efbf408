//! Binds UDP and TCP sockets to one port, for both IPv6 and IPv4, with large buffers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::info;

use super::addresses::canonical;

/// Size requested for both buffers of the UDP socket. A keyframe for a hundred subscribers is sent at once, and as many
/// bytes arrive while the machine is busy for 50 ms.
pub const BUFFER_BYTES: usize = 4 << 20;

/// Most free ports tried, if any port will do, until one is free for both UDP and TCP.
const FREE_PORTS: usize = 16;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Transports that peers may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP only.
    Udp,
    /// Also TCP, for networks that block UDP.
    UdpAndTcp,
}

/// Buffer sizes of the UDP socket, in bytes of datagrams including the system's overhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Size of the receive buffer.
    pub receive_bytes: usize,
    /// Size of the send buffer.
    pub send_bytes: usize,
}

impl Buffers {
    /// True if a buffer is smaller than requested.
    pub fn are_small(&self) -> bool {
        self.receive_bytes.min(self.send_bytes) < BUFFER_BYTES
    }
}

/// Bound sockets, not yet read from.
#[derive(Debug)]
pub struct Bound {
    /// The UDP socket.
    pub udp: UdpSocket,
    /// The TCP listener on the same port, if enabled.
    pub tcp: Option<TcpListener>,
    /// The address that they are bound to.
    pub address: SocketAddr,
    /// Buffer sizes of the UDP socket.
    pub buffers: Buffers,
}

/// Binds the sockets to `address`; port 0 selects any free port.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr, transport: Transport) -> io::Result<Bound> {
    let mut tries = if address.port() == 0 { FREE_PORTS } else { 1 };
    loop {
        tries -= 1;
        match bind_once(address, transport) {
            // The port that UDP selected is in use for TCP.
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
            // The first error is the more informative one: it concerns the requested address.
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

/// A non-blocking socket bound to `address`.
fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // On Unix, connections of the previous server process would otherwise block the port for minutes. On other systems
    // the option would let two processes share a port.
    #[cfg(unix)]
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// True if the error may mean that the system lacks IPv6; systems report that with different errors.
fn may_lack_ipv6(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Raises both buffers as far as the system allows.
fn raise(socket: &UdpSocket) -> io::Result<Buffers> {
    let socket = socket2::SockRef::from(socket);
    // Some systems raise a buffer as far as allowed, others fail and leave it unchanged.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    // Linux reports twice the size set, to include its own overhead.
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
    fn udp_and_tcp_share_a_port() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), Transport::UdpAndTcp).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert_eq!(bound.tcp.unwrap().local_addr().unwrap(), bound.address);
        assert_eq!(bound.udp.local_addr().unwrap(), bound.address);
        assert!(bound.buffers.receive_bytes > 0 && bound.buffers.send_bytes > 0);
    }

    #[test]
    fn port_in_use_is_an_error() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = bind(udp.local_addr().unwrap(), Transport::Udp).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(tcp.local_addr().unwrap(), Transport::UdpAndTcp).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn wildcard_socket_serves_both_families() {
        // IPv4 datagrams arrive whether the system has IPv6 or not.
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
