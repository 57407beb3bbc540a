//! A server that is farther away: everything passes a relay, which holds it for half of the round trip each way.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::process::Pid;

use crate::cpu;
use crate::load::schedule::Timer;

/// Read at most at once.
const READ_BYTES: usize = 64 << 10;

/// What the relay may hold in all: several times what any scenario has on its way.
const MAX_HELD: usize = 256 << 20;

const LISTENER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    waker: Waker,
    /// What the kernel calls its thread.
    thread_id: Pid,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens, on a thread on `core`, and passes connections on to `target`, `round_trip` away.
    pub fn to(target: SocketAddr, round_trip: Duration, core: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.descriptor().as_raw_fd()), TIMER, Interest::READABLE)?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let mut passing = Passing {
            poll,
            timer,
            listener,
            target,
            delay: round_trip / 2,
            next: 0,
            ends: HashMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
        };
        let until = ended.clone();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            // Nobody waits for it only if there is no relay any more.
            let _ = tell.send(rustix::thread::gettid());
            // Without a relay every contestant behind it fails, which the run then tells.
            if let Err(error) = cpu::pin_to(core).and_then(|()| passing.run(&until)) {
                eprintln!("the relay ended: {error}");
            }
        });
        let thread_id = told.recv().map_err(io::Error::other)?;
        Ok(Self { address, ended, waker, thread_id, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// CPU time it has used so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu::of_thread(self.thread_id)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Both fail only if the thread is gone already.
        let _ = self.waker.wake();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Passing {
    poll: Poll,
    timer: Timer,
    listener: TcpListener,
    target: SocketAddr,
    delay: Duration,
    /// The number of the next end of a connection; the two ends of one have an even number and the odd one after it.
    next: usize,
    ends: HashMap<usize, End>,
    /// In the order in which it is due, as everything is held equally long.
    held: VecDeque<Held>,
    held_bytes: usize,
}

struct End {
    stream: TcpStream,
    /// Due, but not taken by the socket yet.
    unsent: Vec<u8>,
    /// The other side has closed: so will this one, once all is sent.
    closing: bool,
}

struct Held {
    due: Instant,
    to: usize,
    /// None: the end of the stream.
    bytes: Option<Vec<u8>>,
}

impl Passing {
    fn run(&mut self, ended: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        while !ended.load(Ordering::SeqCst) {
            if let Some(first) = self.held.front() {
                self.timer.set(first.due.saturating_duration_since(Instant::now()))?;
            }
            match self.poll.poll(&mut events, None) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    TIMER | WAKER => {}
                    Token(number) => {
                        self.flush(number);
                        self.take(number, &mut buffer)?;
                    }
                }
            }
            self.pass_what_is_due();
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for mut stream in [client, TcpStream::connect(self.target)?] {
                stream.set_nodelay(true)?;
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(self.next), both)?;
                self.ends.insert(self.next, End { stream, unsent: Vec::new(), closing: false });
                self.next += 1;
            }
        }
    }

    /// Reads what has come and holds it for the other end.
    fn take(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(end) = self.ends.get_mut(&number) else { return Ok(()) };
        loop {
            let bytes = match end.stream.read(buffer) {
                Ok(received) if received > 0 => Some(buffer[..received].to_vec()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Ok(_) | Err(_) => None,
            };
            let is_end = bytes.is_none();
            self.held_bytes += bytes.as_ref().map_or(0, Vec::len);
            if self.held_bytes > MAX_HELD {
                return Err(io::Error::other("more is on its way than the relay may hold"));
            }
            self.held.push_back(Held { due: Instant::now() + self.delay, to: number ^ 1, bytes });
            if is_end {
                return Ok(());
            }
        }
    }

    fn pass_what_is_due(&mut self) {
        let now = Instant::now();
        while self.held.front().is_some_and(|held| held.due <= now) {
            let held = self.held.pop_front().expect("there is one");
            self.held_bytes -= held.bytes.as_ref().map_or(0, Vec::len);
            let Some(end) = self.ends.get_mut(&held.to) else { continue };
            match held.bytes {
                Some(bytes) => end.unsent.extend_from_slice(&bytes),
                None => end.closing = true,
            }
            self.flush(held.to);
        }
    }

    fn flush(&mut self, number: usize) {
        let Some(end) = self.ends.get_mut(&number) else { return };
        let mut sent = 0;
        let mut failed = false;
        while sent < end.unsent.len() {
            match end.stream.write(&end.unsent[sent..]) {
                Ok(more) => sent += more,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        end.unsent.drain(..sent);
        if failed || (end.closing && end.unsent.is_empty()) {
            // Its reader finds the end of the stream, which closes the other way too.
            let _ = end.stream.shutdown(Shutdown::Both);
            self.ends.remove(&number);
            self.held.push_back(Held { due: Instant::now() + self.delay, to: number ^ 1, bytes: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_takes_the_round_trip_and_arrives_whole() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let target = listener.local_addr().expect("it is bound");
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the relay connects");
            let mut buffer = [0; 4096];
            while let Ok(received @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..received]).expect("the relay reads");
            }
        });
        let core = cpu::allowed_cores().expect("affinity can be read")[0];
        let round_trip = Duration::from_millis(20);
        let relay = Relay::to(target, round_trip, core).expect("a free port");
        let mut stream = std::net::TcpStream::connect(relay.address()).expect("it listens");
        let sent: Vec<u8> = (0..200_000u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut received = vec![0; sent.len()];
        let began = Instant::now();
        let mut writer = stream.try_clone().expect("a socket can be shared");
        let all = sent.clone();
        let writing = thread::spawn(move || writer.write_all(&all).expect("the relay reads"));
        stream.read_exact(&mut received).expect("everything comes back");
        assert!(began.elapsed() >= round_trip);
        assert!(received == sent);
        assert!(relay.cpu().expect("it runs") > Duration::ZERO);
        writing.join().expect("it was written");
        drop(stream);
        echo.join().expect("the end of the stream passes too");
    }
}
