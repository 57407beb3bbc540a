//! Is a read through the proxy ever staler than is promised?
//!
//! A writer counts up versions of a few keys past the proxy, noting when each was acknowledged. Readers ask through the
//! proxy. A read sent at *t* must see at least the newest version that was acknowledged before *t* − `max-staleness`.
//! Both times are taken on the safe side, so a slow machine cannot make a good proxy fail; errors are no staleness.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::cluster::{RedisCluster, spread_keys};
use crate::cluster_client::ClusterClient;
use crate::reply::Reply;
use crate::socket::Address;

/// As many before a cluster: more than it has nodes.
const KEYS: u16 = 4;
const READERS: usize = 3;
/// Writes come in bursts, so that some meet a fetch of their key under way; between bursts reads can be hits.
const BURST: usize = 15;
const BURST_PAUSE: Duration = Duration::from_millis(20);
const READ_PAUSE: Duration = Duration::from_micros(300);
/// A node of a cluster that does not answer for so long must not keep the writer from the others' keys.
const NODE_TIMEOUT: Duration = Duration::from_millis(500);

/// A writer beside the proxy and readers through it, until [`Freshness::finish`].
#[derive(Debug)]
pub struct Freshness {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    keys: Vec<String>,
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
    pub key: String,
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
        let keys = (0..KEYS).map(|key| format!("{}:{key}", name())).collect();
        // One server is a cluster that never sends its client elsewhere.
        let writer = ClusterClient::connect(std::slice::from_ref(server)).with_node_timeout(Client::PATIENCE);
        Self::on_keys(keys, writer, proxy, max_staleness)
    }

    /// The same before a cluster, on keys of every part of the slots.
    #[must_use]
    pub fn start_on_cluster(cluster: &RedisCluster, proxy: &Address, max_staleness: Duration) -> Self {
        let writer = cluster.client().with_node_timeout(NODE_TIMEOUT);
        Self::on_keys(spread_keys(KEYS, &name()), writer, proxy, max_staleness)
    }

    /// The same with these keys, nobody else's, and this writer.
    ///
    /// A failover loses acknowledged writes, and what is read after it looks stale: unless the writer is one
    /// [with writes on replicas](ClusterClient::with_writes_on_replicas).
    #[must_use]
    pub fn on_keys(keys: Vec<String>, mut writer: ClusterClient, proxy: &Address, max_staleness: Duration) -> Self {
        Self::written_by(keys, move |args| writer.try_command(args), proxy, max_staleness)
    }

    /// The same with whatever carries out a write: an error, or any reply but `OK`, and it is made again.
    #[must_use]
    pub fn written_by(
        keys: Vec<String>,
        mut writer: impl FnMut(&[&str]) -> io::Result<Reply> + Send + 'static,
        proxy: &Address,
        max_staleness: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            max_staleness,
            stop: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
            acknowledged: keys.iter().map(|_| Mutex::default()).collect(),
            stale: Mutex::default(),
            keys,
        });
        let mut threads = Vec::new();
        let writing = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || writing.write(&mut writer)));
        for number in 0..READERS {
            let (reading, mut client) = (Arc::clone(&shared), Client::connect_in_turn(number, proxy));
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

/// Of a run's keys, so that two runs before one server do not meet.
fn name() -> String {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    format!("versioned:{}", RUNS.fetch_add(1, Ordering::Relaxed))
}

impl Shared {
    fn write(&self, writer: &mut dyn FnMut(&[&str]) -> io::Result<Reply>) {
        let mut versions = vec![0; self.keys.len()];
        for round in 0_usize.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if round.is_multiple_of(BURST) {
                std::thread::sleep(BURST_PAUSE);
            }
            let key = round % self.keys.len();
            let next = versions[key] + 1;
            // While the server is down there is nothing to write; a version whose write failed is written again.
            let reply = writer(&["SET", &self.keys[key], &next.to_string()]);
            if reply.is_ok_and(|reply| reply == "+OK\r\n") {
                self.acknowledged[key].lock().expect("no thread panics with the lock").push(Instant::now());
                versions[key] = next;
            } else {
                std::thread::sleep(BURST_PAUSE);
            }
        }
    }

    fn read(&self, client: &mut Client) {
        for round in 0_usize.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(READ_PAUSE);
            let key = round % self.keys.len();
            let sent_at = Instant::now();
            let reply = client.command(&["GET", &self.keys[key]]);
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
            self.stale.lock().expect("no thread panics with the lock").push(StaleRead {
                key: self.keys[key].clone(),
                read,
                expected,
                age,
            });
        }
    }
}
