//! What the proxy shows itself as, to clients that look for the nodes of a cluster or for a Sentinel's master: one node, at
//! the address by which they reached it.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::listener::Listener;

/// The length of a node's name, as of every name that Redis gives itself: a SHA-1 in hex digits.
const NAME_LEN: usize = 40;

/// See the module. It stays what it is for the life of the process, whichever worker answers.
#[derive(Debug)]
pub(crate) struct Face {
    /// The name of the one node, and of the one Sentinel.
    pub(crate) node: String,
    /// The name of the shard that the node is all of.
    pub(crate) shard: String,
    /// For clients that did not come by TCP: the first address by which they could.
    listener: Option<SocketAddr>,
    /// What the operator has clients told instead.
    announced: Option<(String, u16)>,
}

/// Where a client reaches the one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// An IPv4 or IPv6 address; empty if it is not known: the client then stays with the host that it reached.
    pub(crate) ip: String,
    /// A name that clients are to prefer.
    pub(crate) hostname: Option<String>,
    pub(crate) port: u16,
}

impl Face {
    /// One that has never been before.
    pub(crate) fn new(announced: Option<(String, u16)>) -> Self {
        Face { node: random_name(), shard: random_name(), listener: None, announced }
    }

    /// Clients will be accepted here.
    pub(crate) fn listens_on(&mut self, listeners: &[Listener]) {
        let address = |listener: &Listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        };
        self.listener = listeners.iter().find_map(address);
    }

    /// What a client is told that came to `local_address`.
    pub(crate) fn endpoint(&self, local_address: &str) -> Endpoint {
        let reached = local_address.parse().ok().or(self.listener);
        let mut endpoint = Endpoint {
            ip: reached.map(ip).unwrap_or_default(),
            hostname: None,
            port: reached.map_or(0, |address| address.port()),
        };
        if let Some((host, port)) = &self.announced {
            endpoint.port = *port;
            match host.parse::<IpAddr>() {
                Ok(_) => endpoint.ip.clone_from(host),
                Err(_) => endpoint.hostname = Some(host.clone()),
            }
        }
        endpoint
    }
}

impl Endpoint {
    /// The name or address that a client is to connect to.
    pub(crate) fn host(&self) -> &str {
        self.hostname.as_deref().unwrap_or(&self.ip)
    }
}

/// IPv4 that came to an IPv6 socket is IPv4 to the client. `0.0.0.0` is no address to connect to: it is that of a listener, and
/// who came by a Unix socket reaches it by the loopback.
fn ip(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    }
}

/// From the standard library's own seed, which the system gives.
fn random_name() -> String {
    let mut name = String::new();
    while name.len() < NAME_LEN {
        write!(name, "{:016x}", RandomState::new().build_hasher().finish()).expect("a String takes everything");
    }
    name.truncate(NAME_LEN);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(announced: Option<(&str, u16)>, listener: Option<&str>) -> Face {
        let announced = announced.map(|(host, port)| (host.to_owned(), port));
        let listener = listener.map(|address| address.parse().expect("an address"));
        Face { listener, ..Face::new(announced) }
    }

    fn told(face: &Face, local_address: &str) -> (String, Option<String>, u16) {
        let Endpoint { ip, hostname, port } = face.endpoint(local_address);
        (ip, hostname, port)
    }

    #[test]
    fn names_are_forty_hex_digits_and_never_the_same() {
        let faces = [face(None, None), face(None, None)];
        let names: std::collections::HashSet<_> = faces.iter().flat_map(|face| [&face.node, &face.shard]).collect();
        assert_eq!(names.len(), 4);
        assert!(names.iter().all(|name| name.len() == NAME_LEN && name.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn a_client_is_told_the_address_that_it_reached() {
        let face = face(None, Some("10.0.0.9:7000"));
        for (local, ip, port) in [
            ("127.0.0.1:6380", "127.0.0.1", 6380),
            ("[::1]:6380", "::1", 6380),
            ("[::ffff:10.0.0.1]:6380", "10.0.0.1", 6380),
            ("[fe80::1%2]:6380", "fe80::1", 6380),
            ("/run/nearside:0", "10.0.0.9", 7000),
        ] {
            assert_eq!(told(&face, local), (ip.to_owned(), None, port), "{local}");
        }
    }

    #[test]
    fn who_came_by_a_unix_socket_is_told_where_it_could_have_come_by_tcp() {
        assert_eq!(told(&face(None, Some("0.0.0.0:7000")), "/s:0"), ("127.0.0.1".to_owned(), None, 7000));
        assert_eq!(told(&face(None, Some("[::]:7000")), "/s:0"), ("::1".to_owned(), None, 7000));
        assert_eq!(told(&face(None, None), "/s:0"), (String::new(), None, 0));
    }

    #[test]
    fn what_the_operator_announces_counts() {
        let by_name = face(Some(("proxy.example", 1)), None);
        assert_eq!(told(&by_name, "10.0.0.1:2"), ("10.0.0.1".to_owned(), Some("proxy.example".to_owned()), 1));
        assert_eq!(by_name.endpoint("10.0.0.1:2").host(), "proxy.example");
        let by_address = face(Some(("192.0.2.1", 1)), None);
        assert_eq!(told(&by_address, "10.0.0.1:2"), ("192.0.2.1".to_owned(), None, 1));
    }
}
