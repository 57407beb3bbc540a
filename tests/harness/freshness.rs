//! Is a read through the proxy ever staler than is promised?
//!
//! A writer counts up versions of a few keys past the proxy, noting when each was acknowledged. Readers ask through the
//! proxy. A read sent at *t* must see at least the newest version that was acknowledged before *t* − `max-staleness`.
//! Both times are taken on the safe side, so a slow machine cannot make a good proxy fail; errors are no staleness.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, words};
use crate::socket::Address;

const KEYS: usize = 4;
const READERS: usize = 3;
/// Writes come in bursts, so that some meet a fetch of their key under way; between bursts reads can be hits.
const BURST: usize = 15;
const BURST_PAUSE: Duration = Duration::from_millis(20);
const READ_PAUSE: Duration = Duration::from_micros(300);

/// A writer beside the proxy and readers through it, until [`Freshness::finish`].
#[derive(Debug)]
pub struct Freshness {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Of all keys, so that two runs before one server do not meet.
    prefix: String,
    max_staleness: Duration,
    stop: AtomicBool,
    reads: AtomicUsize,
    /// For each key: when version n + 1 was acknowledged, at index n.
    acknowledged: Vec<Mutex<Vec<Instant>>>,
    stale: Mutex<Vec<StaleRead>>,
}

/// A read that broke the promise.
#[derive(Clone, Debug)]
pub struct StaleRead {
    /// Which key.
    pub key: usize,
    /// The version that was read.
    pub read: usize,
    /// The oldest that was allowed.
    pub expected: usize,
    /// How long the newer version had been acknowledged when the read was sent.
    pub age: Duration,
}

impl Freshness {
    /// Starts to write at `server` and to read through `proxy`, which runs with this `max_staleness`.
    #[must_use]
    pub fn start(server: &Address, proxy: &Address, max_staleness: Duration) -> Self {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let shared = Arc::new(Shared {
            prefix: format!("versioned:{}", RUNS.fetch_add(1, Ordering::Relaxed)),
            max_staleness,
            stop: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            acknowledged: (0..KEYS).map(|_| Mutex::default()).collect(),
            stale: Mutex::default(),
        });
        let mut threads = Vec::new();
        let (writing, server) = (Arc::clone(&shared), server.clone());
        threads.push(std::thread::spawn(move || writing.write(&server)));
        for _ in 0..READERS {
            let (reading, mut client) = (Arc::clone(&shared), Client::connect(proxy));
            threads.push(std::thread::spawn(move || reading.read(&mut client)));
        }
        Self { shared, threads }
    }

    /// How many reads have given a value so far.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// Ends it and gives every read that was staler than promised.
    #[must_use]
    pub fn finish(self) -> Vec<StaleRead> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the writer and the readers do not panic");
        }
        std::mem::take(&mut *self.shared.stale.lock().expect("no thread panics with the lock"))
    }
}

impl Shared {
    fn write(&self, server: &Address) {
        let mut client = None;
        let mut version = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if version % BURST == 0 {
                std::thread::sleep(BURST_PAUSE);
            }
            let key = version % KEYS;
            let next = version / KEYS + 1;
            // While the server is down there is nothing to write; a version whose write failed is written again.
            let Some(connected) = client.take().or_else(|| Client::try_connect(server).ok()) else {
                std::thread::sleep(BURST_PAUSE);
                continue;
            };
            client = self.write_version(connected, key, next).inspect(|_| version += 1);
        }
    }

    fn write_version(&self, mut client: Client, key: usize, version: usize) -> Option<Client> {
        client.try_send(&words(&format!("SET {}:{key} {version}", self.prefix))).ok()?;
        (client.try_reply().ok()? == "+OK\r\n").then_some(())?;
        self.acknowledged[key].lock().expect("no thread panics with the lock").push(Instant::now());
        Some(client)
    }

    fn read(&self, client: &mut Client) {
        for round in 0_usize.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(READ_PAUSE);
            let key = round % KEYS;
            let sent_at = Instant::now();
            let reply = client.call(&format!("GET {}:{key}", self.prefix));
            let version =
                reply.bulk().and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
            if let Some(version) = version.or_else(|| (reply == "$-1\r\n").then_some(0)) {
                self.reads.fetch_add(1, Ordering::Relaxed);
                self.judge(key, version, sent_at);
            }
        }
    }

    fn judge(&self, key: usize, read: usize, sent_at: Instant) {
        let acknowledged = self.acknowledged[key].lock().expect("no thread panics with the lock");
        let expected = acknowledged.partition_point(|&at| at + self.max_staleness < sent_at);
        if read < expected {
            let age = sent_at.duration_since(acknowledged[read]);
            self.stale.lock().expect("no thread panics with the lock").push(StaleRead { key, read, expected, age });
        }
    }
}
