//! The upstream's URL.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::Secret;
use super::{listen, units};

/// The port of `redis://` URLs that name none.
const DEFAULT_PORT: u16 = 6379;
/// That of Sentinels.
const SENTINEL_PORT: u16 = 26379;

/// The Redis behind the proxy. Prints as its URL without the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Where it is.
    pub(crate) servers: Servers,
    /// How to log in there; `None`: not at all.
    pub(crate) credentials: Option<Credentials>,
    /// The database that sessions begin in, and that RESET returns them to.
    pub(crate) db: u16,
}

/// The servers of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    /// One.
    Standalone(UpstreamAddress),
    /// A Redis Cluster, of which these nodes can tell the others; at least one.
    Cluster(Vec<UpstreamAddress>),
    /// The primary that Sentinels name, whichever server that is at a time.
    Sentinel(Sentinels),
}

/// Who says which server is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentinels {
    /// By which they know it.
    pub(crate) name: String,
    /// At least one.
    pub(crate) addresses: Vec<UpstreamAddress>,
    /// How to log in there, which is not how to log in at the servers; `None`: not at all.
    pub(crate) credentials: Option<Credentials>,
}

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UpstreamAddress {
    /// By TCP.
    Tcp {
        /// A name, resolved at every connect, or an IP address (IPv6 without brackets).
        host: String,
        /// Never 0.
        port: u16,
    },
    /// By a Unix socket file.
    Unix(PathBuf),
}

/// What AUTH takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// `None`: Redis's `default` user.
    pub(crate) username: Option<String>,
    /// Its password.
    pub(crate) password: Secret,
}

/// What is wrong with a URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum UrlError {
    #[error("it has no scheme")]
    NoScheme,
    #[error("{0}:// is not supported yet")]
    NotSupportedYet(String),
    #[error("{0}:// is not a scheme of Redis URLs")]
    UnknownScheme(String),
    #[error("a user needs a password (and a password alone is written :PASSWORD@)")]
    NoPassword,
    #[error("sentinel-username needs a sentinel-password, which is not empty")]
    NoSentinelPassword,
    #[error("an escape is not % and two hex digits, or is not UTF-8")]
    Escape,
    #[error("the host is missing, or is no name or IP address")]
    Host,
    #[error("the port is no number from 1 to 65535")]
    Port,
    #[error("the database is no number from 0 to 65535")]
    Database,
    #[error("a cluster has no database but 0")]
    ClusterDatabase,
    #[error("the path of the socket is missing")]
    NoPath,
    #[error(
        "its only parameters may be db, with unix://, and sentinel-username and sentinel-password, with redis-sentinel://"
    )]
    Parameter,
    #[error("the name by which the Sentinels know the primary is missing")]
    NoName,
}

impl Upstream {
    /// `redis://[[user]:password@]host[:port][/db]`, `redis-cluster://[[user]:password@]host[:port][,host[:port]…]`,
    /// `redis-sentinel://[[user]:password@]host[:port][,host[:port]…]/name[/db][?sentinel-username=…&sentinel-password=…]` or
    /// `unix://[[user]:password@]/path[?db=db]`.
    pub(super) fn parse(url: &str) -> Result<Upstream, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::NoScheme)?;
        let servers = match scheme {
            "redis" => standalone,
            "redis-cluster" => cluster,
            "redis-sentinel" => sentinel,
            "unix" => unix,
            "rediss" | "rediss-cluster" | "rediss-sentinel" => {
                return Err(UrlError::NotSupportedYet(scheme.to_owned()));
            }
            _ => return Err(UrlError::UnknownScheme(scheme.to_owned())),
        };
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let credentials = user_info.map(credentials).transpose()?;
        let (servers, db) = servers(host, path, query)?;
        Ok(Upstream { servers, credentials, db })
    }

    /// The servers that were named: the one, or some nodes of a cluster. Sentinels are none.
    pub(crate) fn seeds(&self) -> &[UpstreamAddress] {
        match &self.servers {
            Servers::Standalone(address) => std::slice::from_ref(address),
            Servers::Cluster(seeds) => seeds,
            Servers::Sentinel(_) => &[],
        }
    }
}

/// `url` with everything that may be a password replaced, also where the URL is malformed.
pub(super) fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let shown = match url.rfind('@') {
        Some(at) if at >= start => format!("{}***{}", &url[..start], &url[at..]),
        _ => url.to_owned(),
    };
    // A parameter may hold another one.
    match shown.split_once('?') {
        Some((shown, _)) => format!("{shown}?***"),
        None => shown,
    }
}

