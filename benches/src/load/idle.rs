//! Connections that were used once and are kept.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long the server may take over a question.
const TIMEOUT: Duration = Duration::from_secs(10);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// They do nothing, until they are dropped.
#[derive(Debug)]
pub struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens so many connections to `address`, each of which has been answered a PING at return.
    pub fn connect(address: SocketAddr, count: usize) -> io::Result<Self> {
        let streams = (0..count).map(|_| open(address)).collect::<io::Result<Vec<_>>>()?;
        let mut idle = Self(streams);
        idle.ping()?;
        Ok(idle)
    }

    /// Fails unless each of them is still there and is answered.
    pub fn ping(&mut self) -> io::Result<()> {
        for stream in &mut self.0 {
            stream.write_all(PING)?;
        }
        for stream in &mut self.0 {
            let mut reply = [0; PONG.len()];
            stream.read_exact(&mut reply)?;
            if reply != PONG {
                return Err(io::Error::other(format!("PING was answered {:?}", String::from_utf8_lossy(&reply))));
            }
        }
        Ok(())
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Lets this process open so many files.
pub fn raise_file_limit(wanted: usize) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    if maximum.is_some_and(|maximum| maximum < wanted) {
        return Err(io::Error::other(format!("{wanted} files are to be open, and the system allows {maximum:?}")));
    }
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    }
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // A reset at its end leaves no port waiting, of which there are fewer than a few rounds need.
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(stream)
}
