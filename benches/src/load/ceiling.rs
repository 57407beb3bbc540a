//! What the driver reaches by itself: the commands a second that it asks of a responder that does nothing but answer.
//!
//! The responder has the same tape. It counts the bytes of the requests, and writes the replies that belong to them.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::cpu::{self, Cores};
use crate::load::driver::{Load, first_batch, unwatched};
use crate::load::error::LoadError;
use crate::load::outcome::Outcome;
use crate::load::tape::Tape;
use crate::load::workload::Protocol;

/// Read at most at once.
const READ_BYTES: usize = 256 << 10;

/// How long the responder waits for the first connection, or for the next word of one.
const SILENCE: Duration = Duration::from_secs(10);

const LISTENER: Token = Token(usize::MAX);

/// Runs the driver in a closed loop on this thread, which is to be on `cores.load` already, and the responder on
/// `cores.measured`.
pub fn measure(tape: &Arc<Tape>, connections: usize, cores: &Cores, duration: Duration) -> Result<Outcome, LoadError> {
    let mut responder = Responder::new(tape.clone(), connections)?;
    let address = responder.address;
    let core = cores.measured;
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            cpu::pin_to(core)?;
            responder.serve()
        });
        let outcome = drive(address, connections, tape, duration);
        // The driver's connections are closed now, and the responder ends.
        let served = serving.join().expect("the responder does not panic");
        let outcome = outcome?;
        served?;
        Ok(outcome)
    })
}

fn drive(address: SocketAddr, connections: usize, tape: &Arc<Tape>, duration: Duration) -> Result<Outcome, LoadError> {
    let mut load = Load::connect(address, connections, Protocol::Resp2, tape)?;
    // Lets buffers find their size.
    load.closed(duration / 4, &mut unwatched)?;
    load.closed(duration, &mut unwatched)
}

struct Responder {
    poll: Poll,
    listener: TcpListener,
    address: SocketAddr,
    tape: Arc<Tape>,
    expected: usize,
    clients: HashMap<usize, Client>,
}

/// Where one connection is on the tape.
struct Client {
    stream: TcpStream,
    /// The batch that comes next.
    batch: usize,
    /// Bytes that came of it.
    received: usize,
    /// Replies that the socket did not take yet.
    unsent: std::ops::Range<usize>,
}

impl Responder {
    fn new(tape: Arc<Tape>, expected: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let address = listener.local_addr()?;
        Ok(Self { poll, listener, address, tape, expected, clients: HashMap::new() })
    }

    /// Answers until every connection that was expected has come and gone.
    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        let mut accepted = 0;
        while accepted < self.expected || !self.clients.is_empty() {
            match self.poll.poll(&mut events, Some(SILENCE)) {
                Ok(()) if events.is_empty() => return Err(io::ErrorKind::TimedOut.into()),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for event in &events {
                if event.token() == LISTENER {
                    accepted += self.accept(accepted)?;
                    continue;
                }
                let Some(client) = self.clients.get_mut(&event.token().0) else { continue };
                // Whatever goes wrong, the driver has hung up or will say.
                if client.progress(&self.tape, &mut buffer).is_err() {
                    self.clients.remove(&event.token().0);
                }
            }
        }
        Ok(())
    }

    /// Connections come in the order in which the driver opens them.
    fn accept(&mut self, accepted: usize) -> io::Result<usize> {
        let mut count = 0;
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let index = accepted + count;
                    stream.set_nodelay(true)?;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    self.poll.registry().register(&mut stream, Token(index), both)?;
                    let batch = first_batch(index, self.expected, &self.tape);
                    self.clients.insert(index, Client { stream, batch, received: 0, unsent: 0..0 });
                    count += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Client {
    fn progress(&mut self, tape: &Tape, buffer: &mut [u8]) -> io::Result<()> {
        self.send(tape)?;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => {
                    self.received += received;
                    self.answer(tape)?;
                    if received < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// A closed loop has one batch on its way.
    fn answer(&mut self, tape: &Tape) -> io::Result<()> {
        let batch = tape.batch(self.batch);
        if self.received < batch.requests.len() {
            return Ok(());
        }
        self.received = 0;
        self.batch = (self.batch + 1) % tape.batches();
        self.unsent = batch.replies;
        self.send(tape)
    }

    fn send(&mut self, tape: &Tape) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&tape.replies()[self.unsent.clone()]) {
                Ok(sent) => self.unsent.start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::keys::Spread;
    use crate::load::workload::Workload;

    #[test]
    fn the_responder_answers_every_connection_what_it_asked_for() {
        let mix = "get=70,set=20,mget:3=10".parse().expect("a mix");
        let protocol = Protocol::Resp2;
        let workload = Workload { mix, keys: 100, spread: Spread::Uniform, value_len: 10, depth: 5, protocol };
        let tape = Arc::new(Tape::of_pipelines(&workload));
        let core = cpu::allowed_cores().expect("affinity can be read")[0];
        let cores = Cores { measured: core, load: core };
        let outcome = measure(&tape, 7, &cores, Duration::from_millis(40)).expect("every reply is right");
        assert!(outcome.commands > 0);
    }
}
