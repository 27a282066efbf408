//! Host names and addresses by which browsers may reach this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use url::{Host, Url};

use crate::config::{DomainName, Http};

/// Names for a self-signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// All names and addresses, beginning with the one to show.
    pub all: Vec<String>,
    /// Names whose absence makes a new certificate. The others come and go with virtual networks, and
    /// must not force browsers to accept another certificate.
    pub needed: Vec<String>,
}

impl Names {
    /// Returns the host of `http.public_url`, or without one this machine's names and addresses.
    pub fn of(http: &Http) -> Self {
        let public = http.public_origin().and_then(|origin| host_of(origin.as_str()));
        let (mut needed, mut more) = (Vec::new(), Vec::new());
        match public {
            Some(host) => needed.push(host),
            None => {
                needed.extend(machine_name());
                needed.extend(route_address().map(|address| address.to_string()));
                more.extend(addresses());
            }
        }
        let listen = http.listen.ip().to_canonical();
        if !listen.is_unspecified() {
            needed.push(listen.to_string());
        }
        needed.extend([
            "localhost".to_owned(),
            Ipv4Addr::LOCALHOST.to_string(),
            Ipv6Addr::LOCALHOST.to_string(),
        ]);
        let mut all: Vec<String> = Vec::new();
        for name in needed.iter().chain(&more) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        needed.sort();
        needed.dedup();
        Self { all, needed }
    }
}

fn host_of(url: &str) -> Option<String> {
    match Url::parse(url).ok()?.host()? {
        Host::Domain(name) => Some(name.to_owned()),
        Host::Ipv4(address) => Some(address.to_string()),
        Host::Ipv6(address) => Some(address.to_string()),
    }
}

/// Returns the machine's host name, and its mDNS name on a LAN (RFC 6762).
fn machine_name() -> Vec<String> {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy().to_lowercase();
    if name.parse::<DomainName>().is_err() {
        return Vec::new();
    }
    if name.contains('.') { vec![name] } else { vec![format!("{name}.local"), name] }
}

/// Returns all names of this machine, including the mDNS form of its short name.
pub(in crate::http) fn machine_names() -> Vec<String> {
    let mut names = machine_name();
    let short = names.last().and_then(|name| name.split('.').next()).map(|short| format!("{short}.local"));
    names.extend(short.filter(|short| !names.contains(short)).into_iter().collect::<Vec<_>>());
    names
}

/// Returns the IPv4 source address of this machine's default route; nothing is sent to find it.
fn route_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // A documentation address (RFC 5737), so that only the route to it matters.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}

/// Returns the addresses of all networks that are up, except those written with a zone.
fn addresses() -> Vec<String> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.iter().map(if_addrs::Interface::ip).filter(|address| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    });
    let mut addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
    addresses.sort();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Optional;

    #[test]
    fn public_url_replaces_machine_names() {
        let url = |url: &str| Optional(Some(url.parse().unwrap()));
        let names = Names::of(&Http { public_url: url("https://Meet.example:8443"), ..Http::default() });
        assert_eq!(names.all, ["meet.example", "127.0.0.1", "localhost", "::1"]);
        assert_eq!(names.needed.len(), 4);
        let names = Names::of(&Http { public_url: url("https://[fd00::1]"), ..Http::default() });
        assert_eq!(names.all[0], "fd00::1");
    }

    #[test]
    fn machine_has_its_names_and_addresses() {
        let http = Http { listen: "10.9.8.7:1".parse().unwrap(), ..Http::default() };
        let names = Names::of(&http);
        for name in ["localhost", "127.0.0.1", "::1", "10.9.8.7"] {
            assert!(names.all.iter().any(|known| known == name), "{names:?} lacks {name}");
        }
        assert!(names.needed.iter().all(|name| names.all.contains(name)));
        rcgen::CertificateParams::new(names.all).unwrap();
    }
}
