//! Many clients at once: one file descriptor each, and no memory.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::{Client, words};
use crate::reply::Reply;
use crate::socket::Address;

/// So many clients from one source address: far fewer than there are local ports, of which other tests need some, and
/// of which those that were closed are not free at once.
const CLIENTS_OF_AN_ADDRESS: usize = 1000;

/// Connections to one server, each of which asks one thing at a time.
#[derive(Debug)]
pub struct Crowd {
    streams: Vec<TcpStream>,
}

impl Crowd {
    /// Connects so many, from addresses `127.0.0.2` and up.
    ///
    /// # Panics
    /// When one of them cannot connect, or the server listens elsewhere than on IPv4.
    #[track_caller]
    #[must_use]
    pub fn connect(address: &Address, count: usize) -> Self {
        let Address::Tcp(SocketAddr::V4(address)) = address else { panic!("{address} is no IPv4 address") };
        let connect = |number: usize| {
            open(*address, source(number)).unwrap_or_else(|error| panic!("client {number} of {count}: {error}"))
        };
        Self { streams: (0..count).map(connect).collect() }
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Nobody is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// All of them ask before anybody reads; `check` sees the reply of each.
    ///
    /// # Panics
    /// When one of them gets none.
    #[track_caller]
    pub fn ask(&mut self, request_of: impl Fn(usize) -> Vec<u8>, mut check: impl FnMut(usize, Reply)) {
        for (number, stream) in self.streams.iter_mut().enumerate() {
            stream.write_all(&request_of(number)).unwrap_or_else(|error| panic!("client {number} cannot ask: {error}"));
        }
        for (number, stream) in self.streams.iter_mut().enumerate() {
            // Only one reply is owed, so nothing that the buffer took in is lost with it.
            let reply = Reply::read(&mut BufReader::with_capacity(512, stream));
            check(number, reply.unwrap_or_else(|error| panic!("client {number} got no reply: {error}")));
        }
    }

    /// As [`Self::ask`], the same words from all, who get the same bytes.
    ///
    /// # Panics
    /// When one of them gets others.
    #[track_caller]
    pub fn call(&mut self, line: &str, expected: &str) {
        let request = words(line);
        self.ask(|_| request.clone(), |number, reply| assert_eq!(reply, *expected, "client {number}: {line}"));
    }

    /// Those from `count` on leave.
    pub fn leave(&mut self, count: usize) {
        self.streams.truncate(count);
    }
}

/// Lets this process, and those it starts from now on, open so many files, or as many as the system allows: how many
/// that is.
///
/// # Panics
/// When the limit cannot be set although it is within what the system allows.
#[must_use]
pub fn raise_file_limit(wanted: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    let most = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current.is_some_and(|current| current < most) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).expect("within what the system allows");
    }
    if most < wanted {
        eprintln!("no more than {most} files may be open, where {wanted} are wanted: raise it with `ulimit -Hn`");
    }
    usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(wanted)).expect("a limit fits")
}

fn source(number: usize) -> Ipv4Addr {
    let last = u8::try_from(2 + number / CLIENTS_OF_AN_ADDRESS).expect("fewer clients than there are addresses");
    Ipv4Addr::new(127, 0, 0, last)
}

fn open(address: SocketAddrV4, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(source, 0))?;
    connect(&socket, &address)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Client::PATIENCE))?;
    stream.set_write_timeout(Some(Client::PATIENCE))?;
    Ok(stream)
}
