//! A TCP relay that can hold traffic back or cut it: a partition, as a connection sees it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::socket::Address;

/// Stands between Nearside and a Redis and passes bytes on both ways, until told otherwise.
#[derive(Debug)]
pub struct Relay {
    address: Address,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Address>,
    stalled: AtomicBool,
    /// Nothing passes to or from these addresses.
    cut_off: Mutex<Vec<IpAddr>>,
    tracked_delay_ms: AtomicU64,
    proxied_delay_ms: AtomicU64,
    /// Bytes that are written at once at most; 0: as many as there are.
    piece: AtomicUsize,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// How soon a held-back connection notices that it is released: what the relay adds at most to a delay under test.
const PAUSE: Duration = Duration::from_millis(2);

/// Makes a connection a tracked one.
const TRACKING: &[u8] = b"TRACKING";
/// How the names begin that Nearside gives all its connections.
const PROXY: &[u8] = b"nearside-";

/// What a connection's requests have told of it so far.
#[derive(Debug, Default)]
struct Told {
    is_tracked: AtomicBool,
    is_proxys: AtomicBool,
}

impl Told {
    fn hear(&self, bytes: &[u8]) {
        for (is_told, word) in [(&self.is_tracked, TRACKING), (&self.is_proxys, PROXY)] {
            if bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word)) {
                is_told.store(true, Ordering::SeqCst);
            }
        }
    }
}

impl Relay {
    /// Listens on a port of its own and passes connections on to `target`.
    #[must_use]
    pub fn to(target: &Address) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            target: Mutex::new(target.clone()),
            stalled: AtomicBool::new(false),
            cut_off: Mutex::default(),
            tracked_delay_ms: AtomicU64::new(0),
            proxied_delay_ms: AtomicU64::new(0),
            piece: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Self { address: Address::local(port), shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// From now on nothing passes, either way, and nothing is closed: a partition, a machine that hangs.
    pub fn stall(&self) {
        self.shared.stalled.store(true, Ordering::SeqCst);
    }

    /// What was held back goes on.
    pub fn resume(&self) {
        self.shared.stalled.store(false, Ordering::SeqCst);
        self.shared.cut_off().clear();
    }

    /// The same as [`Self::stall`], for those alone who connect from these addresses.
    pub fn stall_from(&self, sources: impl IntoIterator<Item = IpAddr>) {
        self.shared.cut_off().extend(sources);
    }

    /// What the server sends on connections with `CLIENT TRACKING` on arrives so much later from now on; on others, as
    /// soon as ever. So replies and invalidations are overtaken by what happens elsewhere.
    pub fn delay_tracked(&self, delay: Duration) {
        self.shared.tracked_delay_ms.store(millis(delay), Ordering::SeqCst);
    }

    /// The same for all connections of Nearside, those of its control plane too: a slow link, which those who write beside
    /// it do not have.
    pub fn delay_proxies(&self, delay: Duration) {
        self.shared.proxied_delay_ms.store(millis(delay), Ordering::SeqCst);
    }

    /// New connections lead to another server from now on: a name or a virtual address has come to mean another machine.
    pub fn lead_to(&self, target: &Address) {
        *self.shared.target.lock().expect("no relay thread panics with the lock") = target.clone();
    }

    /// From now on it writes no more than so many bytes at once, so that reads end anywhere; 0: as many as there are.
    pub fn write_at_most(&self, bytes: usize) {
        self.shared.piece.store(bytes, Ordering::SeqCst);
    }

    /// Closes every connection that is open now; new ones pass.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().expect("no relay thread panics with the lock").drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        // The acceptor waits for a connection: this one is its last.
        let _ = self.address.connect();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((client, source)) = listener.accept() {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            // A target that is down: the client sees its connection closed at once.
            let _ = self.connect(client, source.ip());
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream, source: IpAddr) -> io::Result<()> {
        let target = self.target.lock().expect("no relay thread panics with the lock").clone();
        let Address::Tcp(target) = target else { return Err(io::ErrorKind::Unsupported.into()) };
        let server = TcpStream::connect(target)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        {
            let mut open = self.open.lock().expect("no relay thread panics with the lock");
            // The other handles of a connection that has ended are gone, and so is its peer: it is no more to be cut.
            open.retain(|stream| stream.peer_addr().is_ok());
            open.extend(ends);
        }
        let told = Arc::new(Told::default());
        let (shared, hearing) = (Arc::clone(self), Arc::clone(&told));
        let (requests, to_server) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            shared.copy(source, requests, to_server, |bytes| hearing.hear(bytes));
        });
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            let delays = Arc::clone(&shared);
            shared.copy(source, server, client, |_| std::thread::sleep(delays.delay(&told)));
        });
        Ok(())
    }

    /// How much later arrives what the server sends on a connection of which so much is known.
    fn delay(&self, told: &Told) -> Duration {
        let of = |is_meant: &AtomicBool, delay_ms: &AtomicU64| {
            if is_meant.load(Ordering::SeqCst) { delay_ms.load(Ordering::SeqCst) } else { 0 }
        };
        let tracked = of(&told.is_tracked, &self.tracked_delay_ms);
        Duration::from_millis(tracked.max(of(&told.is_proxys, &self.proxied_delay_ms)))
    }

    fn cut_off(&self) -> MutexGuard<'_, Vec<IpAddr>> {
        self.cut_off.lock().expect("no relay thread panics with the lock")
    }

    fn holds_back(&self, source: IpAddr) -> bool {
        self.stalled.load(Ordering::SeqCst) || self.cut_off().contains(&source)
    }

    fn copy(&self, source: IpAddr, mut from: TcpStream, mut to: TcpStream, before_passing: impl Fn(&[u8])) {
        let mut chunk = [0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            before_passing(&chunk[..read]);
            while self.holds_back(source) && !self.ended.load(Ordering::SeqCst) {
                std::thread::sleep(PAUSE);
            }
            let most = match self.piece.load(Ordering::SeqCst) {
                0 => read,
                piece => piece,
            };
            if chunk[..read].chunks(most).any(|piece| to.write_all(piece).is_err()) {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).expect("a delay of less than an age")
}