fn credentials(user_info: &str) -> Result<Credentials, UrlError> {
    let (username, password) = user_info.split_once(':').ok_or(UrlError::NoPassword)?;
    if password.is_empty() {
        return Err(UrlError::NoPassword);
    }
    let username = percent_decode(username)?;
    Ok(Credentials {
        username: (!username.is_empty()).then_some(username),
        password: Secret::new(percent_decode(password)?.into_bytes()),
    })
}

fn standalone(authority: &str, path: &str, query: Option<&str>) -> Result<(Servers, u16), UrlError> {
    if query.is_some() {
        return Err(UrlError::Parameter);
    }
    let db = path.trim_start_matches('/');
    Ok((Servers::Standalone(tcp(authority, DEFAULT_PORT)?), if db.is_empty() { 0 } else { database(db)? }))
}

fn cluster(authority: &str, path: &str, query: Option<&str>) -> Result<(Servers, u16), UrlError> {
    if query.is_some() {
        return Err(UrlError::Parameter);
    }
    if !["", "/", "/0"].contains(&path) {
        return Err(UrlError::ClusterDatabase);
    }
    Ok((Servers::Cluster(several(authority, DEFAULT_PORT)?), 0))
}

fn sentinel(authority: &str, path: &str, query: Option<&str>) -> Result<(Servers, u16), UrlError> {
    let addresses = several(authority, SENTINEL_PORT)?;
    let path = path.strip_prefix('/').unwrap_or(path);
    let (name, db) = path.split_once('/').unwrap_or((path, ""));
    let name = percent_decode(name)?;
    if name.is_empty() {
        return Err(UrlError::NoName);
    }
    let db = if db.is_empty() { 0 } else { database(db)? };
    let (mut username, mut password) = (None, None);
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = parameter.split_once('=').ok_or(UrlError::Parameter)?;
        match name {
            "sentinel-username" => username = Some(percent_decode(value)?),
            "sentinel-password" => password = Some(percent_decode(value)?),
            _ => return Err(UrlError::Parameter),
        }
    }
    let credentials = match (username, password) {
        (username, Some(password)) if !password.is_empty() => {
            Some(Credentials { username, password: Secret::new(password.into_bytes()) })
        }
        (None, None) => None,
        _ => return Err(UrlError::NoSentinelPassword),
    };
    Ok((Servers::Sentinel(Sentinels { name, addresses, credentials }), db))
}

fn several(authority: &str, default_port: u16) -> Result<Vec<UpstreamAddress>, UrlError> {
    authority.split(',').map(|authority| tcp(authority, default_port)).collect()
}

fn tcp(authority: &str, default_port: u16) -> Result<UpstreamAddress, UrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
            (host, port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            if !listen::is_host_name(host) {
                return Err(UrlError::Host);
            }
            (host, port)
        }
    };
    Ok(UpstreamAddress::Tcp { host: host.to_owned(), port: port_or(port, default_port)? })
}

fn unix(host: &str, path: &str, query: Option<&str>) -> Result<(Servers, u16), UrlError> {
    if !host.is_empty() || path.len() < 2 {
        return Err(UrlError::NoPath);
    }
    let db = match query {
        None => 0,
        Some(query) => database(query.strip_prefix("db=").ok_or(UrlError::Parameter)?)?,
    };
    Ok((Servers::Standalone(UpstreamAddress::Unix(percent_decode(path)?.into())), db))
}

/// What follows the host: nothing, or `:` and a port.
fn port_or(text: &str, default: u16) -> Result<u16, UrlError> {
    if text.is_empty() {
        return Ok(default);
    }
    let port = text.strip_prefix(':').and_then(units::number).ok_or(UrlError::Port)?;
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or(UrlError::Port)
}

/// Redis counts databases in a C `int`; nobody has so many of them.
fn database(text: &str) -> Result<u16, UrlError> {
    units::number(text).and_then(|db| u16::try_from(db).ok()).ok_or(UrlError::Database)
}

