//! What else a Nearside in production has to do with: rules for keys that nobody asks for here, other databases, other users.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// As many as Nearside takes.
const RULES: usize = 1000;
/// As many as Redis has by default.
const DBS: usize = 16;
const USERS: usize = 16;
/// Keys that each of them reads, so that each has a near-cache with something in it.
const KEYS: usize = 100;
/// How long a server may stay silent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes settings with [`RULES`] rules to `path`, none of which is for the keys of a load.
pub(crate) fn write_rules(path: &Path) -> io::Result<()> {
    let mut rules = String::new();
    for number in 0..RULES {
        let _ = writeln!(rules, "[[cache.rule]]\nmatch = \"service-{number}:*:session\"\nmax-age = \"1m\"\n");
    }
    fs::write(path, rules)
}

/// Clients of Nearside at `nearside` in each database and as each of many users of the Redis at `upstream`, who have been
/// served from the near-cache and stay connected until this is dropped.
#[derive(Debug)]
pub(crate) struct Crowd {
    _clients: Vec<Client>,
}

impl Crowd {
    pub(crate) fn gather(nearside: SocketAddr, upstream: SocketAddr) -> io::Result<Self> {
        let mut admin = Client::connect(upstream)?;
        let mut clients = Vec::new();
        for user in 0..USERS {
            admin.order(&format!("ACL SETUSER user-{user} on >secret-{user} ~* +@all"))?;
            let mut client = Client::connect(nearside)?;
            client.order(&format!("AUTH user-{user} secret-{user}"))?;
            clients.push(client);
        }
        for db in 1..DBS {
            let mut client = Client::connect(nearside)?;
            client.order(&format!("SELECT {db}"))?;
            clients.push(client);
        }
        for client in &mut clients {
            for key in 0..KEYS {
                client.order(&format!("SET crowd-{key} 1"))?;
                client.order(&format!("STRLEN crowd-{key}"))?;
                client.order(&format!("STRLEN crowd-{key}"))?;
            }
        }
        Ok(Self { _clients: clients })
    }
}

#[derive(Debug)]
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// An inline command whose reply is one line, and no error.
    fn order(&mut self, line: &str) -> io::Result<()> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        let mut reply = String::new();
        self.0.read_line(&mut reply)?;
        if reply.starts_with('+') || reply.starts_with(':') {
            return Ok(());
        }
        Err(io::Error::other(format!("{line}: {reply:?}")))
    }
}
