//! How much a full cache makes the process grow, beside the capacity it was given.
//!
//! The weights in `sizing.rs` are only as good as this measurement: fetches with churn, several times the capacity, on as
//! many threads as there are workers, under the program's allocator. Each case runs in a process of its own.
//!
//! ```text
//! cargo run --release -p nearside-nearcache --example fill_rss
//! ```
//! Two columns count: the highest resident size seen, and the last, each as a multiple of the capacity. Wanted: at most 1.15,
//! and not below 0.8. "16 B, then 1 MiB" shows what no weight can know: small items that stay hold on to the pages of those
//! that left.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use nearside_nearcache::{Answer, Lease, Lookup, NearCache, Scope, Settings, Time, Ttl, Waiter};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What large allocations leave goes back to the system at once, whichever thread's they were; other pages after a second.
/// The weights count on the first.
const ALLOCATOR_SETTINGS: &str = "oversize_threshold:65536,dirty_decay_ms:1000,muzzy_decay_ms:0";

const MIB: u64 = 1 << 20;
const CAPACITY_MIB: u64 = 256;
/// How many times the capacity is fetched in all, in each phase.
const CHURN: u64 = 4;
const MAX_VALUE: usize = MIB as usize;
const NOW: Time = Time(1_000_000_000);

/// The value sizes of a case: phases one after the other, each a range from which sizes are drawn, evenly over its doublings.
type Phases = &'static [(usize, usize)];
const CASES: &[(&str, Phases)] = &[
    ("16 B", &[(16, 16)]),
    ("100 B", &[(100, 100)]),
    ("1 KiB", &[(1 << 10, 1 << 10)]),
    ("16 KiB", &[(16 << 10, 16 << 10)]),
    ("1 MiB", &[(MAX_VALUE, MAX_VALUE)]),
    ("16 B to 1 KiB, mixed", &[(16, 1 << 10)]),
    ("16 B to 1 MiB, mixed", &[(16, MAX_VALUE)]),
    ("16 B, then 1 MiB", &[(16, 16), (MAX_VALUE, MAX_VALUE)]),
    ("1 MiB, then 16 B", &[(MAX_VALUE, MAX_VALUE), (16, 16)]),
];

fn main() {
    let arguments: Vec<usize> = env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    if let [case, workers] = arguments[..] {
        return measure(CASES[case], workers);
    }
    println!("{:24} {:>7} {:>9} {:>8} {:>6} {:>6}", "values", "workers", "entries", "weight", "peak", "last");
    let program = env::current_exe().expect("a running program has a path");
    for workers in [1, 8] {
        for case in 0..CASES.len() {
            let mut measurement = Command::new(&program);
            measurement.env("_RJEM_MALLOC_CONF", ALLOCATOR_SETTINGS).args([case.to_string(), workers.to_string()]);
            let status = measurement.status();
            assert!(status.is_ok_and(|status| status.success()), "case {case} failed");
        }
    }
}

fn measure((name, phases): (&str, Phases), workers: usize) {
    let capacity = CAPACITY_MIB * MIB;
    let values: Arc<[u8]> = vec![b'v'; MAX_VALUE + 32].into();
    let before = resident();
    let settings = Settings {
        capacity,
        max_item: MAX_VALUE,
        max_age: Duration::from_secs(60),
        max_staleness: Duration::from_secs(1),
        workers,
        max_fills: 1000,
        max_waiters: 1000,
        fetch_churning: false,
        hash_seed: None,
    };
    let cache = NearCache::new(settings).expect("an item of 1 MiB fits 256 MiB");
    let owner = cache.open_lease(0);
    owner.renew(NOW, NOW);

    let peak = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let sampler = {
        let (peak, done, cache) = (peak.clone(), done.clone(), cache.clone());
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(resident(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
                cache.sweep(NOW);
            }
        })
    };
    for &sizes in phases {
        let threads: Vec<_> = (0..workers as u64)
            .map(|worker| {
                let (cache, lease, values) = (cache.clone(), owner.lease(), values.clone());
                let bytes = capacity * CHURN / workers as u64;
                thread::spawn(move || churn(&cache, &lease, &values, worker, sizes, bytes))
            })
            .collect();
        for thread in threads {
            thread.join().expect("churn does not panic");
        }
    }
    let last = resident();
    done.store(true, Ordering::Relaxed);
    sampler.join().expect("the sampler does not panic");

    let share = |bytes: u64| bytes as f64 / capacity as f64;
    println!(
        "{name:24} {workers:>7} {:>9} {:>8.2} {:>6.2} {:>6.2}",
        cache.entries(),
        share(cache.bytes()),
        share(peak.load(Ordering::Relaxed).max(last).saturating_sub(before)),
        share(last.saturating_sub(before)),
    );
}

/// Fetches until as much weight as `bytes` was stored: mostly new keys, some read again, some overwritten.
fn churn(cache: &Arc<NearCache>, lease: &Lease, values: &[u8], worker: u64, (least, most): (usize, usize), bytes: u64) {
    let mut random = Xorshift(worker * 2 + 0x9e37_79b9_7f4a_7c15 + most as u64);
    let doublings = (most / least).ilog2() as f64;
    let (mut stored, mut number) = (0, 0);
    while stored < bytes {
        let key = format!("key:{worker}:{most}:{number:010}");
        let size = (least as f64 * (random.unit() * doublings).exp2()) as usize;
        fetch(cache, lease, key.as_bytes(), &values[..size]);
        stored += size as u64 + 136;
        number += 1;
        if random.unit() < 0.3 {
            let recent = number - 1 - (random.unit() * 1000.0).min(number as f64 - 1.0) as u64;
            let key = format!("key:{worker}:{most}:{recent:010}");
            if random.unit() < 0.2 {
                cache.wrote(key.as_bytes(), NOW);
            }
            fetch(cache, lease, key.as_bytes(), &values[..size]);
        }
    }
}

fn fetch(cache: &Arc<NearCache>, lease: &Lease, key: &[u8], reply: &[u8]) {
    let scope = Scope { user: 0, db: 0, command: 0, arguments: b"" };
    let nobody = || Waiter { worker: 0, session: 0, sequence: 0 };
    if let Lookup::Lead(mut ticket) = cache.lookup(key, scope, NOW, nobody) {
        ticket.sent(lease, NOW);
        let waiters = ticket.complete(Answer::Store { reply, ttl: Ttl::Persistent }, NOW);
        assert_eq!(waiters.len(), 1);
    }
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("this measurement is for Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("statm gives the resident pages second") * 4096
}

struct Xorshift(u64);

impl Xorshift {
    /// A number from 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
