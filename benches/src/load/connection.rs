//! One connection of the driver: what it has yet to send, and what it has yet to get.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt::set_socket_linger;

use crate::load::error::LoadError;
use crate::load::tape::Tape;
use crate::load::workload::Protocol;

/// How long a server may take to accept a connection and to answer its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// The replies to both end with a line that HELLO's own has not.
const GREETING: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*1\r\n$4\r\nPING\r\n";
const GREETING_ENDS: &[u8] = b"+PONG\r\n";

/// Bytes of a wrong reply, and of the right one, that an error shows.
const SHOWN_BYTES: usize = 80;

#[derive(Debug)]
pub(crate) struct Connection {
    index: usize,
    stream: TcpStream,
    /// The batch to ask for next.
    next: usize,
    /// In the tape's requests.
    unsent: Range<usize>,
    /// In the tape's replies.
    owed: Range<usize>,
    /// The batches that are on their way.
    asked: VecDeque<Asked>,
    /// Batches since it was connected.
    age: u32,
}

/// A batch on its way.
#[derive(Debug)]
struct Asked {
    /// Where its last reply ends, in the tape.
    ends: usize,
    /// When it was asked for, or should have been.
    since: Instant,
}

impl Connection {
    /// Connects to `address` while blocking, so that a refusal is told here and not in the midst of a run.
    pub(crate) fn open(address: SocketAddr, protocol: Protocol, index: usize, first: usize) -> io::Result<Self> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, GREETING_TIMEOUT)?;
        if protocol == Protocol::Resp3 {
            greet(&mut stream)?;
        }
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        // A reset at its end leaves no port waiting, of which there are fewer than many short connections need.
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        let stream = TcpStream::from_std(stream);
        Ok(Self { index, stream, next: first, unsent: 0..0, owed: 0..0, asked: VecDeque::new(), age: 0 })
    }

    /// Asks for what is so many batches further on, before it has asked for anything.
    pub(crate) fn skip(&mut self, batches: usize, tape: &Tape) {
        self.next = (self.next + batches) % tape.batches();
    }

    /// Edge-triggered, so both interests are registered once and for all.
    pub(crate) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.stream, Token(self.index), Interest::READABLE | Interest::WRITABLE)
    }

    /// Hangs up, and begins to connect again; what is asked from now on is sent once that is done.
    pub(crate) fn replace(&mut self, address: SocketAddr, registry: &Registry) -> io::Result<()> {
        self.stream = TcpStream::connect(address)?;
        self.stream.set_nodelay(true)?;
        set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        self.age = 0;
        self.register(registry)
    }

    /// How many batches are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// How many batches it has been asked for since it was connected.
    pub(crate) fn age(&self) -> u32 {
        self.age
    }

    /// Whether another batch may go now. What is on its way lies in one piece on the tape: at its end, all has to be
    /// answered before it begins anew.
    pub(crate) fn takes_more(&self, most: usize) -> bool {
        self.asked.is_empty() || (self.next != 0 && self.asked.len() < most)
    }

    /// Sends the next batch, or as much of it as the socket takes. It counts from `since`.
    pub(crate) fn ask(&mut self, tape: &Tape, since: Instant) -> Result<(), LoadError> {
        let batch = tape.batch(self.next);
        if self.asked.is_empty() {
            self.unsent = batch.requests;
            self.owed = batch.replies.clone();
        } else {
            if self.unsent.is_empty() {
                self.unsent.start = batch.requests.start;
            }
            self.unsent.end = batch.requests.end;
            self.owed.end = batch.replies.end;
        }
        self.next = (self.next + 1) % tape.batches();
        self.age += 1;
        self.asked.push_back(Asked { ends: batch.replies.end, since });
        self.send(tape)
    }

    fn send(&mut self, tape: &Tape) -> Result<(), LoadError> {
        while !self.unsent.is_empty() {
            match self.stream.write(&tape.requests()[self.unsent.clone()]) {
                Ok(sent) => self.unsent.start += sent,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Goes on with what was asked for. `answered` is told since when each batch was awaited whose last reply has come.
    pub(crate) fn progress(
        &mut self,
        event: &Event,
        tape: &Tape,
        buffer: &mut [u8],
        mut answered: impl FnMut(Instant),
    ) -> Result<(), LoadError> {
        if event.is_writable() {
            self.send(tape)?;
        }
        if !event.is_readable() {
            return Ok(());
        }
        while !self.owed.is_empty() {
            match self.stream.read(buffer) {
                Ok(0) => {
                    return Err(LoadError::Closed { connection: self.index, owed: self.owed.len() });
                }
                Ok(received) => {
                    self.check(&buffer[..received], tape)?;
                    // A short read has emptied the socket, and whatever comes after it makes an event of its own.
                    if received < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        while self.asked.front().is_some_and(|asked| asked.ends <= self.owed.start) {
            answered(self.asked.pop_front().expect("there is one").since);
        }
        Ok(())
    }

    fn check(&mut self, received: &[u8], tape: &Tape) -> Result<(), LoadError> {
        let owed = &tape.replies()[self.owed.clone()];
        if owed.starts_with(received) {
            self.owed.start += received.len();
            return Ok(());
        }
        let differs = owed.iter().zip(received).take_while(|(want, got)| want == got).count();
        // Back to the start of that line: an error reply is worth reading from its first word.
        let from = received[..differs].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Err(LoadError::WrongReply {
            connection: self.index,
            expected: shown(&owed[from..]),
            received: shown(&received[from..]),
        })
    }
}

fn greet(stream: &mut std::net::TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
    stream.write_all(GREETING)?;
    let mut reply = Vec::new();
    let mut chunk = [0; 1024];
    while !reply.ends_with(GREETING_ENDS) {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => reply.extend_from_slice(&chunk[..received]),
        }
    }
    match reply[0] {
        b'-' => Err(io::Error::other(format!("HELLO 3 was answered {:?}", shown(&reply)))),
        _ => Ok(()),
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned()
}
