//! The closed loop: each connection sends a pipeline, waits until all of it is answered, and sends the next.
//!
//! Every connection lives on the calling thread, so that the driver's cost is one thread's CPU time and its ceiling can
//! be told from any run: what it did, over the CPU it took. A closed loop asks less of a slow server, so its latencies
//! leave out what a stall did to the requests that were never sent: they describe a run, not what users would see.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::cpu;
use crate::tape::Tape;

/// Silence of every connection at once for this long ends the run.
const STALL: Duration = Duration::from_secs(10);

/// Longer latencies count as this long, to the nanosecond.
const LONGEST_NS: u64 = 60_000_000_000;

/// Read at most at once: the replies to a deep pipeline of small values, with room.
const READ_BYTES: usize = 256 << 10;

/// Bytes of a wrong reply, and of the right one, that an error shows.
const SHOWN_BYTES: usize = 80;

/// Why a run ended before its time. Its figures would mean nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server hung up.
    #[error("connection {connection} was closed by the server, {owed} bytes of replies short")]
    Closed {
        /// Which connection, from 0.
        connection: usize,
        /// Reply bytes still to come.
        owed: usize,
    },
    /// No connection got a byte for [`STALL`].
    #[error("no reply on any connection for {}s", STALL.as_secs())]
    Stalled,
    /// A reply was not the one that belongs to the request.
    #[error("connection {connection} expected {expected:?} and received {received:?}")]
    WrongReply {
        /// Which connection, from 0.
        connection: usize,
        /// What should have come, from the first byte that differs.
        expected: String,
        /// What came there instead.
        received: String,
    },
}

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// Commands sent and answered.
    pub commands: u64,
    /// From the first byte sent to the last received.
    pub elapsed: Duration,
    /// CPU time of the driver.
    pub driver_cpu: Duration,
    /// Time from sending a pipeline to its last reply, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Outcome {
    /// Commands a second.
    pub fn throughput(&self) -> f64 {
        self.commands as f64 / self.elapsed.as_secs_f64()
    }

    /// Commands a second at which the driver's own core would be full.
    pub fn ceiling(&self) -> f64 {
        self.commands as f64 / self.driver_cpu.as_secs_f64()
    }

    /// The part of the run in which the driver was on a CPU, 0 to 1. Near 1, the driver was the limit.
    pub fn driver_busy(&self) -> f64 {
        self.driver_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Connections to one server, kept from run to run.
#[derive(Debug)]
pub struct ClosedLoop {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    tape: Tape,
    buffer: Box<[u8]>,
}

impl ClosedLoop {
    /// Opens `connections` connections to `address`, to ask what is on `tape`.
    pub fn connect(address: SocketAddr, connections: usize, tape: Tape) -> io::Result<Self> {
        let poll = Poll::new()?;
        let opened = (0..connections)
            .map(|index| {
                let mut connection = Connection::open(address, index, index * tape.batches() / connections)?;
                // Edge-triggered, so both interests are registered once and for all.
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut connection.stream, Token(index), both)?;
                Ok(connection)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            connections: opened,
            tape,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    /// Asks for as long as `duration`, then waits for what is still owed. All that was sent is answered at return.
    pub fn run(&mut self, duration: Duration) -> Result<Outcome, LoadError> {
        let mut latency = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds in range");
        let (began, cpu_before) = (Instant::now(), cpu::of_this_thread());
        let mut batches = 0;
        let mut asking = self.connections.len();
        for connection in &mut self.connections {
            connection.ask(&self.tape, Instant::now())?;
        }
        while asking > 0 {
            self.wait()?;
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                if !connection.progress(event, &self.tape, &mut self.buffer)? {
                    continue;
                }
                let now = Instant::now();
                latency.saturating_record(nanoseconds(now - connection.asked_at));
                batches += 1;
                if now - began < duration {
                    connection.ask(&self.tape, now)?;
                } else {
                    connection.asking = false;
                    asking -= 1;
                }
            }
        }
        Ok(Outcome {
            commands: batches * self.tape.depth() as u64,
            elapsed: began.elapsed(),
            driver_cpu: cpu::of_this_thread() - cpu_before,
            latency,
        })
    }

    fn wait(&mut self) -> Result<(), LoadError> {
        loop {
            match self.poll.poll(&mut self.events, Some(STALL)) {
                Ok(()) if self.events.is_empty() => return Err(LoadError::Stalled),
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Connection {
    index: usize,
    stream: TcpStream,
    /// The batch to ask for next.
    next: usize,
    /// A batch is on its way: some of `unsent` or `owed` is left.
    asking: bool,
    asked_at: Instant,
    /// In the tape's requests.
    unsent: Range<usize>,
    /// In the tape's replies.
    owed: Range<usize>,
}

impl Connection {
    fn open(address: SocketAddr, index: usize, first: usize) -> io::Result<Self> {
        // Connected while blocking: a refusal is told here and not in the midst of a run.
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        Ok(Self { index, stream, next: first, asking: false, asked_at: Instant::now(), unsent: 0..0, owed: 0..0 })
    }

    /// Sends the next batch, or as much of it as the socket takes.
    fn ask(&mut self, tape: &Tape, now: Instant) -> Result<(), LoadError> {
        let batch = tape.batch(self.next);
        self.next = (self.next + 1) % tape.batches();
        self.unsent = batch.requests;
        self.owed = batch.replies;
        self.asking = true;
        self.asked_at = now;
        self.send(tape)
    }

    fn send(&mut self, tape: &Tape) -> Result<(), LoadError> {
        while !self.unsent.is_empty() {
            match self.stream.write(&tape.requests()[self.unsent.clone()]) {
                Ok(sent) => self.unsent.start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Goes on with the batch that was asked for; true when its last reply has just come.
    fn progress(&mut self, event: &Event, tape: &Tape, buffer: &mut [u8]) -> Result<bool, LoadError> {
        if event.is_writable() {
            self.send(tape)?;
        }
        if !event.is_readable() || !self.asking {
            return Ok(false);
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
        Ok(self.owed.is_empty())
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

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{Mix, Workload};
    use std::net::TcpListener;
    use std::thread;

    fn misses(depth: usize) -> Tape {
        Tape::new(&Workload { mix: Mix::Miss, keys: 10, value_len: 0, depth })
    }

    /// A server of one connection that answers each command (of one line that begins with `*`) with `reply`.
    fn server(reply: &'static [u8], commands: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the driver connects");
            let mut buffer = [0; 4096];
            let mut answered = 0;
            while answered < commands {
                let received = stream.read(&mut buffer).expect("the driver writes");
                let asked = buffer[..received].iter().filter(|byte| **byte == b'*').count();
                if received == 0 {
                    return;
                }
                answered += asked;
                // In two writes, so that replies arrive in pieces.
                let replies = reply.repeat(asked);
                let (first, second) = replies.split_at(replies.len() / 2);
                stream.write_all(first).expect("the driver reads");
                stream.write_all(second).expect("the driver reads");
            }
        });
        address
    }

    #[test]
    fn every_command_is_counted_once_and_answered_before_return() {
        let address = server(b"$-1\r\n", usize::MAX);
        let mut load = ClosedLoop::connect(address, 1, misses(3)).expect("it listens");
        let outcome = load.run(Duration::from_millis(20)).expect("all is answered");
        assert!(outcome.commands > 0);
        assert_eq!(outcome.commands, outcome.latency.len() * 3);
        assert!(load.connections.iter().all(|each| each.owed.is_empty() && each.unsent.is_empty()));
        assert!(outcome.elapsed >= Duration::from_millis(20));
        // One connection has one pipeline on its way at a time: its latencies fill the run.
        let waited = outcome.latency.mean() * outcome.latency.len() as f64 / 1e9;
        let elapsed = outcome.elapsed.as_secs_f64();
        assert!((elapsed * 0.5..elapsed * 1.01).contains(&waited), "{waited} s of {elapsed} s");
        load.run(Duration::from_millis(5)).expect("a second run takes up the same connection");
    }

    #[test]
    fn an_error_reply_ends_the_run_and_is_quoted() {
        let address = server(b"-LOADING no\r\n", usize::MAX);
        let mut load = ClosedLoop::connect(address, 1, misses(1)).expect("it listens");
        let error = load.run(Duration::from_secs(5)).expect_err("the reply is wrong");
        let LoadError::WrongReply { expected, received, .. } = error else { panic!("{error}") };
        assert!("-LOADING no\r\n".starts_with(&received) && received.starts_with('-'), "{received:?}");
        assert!(expected.starts_with("$-1\r\n"), "{expected:?}");
    }

    #[test]
    fn a_wrong_reply_of_the_right_length_ends_the_run() {
        let address = server(b"+OK\r\n", usize::MAX);
        let mut load = ClosedLoop::connect(address, 1, misses(1)).expect("it listens");
        let error = load.run(Duration::from_secs(5)).expect_err("the reply is wrong");
        assert!(matches!(&error, LoadError::WrongReply { received, .. } if received.starts_with('+')), "{error}");
    }

    #[test]
    fn a_reply_too_many_ends_the_run() {
        let address = server(b"$-1\r\n$-1\r\n$-1\r\n", usize::MAX);
        let mut load = ClosedLoop::connect(address, 1, misses(1)).expect("it listens");
        assert!(matches!(load.run(Duration::from_secs(5)), Err(LoadError::WrongReply { .. })));
    }

    #[test]
    fn a_server_that_hangs_up_ends_the_run() {
        let address = server(b"$-1\r\n", 5);
        let mut load = ClosedLoop::connect(address, 1, misses(1)).expect("it listens");
        let error = load.run(Duration::from_secs(5)).expect_err("the server left");
        assert!(matches!(error, LoadError::Closed { .. } | LoadError::Io(_)), "{error}");
    }
}
