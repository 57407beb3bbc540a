//! Addresses to listen on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Origin;

/// An address to listen on, and the setting to blame when that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// Where.
    pub(crate) address: ListenAddress,
    /// Says which setting this address was given by.
    pub(crate) origin: Origin,
}

/// Where to accept connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// Every interface, IPv4 and (where the machine has it) IPv6.
    Everywhere {
        /// 0: any free one.
        port: u16,
    },
    /// One IP address; port 0: any free one.
    Ip(SocketAddr),
    /// All addresses that this host name has when the listener is opened.
    Name {
        /// Not an IP address.
        host: String,
        /// 0: any free one.
        port: u16,
    },
    /// A Unix socket file.
    Unix(PathBuf),
}

impl ListenAddress {
    /// `127.0.0.1:6380`, `[::1]:6380`, `localhost:6380`, `*:6380` or `:6380`, `unix:///path` or `/path`.
    pub(super) fn parse(text: &str) -> Option<ListenAddress> {
        if let Some(path) = unix_path(text) {
            return (path.len() > 1).then(|| ListenAddress::Unix(path.into()));
        }
        if let Ok(address) = text.parse() {
            return Some(ListenAddress::Ip(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = super::units::number(port)?.try_into().ok()?;
        match host {
            "" | "*" => Some(ListenAddress::Everywhere { port }),
            _ => is_host_name(host).then(|| ListenAddress::Name { host: host.to_owned(), port }),
        }
    }
}

/// As it can be given again.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Everywhere { port } => write!(f, "*:{port}"),
            ListenAddress::Ip(address) => address.fmt(f),
            ListenAddress::Name { host, port } => write!(f, "{host}:{port}"),
            ListenAddress::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// An absolute path, by itself or as a URL.
fn unix_path(text: &str) -> Option<&str> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    path.starts_with('/').then_some(path)
}

/// Whether a resolver could know this name. Looking it up may still fail; a stray `/`, `@` or `::` is caught here.
pub(super) fn is_host_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_of_every_kind_are_understood_and_print_as_given() {
        let name = |host: &str, port| ListenAddress::Name { host: host.into(), port };
        for (text, address) in [
            ("127.0.0.1:6380", ListenAddress::Ip(([127, 0, 0, 1], 6380).into())),
            ("0.0.0.0:0", ListenAddress::Ip(([0, 0, 0, 0], 0).into())),
            ("[::1]:6380", ListenAddress::Ip("[::1]:6380".parse().unwrap())),
            ("localhost:6380", name("localhost", 6380)),
            ("my_host-1.example:1", name("my_host-1.example", 1)),
            ("*:6380", ListenAddress::Everywhere { port: 6380 }),
            ("unix:///run/nearside.sock", ListenAddress::Unix("/run/nearside.sock".into())),
        ] {
            assert_eq!(ListenAddress::parse(text).as_ref(), Some(&address), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_port_alone_means_every_interface_and_a_path_needs_no_scheme() {
        assert_eq!(ListenAddress::parse(":6380"), Some(ListenAddress::Everywhere { port: 6380 }));
        assert_eq!(ListenAddress::parse("/run/x"), Some(ListenAddress::Unix("/run/x".into())));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "6380",
            "localhost",
            "localhost:",
            "localhost:x",
            "localhost:+1",
            "localhost:65536",
            "::1:6380",
            "[::1]",
            "[::x]:1",
            "redis://h:1",
            "unix://",
            "unix:///",
            "/",
            "unix://relative",
            "a b:1",
            "me@h:1",
        ] {
            assert_eq!(ListenAddress::parse(text), None, "{text}");
        }
    }
}