/// `p%40ss` is `p@ss` (RFC 3986, section 2.1).
fn percent_decode(text: &str) -> Result<String, UrlError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>().ok_or(UrlError::Escape)?;
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (high, low) else { return Err(UrlError::Escape) };
        decoded.push(u8::try_from(high * 16 + low).expect("two hex digits make a byte"));
        rest = tail;
    }
    String::from_utf8(decoded).map_err(|_| UrlError::Escape)
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.servers, self.db) {
            (Servers::Standalone(UpstreamAddress::Unix(path)), 0) => write!(f, "unix://{}", path.display()),
            (Servers::Standalone(UpstreamAddress::Unix(path)), db) => write!(f, "unix://{}?db={db}", path.display()),
            (Servers::Standalone(address), 0) => write!(f, "redis://{address}"),
            (Servers::Standalone(address), db) => write!(f, "redis://{address}/{db}"),
            (Servers::Cluster(seeds), _) => write!(f, "redis-cluster://{}", joined(seeds)),
            (Servers::Sentinel(Sentinels { name, addresses, .. }), db) => {
                write!(f, "redis-sentinel://{}/{name}", joined(addresses))?;
                if db == 0 { Ok(()) } else { write!(f, "/{db}") }
            }
        }
    }
}

fn joined(addresses: &[UpstreamAddress]) -> String {
    addresses.iter().map(UpstreamAddress::to_string).collect::<Vec<_>>().join(",")
}

