//! Listening sockets: opened from the settings, accepted from by the acceptor.

use std::fs::{self, Metadata};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use socket2::{Domain, Protocol, SockAddr, Type};

use super::socket::Stream;
use crate::config::{ConfigError, Listen, ListenAddress};

/// Connections that the kernel holds for the acceptor: enough for all clients of a host to reconnect at once.
const BACKLOG: i32 = 1024;

/// A listening socket in non-blocking mode. Prints as the address it has, with the port that 0 came to.
#[derive(Debug)]
pub(crate) enum Listener {
    /// IPv4 or IPv6, never both.
    Tcp(TcpListener),
    /// A Unix socket, whose file goes with it.
    Unix(UnixListener, SocketFile),
}

/// A socket's file, removed on drop.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that somebody else has put there since then stays.
    identity: (u64, u64),
}

/// Opens an address of the settings: one socket, or one for each IP address it stands for. The error is for the user.
pub(crate) fn open(listen: &Listen) -> Result<Vec<Listener>, ConfigError> {
    let opened = match &listen.address {
        ListenAddress::Everywhere { port } => {
            open_each(&[(Ipv4Addr::UNSPECIFIED, *port).into(), (Ipv6Addr::UNSPECIFIED, *port).into()])
        }
        ListenAddress::Ip(address) => open_tcp(*address).map(|listener| vec![listener]),
        ListenAddress::Name { host, port } => look_up(host, *port).and_then(|addresses| open_each(&addresses)),
        ListenAddress::Unix(path) => open_unix(path).map(|listener| vec![listener]),
    };
    opened.map_err(|error| ConfigError::Listen {
        origin: listen.origin.clone(),
        address: listen.address.to_string(),
        reason: reason(&error),
    })
}

/// One socket for each address that this machine has: a host name or `*` may stand for IPv6 addresses where IPv6 is
/// switched off. Port 0 comes to the same port for all.
fn open_each(addresses: &[SocketAddr]) -> io::Result<Vec<Listener>> {
    let mut opened = Vec::new();
    let mut port = None;
    let mut unavailable = io::ErrorKind::NotFound.into();
    for address in addresses {
        let mut address = *address;
        address.set_port(port.unwrap_or(address.port()));
        match open_tcp(address) {
            Ok(listener) => {
                if let Listener::Tcp(listener) = &listener {
                    port = Some(listener.local_addr()?.port());
                }
                opened.push(listener);
            }
            Err(error) if is_unavailable(&error) => unavailable = error,
            Err(error) => return Err(error),
        }
    }
    if opened.is_empty() { Err(unavailable) } else { Ok(opened) }
}

