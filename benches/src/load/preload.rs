//! The state a run begins from: keys that exist at the server, replies that a cache before it already holds.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::load::tape::{encode_get, encode_hit, encode_set};

/// Asked for, and to be answered, before the replies are read. Small enough that neither side can block on a full
/// socket while the other does; one large value makes a chunk by itself.
const CHUNK_BYTES: usize = 64 << 10;

/// How long the server may stay silent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Gives keys `0..keys` of the server at `address` the values of `value_len` bytes that a [`crate::load::tape::Tape`] expects.
pub fn set_keys(address: SocketAddr, keys: u32, value_len: usize) -> io::Result<()> {
    let mut exchange = Exchange::begin(address)?;
    for number in 0..keys {
        encode_set(&mut exchange.requests, number, value_len);
        exchange.replies.extend_from_slice(b"+OK\r\n");
        exchange.flush_if_full()?;
    }
    exchange.flush()
}

/// Reads each of keys `0..keys` once, as set by [`set_keys`]: a cache at `address` has them all afterwards.
pub fn read_keys(address: SocketAddr, keys: u32, value_len: usize) -> io::Result<()> {
    let mut exchange = Exchange::begin(address)?;
    for number in 0..keys {
        encode_get(&mut exchange.requests, number);
        encode_hit(&mut exchange.replies, number, value_len);
        exchange.flush_if_full()?;
    }
    exchange.flush()
}

/// Requests to send, and the replies they must get.
struct Exchange {
    stream: TcpStream,
    requests: Vec<u8>,
    replies: Vec<u8>,
}

impl Exchange {
    fn begin(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, requests: Vec::new(), replies: Vec::new() })
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.requests.len() + self.replies.len() < CHUNK_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.requests)?;
        let mut received = vec![0; self.replies.len()];
        let mut len = 0;
        // Compared as it comes: a wrong reply may be shorter than the right one, and waiting for the rest be in vain.
        while len < received.len() {
            match self.stream.read(&mut received[len..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => len += more,
            }
            if !self.replies.starts_with(&received[..len]) {
                let text = String::from_utf8_lossy(&received[..len.min(200)]).into_owned();
                return Err(io::Error::other(format!("a wrong reply among {text:?}")));
            }
        }
        self.requests.clear();
        self.replies.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    /// A server of one connection that expects `requests` and answers `replies`.
    fn server(requests: Vec<u8>, replies: Vec<u8>) -> (SocketAddr, JoinHandle<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            let mut received = vec![0; requests.len()];
            stream.read_exact(&mut received).expect("requests come");
            stream.write_all(&replies).expect("replies are read");
            received == requests
        });
        (address, served)
    }

    #[test]
    fn every_key_is_set_once() {
        let mut requests = Vec::new();
        (0..3).for_each(|number| encode_set(&mut requests, number, 5));
        let (address, served) = server(requests, b"+OK\r\n".repeat(3));
        set_keys(address, 3, 5).expect("all were set");
        assert!(served.join().expect("the server ran"));
    }

    #[test]
    fn a_key_that_is_not_there_is_an_error() {
        let mut requests = Vec::new();
        (0..2).for_each(|number| encode_get(&mut requests, number));
        let (address, _) = server(requests, b"$5\r\n00000\r\n$-1\r\n".to_vec());
        let error = read_keys(address, 2, 5).expect_err("one is missing");
        assert!(error.to_string().contains("$-1"), "{error}");
    }
}