/// `host:port`, `[ipv6]:port`, or the path.
impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            UpstreamAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            UpstreamAddress::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(host: &str, port: u16) -> UpstreamAddress {
        UpstreamAddress::Tcp { host: host.into(), port }
    }

    fn tcp(host: &str, port: u16, db: u16) -> Upstream {
        Upstream { servers: Servers::Standalone(at(host, port)), credentials: None, db }
    }

    fn unix(path: &str, db: u16) -> Upstream {
        Upstream { servers: Servers::Standalone(UpstreamAddress::Unix(path.into())), credentials: None, db }
    }

    fn cluster(seeds: &[(&str, u16)]) -> Upstream {
        let seeds = seeds.iter().map(|(host, port)| at(host, *port)).collect();
        Upstream { servers: Servers::Cluster(seeds), credentials: None, db: 0 }
    }

    #[test]
    fn hosts_ports_paths_and_databases_are_understood() {
        for (url, upstream, printed) in [
            ("redis://h", tcp("h", 6379, 0), "redis://h:6379"),
            ("redis://h/", tcp("h", 6379, 0), "redis://h:6379"),
            ("redis://10.0.0.1:7000/3", tcp("10.0.0.1", 7000, 3), "redis://10.0.0.1:7000/3"),
            ("redis://[::1]", tcp("::1", 6379, 0), "redis://[::1]:6379"),
            ("redis://[fe80::1]:1/2", tcp("fe80::1", 1, 2), "redis://[fe80::1]:1/2"),
            ("unix:///run/r.sock", unix("/run/r.sock", 0), "unix:///run/r.sock"),
            ("unix:///a%20b?db=15", unix("/a b", 15), "unix:///a b?db=15"),
            ("redis-cluster://h", cluster(&[("h", 6379)]), "redis-cluster://h:6379"),
            (
                "redis-cluster://h:1,[::1],10.0.0.1:3/0",
                cluster(&[("h", 1), ("::1", 6379), ("10.0.0.1", 3)]),
                "redis-cluster://h:1,[::1]:6379,10.0.0.1:3",
            ),
        ] {
            assert_eq!(Upstream::parse(url), Ok(upstream.clone()), "{url}");
            assert_eq!(upstream.to_string(), printed);
        }
    }

    fn sentinels(name: &str, addresses: &[(&str, u16)], db: u16) -> Upstream {
        let addresses = addresses.iter().map(|(host, port)| at(host, *port)).collect();
        let servers = Servers::Sentinel(Sentinels { name: name.into(), addresses, credentials: None });
        Upstream { servers, credentials: None, db }
    }

    #[test]
    fn sentinels_are_named_with_what_they_call_the_primary() {
        for (url, upstream, printed) in [
            ("redis-sentinel://h/m", sentinels("m", &[("h", 26379)], 0), "redis-sentinel://h:26379/m"),
            (
                "redis-sentinel://h:1,[::1],i/my-%20master/3",
                sentinels("my- master", &[("h", 1), ("::1", 26379), ("i", 26379)], 3),
                "redis-sentinel://h:1,[::1]:26379,i:26379/my- master/3",
            ),
        ] {
            assert_eq!(Upstream::parse(url), Ok(upstream.clone()), "{url}");
            assert_eq!(upstream.to_string(), printed);
        }
        let url = "redis-sentinel://me:secret@h/m?sentinel-username=you&sentinel-password=p%26%3d";
        let upstream = Upstream::parse(url).unwrap();
        assert_eq!(upstream.credentials.as_ref().unwrap().username.as_deref(), Some("me"));
        let Servers::Sentinel(Sentinels { credentials: Some(login), .. }) = &upstream.servers else { panic!() };
        assert_eq!((login.username.as_deref(), login.password.expose()), (Some("you"), &b"p&="[..]));
        assert!(!format!("{upstream:?} {upstream}").contains("p&="));
        assert_eq!(without_password(url), "redis-sentinel://***@h/m?***");
    }

    #[test]
    fn credentials_are_decoded() {
        for (url, username, password) in [
            ("redis://:secret@h", None, "secret"),
            ("redis://me:secret@h:1/2", Some("me"), "secret"),
            ("redis-cluster://me:secret@h:1,i:2", Some("me"), "secret"),
            ("redis://a%3Ab:p%40s%2fs%25@h", Some("a:b"), "p@s/s%"),
            ("redis://:a:b@h", None, "a:b"),
            ("redis://:p@ss@h", None, "p@ss"),
            ("unix://me:s%C3%A9cret@/run/r.sock", Some("me"), "sécret"),
        ] {
            let credentials = Upstream::parse(url).unwrap().credentials.unwrap();
            assert_eq!(credentials.username.as_deref(), username, "{url}");
            assert_eq!(credentials.password.expose(), password.as_bytes(), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        let tls = UrlError::NotSupportedYet("rediss".into());
        assert_eq!(tls.to_string(), "rediss:// is not supported yet");
        for (url, error) in [
            ("127.0.0.1:6379", UrlError::NoScheme),
            ("", UrlError::NoScheme),
            ("rediss://h", tls),
            ("redis-cluster://h/1", UrlError::ClusterDatabase),
            ("redis-cluster://", UrlError::Host),
            ("redis-cluster://h,", UrlError::Host),
            ("redis-cluster://h,i:0", UrlError::Port),
            ("redis-cluster://h?x", UrlError::Parameter),
            ("redis-sentinel://h", UrlError::NoName),
            ("redis-sentinel:///m", UrlError::Host),
            ("redis-sentinel://h//1", UrlError::NoName),
            ("redis-sentinel://h/m/x", UrlError::Database),
            ("redis-sentinel://h/m?db=1", UrlError::Parameter),
            ("redis-sentinel://h/m?sentinel-username=me", UrlError::NoSentinelPassword),
            ("rediss-sentinel://h/m", UrlError::NotSupportedYet("rediss-sentinel".into())),
            ("http://h", UrlError::UnknownScheme("http".into())),
            ("redis://secret@h", UrlError::NoPassword),
            ("redis://me:@h", UrlError::NoPassword),
            ("redis://:a%4@h", UrlError::Escape),
            ("redis://:a%+4@h", UrlError::Escape),
            ("redis://:a%ff@h", UrlError::Escape),
            ("redis://", UrlError::Host),
            ("redis://:6379", UrlError::Host),
            ("redis://a b", UrlError::Host),
            ("redis://[::1", UrlError::Host),
            ("redis://[h]:1", UrlError::Host),
            ("redis://h:", UrlError::Port),
            ("redis://h:0", UrlError::Port),
            ("redis://h:65536", UrlError::Port),
            ("redis://[::1]6379", UrlError::Port),
            ("redis://h/x", UrlError::Database),
            ("redis://h/1/2", UrlError::Database),
            ("redis://h/65536", UrlError::Database),
            ("redis://h?db=1", UrlError::Parameter),
            ("unix://", UrlError::NoPath),
            ("unix:///", UrlError::NoPath),
            ("unix://h/path", UrlError::NoPath),
            ("unix:///path?db=", UrlError::Database),
            ("unix:///path?timeout=1", UrlError::Parameter),
        ] {
            assert_eq!(Upstream::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("redis://me:secret@h:x/1", "redis://***@h:x/1"),
            ("redis://:se@cr/et@h", "redis://***@h"),
            ("me:secret@h", "***@h"),
            ("redis://h:1", "redis://h:1"),
            ("http:x@y", "***@y"),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let upstream = Upstream::parse("redis://me:secret@h/1").unwrap();
        assert_eq!(upstream.to_string(), "redis://h:6379/1");
        assert!(!format!("{upstream:?}").contains("secret"));
    }
}