/// Whether the machine has no such address, or none of its family.
fn is_unavailable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn open_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for the connections of the process before to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` is two listeners.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Tcp(socket.into()))
}

fn open_unix(path: &Path) -> io::Result<Listener> {
    remove_if_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(&fs::symlink_metadata(path)?) };
    socket.listen(BACKLOG)?;
    Ok(Listener::Unix(socket.into(), file))
}

/// Removes the socket file of a process that is gone. Anything else in that place stays, for bind to fail on.
fn remove_if_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && is_deserted(path)? { fs::remove_file(path) } else { Ok(()) }
}

/// Whether no process listens on a socket file. Does not wait for one that is too busy to accept.
fn is_deserted(path: &Path) -> io::Result<bool> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let answer = socket.connect(&SockAddr::unix(path)?);
    Ok(answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The system's error, in the words of the setting.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted".to_owned(),
        _ => error.to_string(),
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map_err(|_| fmt::Error)?.fmt(f),
            Listener::Unix(_, file) => write!(f, "unix://{}", file.path.display()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity) {
            // Nobody is left to tell; the next process finds the file stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listener registered with the event loop of the thread that accepts.
#[derive(Debug)]
pub(crate) enum Acceptor {
    /// See [`Listener::Tcp`].
    Tcp(tokio::net::TcpListener),
    /// See [`Listener::Unix`].
    Unix { listener: tokio::net::UnixListener, _file: SocketFile },
}

impl Acceptor {
    /// Registers a listener with the runtime of this thread.
    pub(crate) fn new(listener: Listener) -> io::Result<Acceptor> {
        Ok(match listener {
            Listener::Tcp(listener) => Acceptor::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener, file) => {
                Acceptor::Unix { listener: tokio::net::UnixListener::from_std(listener)?, _file: file }
            }
        })
    }

    /// The next connection, in non-blocking mode and free to be registered with another thread's event loop. An error
    /// is the machine's (out of files, out of memory): the connections that wait stay waiting, and the caller may ask
    /// again after a moment.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        loop {
            match self.accept_one().await {
                // The client gave up before its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                other => return other,
            }
        }
    }

    async fn accept_one(&self) -> io::Result<Stream> {
        match self {
            Acceptor::Tcp(listener) => Ok(Stream::Tcp(listener.accept().await?.0.into_std()?)),
            Acceptor::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use tempfile::TempDir;

    use super::*;
    use crate::config::Origin;

    fn listen(address: ListenAddress) -> Listen {
        Listen { address, origin: Origin::CommandLine("--listen".to_owned()) }
    }

    fn open_ip(address: &str) -> Result<Vec<Listener>, ConfigError> {
        open(&listen(ListenAddress::Ip(address.parse().unwrap())))
    }

    fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
        listeners.iter().map(|listener| listener.to_string().parse().unwrap()).collect()
    }

    fn socket_in(directory: &TempDir) -> (PathBuf, Listen) {
        let path = directory.path().join("socket");
        (path.clone(), listen(ListenAddress::Unix(path)))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap()
    }

    /// Accepts one connection and says a word to it.
    fn greet(listener: Listener) -> Acceptor {
        runtime().block_on(async {
            let acceptor = Acceptor::new(listener).unwrap();
            match acceptor.accept().await.unwrap() {
                Stream::Tcp(mut stream) => stream.write_all(b"hello").unwrap(),
                Stream::Unix(mut stream) => stream.write_all(b"hello").unwrap(),
            }
            acceptor
        })
    }

    fn word(mut stream: impl Read) -> String {
        let mut word = String::new();
        stream.read_to_string(&mut word).unwrap();
        word
    }

    /// Containers often have none.
    fn has_ipv6() -> bool {
        TcpListener::bind("[::1]:0").is_ok()
    }

    #[test]
    fn clients_connect_by_ipv4_and_by_ipv6() {
        for any_port in ["127.0.0.1:0", "[::1]:0"].into_iter().take(if has_ipv6() { 2 } else { 1 }) {
            let mut listeners = open_ip(any_port).unwrap();
            let stream = TcpStream::connect(addresses(&listeners)[0]).unwrap();
            greet(listeners.remove(0));
            assert_eq!(word(stream), "hello");
        }
    }

    #[test]
    fn every_interface_means_ipv4_and_ipv6_on_the_same_port() {
        let listeners = open(&listen(ListenAddress::Everywhere { port: 0 })).unwrap();
        let port = addresses(&listeners)[0].port();
        assert_ne!(port, 0);
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if has_ipv6() {
            assert_eq!(listeners.len(), 2);
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn an_address_that_the_machine_lacks_is_left_out_as_long_as_another_opens() {
        let missing: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let present: SocketAddr = "127.0.0.1:0".parse().unwrap();
        assert_eq!(open_each(&[missing, present]).unwrap().len(), 1);
        assert_eq!(open_each(&[missing]).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn a_host_name_is_opened_at_its_addresses() {
        let name = |host: &str| listen(ListenAddress::Name { host: host.to_owned(), port: 0 });
        let listeners = open(&name("localhost")).unwrap();
        assert!(addresses(&listeners).iter().all(|address| address.ip().is_loopback()), "{listeners:?}");
        let error = open(&name("nobody.invalid")).unwrap_err().to_string();
        assert!(error.starts_with("--listen on the command line: cannot listen on nobody.invalid:0: "), "{error}");
    }

    #[test]
    fn an_address_in_use_or_unknown_is_told_in_one_line_with_its_setting() {
        let listeners = open_ip("127.0.0.1:0").unwrap();
        let taken = listeners[0].to_string();
        assert_eq!(
            open_ip(&taken).unwrap_err().to_string(),
            format!("--listen on the command line: cannot listen on {taken}: already in use")
        );
        assert_eq!(
            open_ip("192.0.2.1:6380").unwrap_err().to_string(),
            "--listen on the command line: cannot listen on 192.0.2.1:6380: this machine has no such address"
        );
    }

    #[test]
    fn a_port_is_free_again_at_once_although_its_connections_linger() {
        let mut listeners = open_ip("127.0.0.1:0").unwrap();
        let address = listeners[0].to_string();
        let client = TcpStream::connect(&address).unwrap();
        // The server closes first: its end stays in TIME_WAIT.
        drop(greet(listeners.remove(0)));
        assert_eq!(word(client), "hello");
        assert!(open_ip(&address).is_ok());
    }

    #[test]
    fn clients_connect_by_a_unix_socket_whose_file_goes_with_the_listener() {
        let directory = TempDir::new().unwrap();
        let (path, address) = socket_in(&directory);
        let mut listeners = open(&address).unwrap();
        assert_eq!(listeners[0].to_string(), format!("unix://{}", path.display()));
        let stream = UnixStream::connect(&path).unwrap();
        let acceptor = greet(listeners.remove(0));
        assert_eq!(word(stream), "hello");
        assert!(path.exists());
        drop(acceptor);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_file_that_nobody_answers_is_replaced_and_a_live_one_is_in_use() {
        let directory = TempDir::new().unwrap();
        let (path, address) = socket_in(&directory);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the file of a process that is gone");
        let live = open(&address).unwrap();
        let error = open(&address).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("--listen on the command line: cannot listen on unix://{}: already in use", path.display())
        );
        UnixStream::connect(&path).expect("the live one is unharmed");
        drop(live);
    }

    #[test]
    fn a_live_socket_too_busy_to_accept_is_in_use_at_once() {
        let directory = TempDir::new().unwrap();
        let (path, address) = socket_in(&directory);
        let busy = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(open(&address).unwrap_err().to_string().ends_with("already in use"));
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = TempDir::new().unwrap();
        let (path, address) = socket_in(&directory);
        fs::write(&path, "precious").unwrap();
        assert!(open(&address).unwrap_err().to_string().ends_with("already in use"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_file_that_another_process_has_put_in_its_place_is_left_alone() {
        let directory = TempDir::new().unwrap();
        let (path, address) = socket_in(&directory);
        let first = open(&address).unwrap();
        // Renamed rather than removed, so that the second file cannot get the inode of the first.
        fs::rename(&path, directory.path().join("moved")).unwrap();
        let second = open(&address).unwrap();
        drop(first);
        UnixStream::connect(&path).expect("the second is still there");
        drop(second);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_told() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let error = open(&listen(ListenAddress::Unix(path))).unwrap_err().to_string();
        assert!(error.contains("SUN_LEN") && !error.contains('\n'), "{error}");
    }
}
