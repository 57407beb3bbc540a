//! One round: clients begin, one thing happens, clients end, and what they saw is checked.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nearside_tests::{Control, ControlReport, Fault as LoadFault, Load, Report as LoadReport, spread_keys};

use crate::check::{Findings, Promise, Terms, Violation, check};
use crate::client::{DEADLINE, Shared, direct, read_all, through_proxy};
use crate::evidence;
use crate::faults::Fault;
use crate::history::{Clock, History, Loss, Path};
use crate::keyspace::{Keyspace, TAGS};
use crate::lag::Lag;
use crate::plan::Asker;
use crate::world::{MAX_STALENESS, PROXIES, Upstream, World};

/// Clients through each proxy that mostly read, that write as often, that may read only some keys, and that read one again and
/// again.
const READERS: usize = 8;
const WRITERS: usize = 3;
const RESTRICTED: usize = 1;
const INSISTENT: usize = 3;
/// Direct clients of each database: the control reads, and somebody writes beside the proxies.
const DIRECT_READERS: usize = 3;
const DIRECT_WRITERS: usize = 1;
/// Clients of each proxy that keep a journal (`Load`).
const JOURNALS: usize = 2;
/// Between two direct writes to each slot, of which the control keeps a journal: what is lost is known that exactly.
const CONTROL_PAUSE: Duration = Duration::from_millis(2);
/// Before the fault, and after it.
const CALM: Duration = Duration::from_millis(800);
/// After the clients have ended, what was under way at a server that stood still has been done.
const LAST_WRITES: Duration = Duration::from_millis(700);
/// The same in the slots of the journals, which write pipelines of many commands.
const JOURNAL_CONTROL_PAUSE: Duration = Duration::from_micros(300);
/// So many lost writes are a time in which the control, which writes one after the other, loses some as well.
const LOST_BY_CHANCE: usize = 30;

/// What a round found.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub fault: Fault,
    /// What the checker found, and what the journals did.
    pub findings: Findings,
    /// What led to the first violation, if there is one.
    pub evidence: String,
    /// Commands that changed something, or tried to.
    pub writes: usize,
    /// Reads answered from the caches.
    pub hits: u64,
    /// Commands of the journals that were answered.
    pub journaled: usize,
    /// Acknowledged writes of the journals that Redis lost, and how many of the control's it did.
    pub lost: (usize, usize),
    /// How late invalidations have come so far, in this round and those before it.
    pub lag: Lag,
    /// How long it took.
    pub took: Duration,
}

/// The clients of a round.
struct Clients {
    shared: Shared,
    threads: Vec<JoinHandle<History>>,
    journals: Vec<Load>,
    control: Option<Control>,
    /// In the slots of the journals.
    journal_control: Option<Control>,
}

/// Runs one round.
#[must_use]
pub fn run(world: &mut World, fault: Fault, number: usize, seed: u64, clock: Clock) -> Outcome {
    let began = Instant::now();
    let hits = world.hits();
    let shared = Shared {
        keys: Arc::new(Keyspace::of_round(number, world.dbs())),
        clock,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let mut random = fastrand::Rng::with_seed(seed ^ (number as u64) << 20);
    let loses_writes = fault.loses_writes(world);
    let clients = Clients::start(world, shared.clone(), fault, number, &mut random);
    std::thread::sleep(CALM);
    let mut history = fault.happen(world, &shared, &mut random);
    std::thread::sleep(CALM);
    let (told, mut findings, journaled, lost) = clients.finish(world, loses_writes);
    history.absorb(told);
    std::thread::sleep(LAST_WRITES);
    for db in 0..world.dbs() {
        history.last_reads.extend(read_all(&shared, &mut world.redis(db), db));
    }
    let terms =
        Terms { max_staleness: MAX_STALENESS, evicts: fault == Fault::Eviction, loses_writes, proxies: PROXIES };
    let mut checked = check(&history, terms);
    checked.violations.append(&mut findings);
    let hits = world.hits() - hits;
    world.clear();
    Outcome {
        fault,
        evidence: evidence::of(&history, &checked.violations),
        findings: checked,
        writes: history.writes.len(),
        hits,
        journaled,
        lost,
        lag: Lag::of(&world.proxies),
        took: began.elapsed(),
    }
}

impl Clients {
    fn start(world: &World, shared: Shared, fault: Fault, number: usize, random: &mut fastrand::Rng) -> Self {
        let mut threads = Vec::new();
        let (declares_all, has_field_expiry) = (fault == Fault::MovedSlots, world.has_field_expiry());
        for at in 0..PROXIES * (READERS + WRITERS + RESTRICTED + INSISTENT) {
            let (proxy, role) = (at % PROXIES, at / PROXIES);
            let asker = Asker {
                client: at,
                path: Path::Proxy(proxy),
                db: random.u16(..world.dbs()),
                is_restricted: (READERS + WRITERS..READERS + WRITERS + RESTRICTED).contains(&role),
                insists: role >= READERS + WRITERS + RESTRICTED,
                reads: if role < READERS { 97 } else { 40 },
                declares_all,
                has_field_expiry,
            };
            let (shared, address, random) = (shared.clone(), world.proxies[proxy].address().clone(), random.fork());
            threads.push(std::thread::spawn(move || through_proxy(&shared, &address, asker, random)));
        }
        for db in 0..world.dbs() {
            for at in 0..DIRECT_READERS + DIRECT_WRITERS {
                let client = threads.len();
                let reads = if at < DIRECT_READERS { 100 } else { 40 };
                let asker = Asker {
                    client,
                    path: Path::Direct,
                    db,
                    is_restricted: false,
                    insists: false,
                    reads,
                    declares_all,
                    has_field_expiry,
                };
                let (shared, redis, random) = (shared.clone(), world.redis(db), random.fork());
                threads.push(std::thread::spawn(move || direct(&shared, redis, asker, random)));
            }
        }
        let (mut journals, mut control, mut journal_control) = (Vec::new(), None, None);
        if !fault.loses_keys() {
            prepare_journals(world);
            for (proxy, nearside) in world.proxies.iter().enumerate() {
                let first = (number * PROXIES + proxy) * JOURNALS;
                journals.push(Load::start_from(first, nearside.address(), JOURNALS, DEADLINE));
            }
            if let Upstream::Cluster(cluster) = &world.upstream {
                let keys = spread_keys(TAGS, &format!("control:{number}"));
                control = Some(Control::on_keys(cluster, keys, CONTROL_PAUSE));
                let first = number * PROXIES * JOURNALS;
                let keys = (first..first + PROXIES * JOURNALS).map(Load::key_beside).collect();
                journal_control = Some(Control::on_keys(cluster, keys, JOURNAL_CONTROL_PAUSE));
            }
        }
        Self { shared, threads, journals, control, journal_control }
    }

    /// Ends them. Gives what they saw, what the journals say against it, how much those did, and what Redis lost of it.
    fn finish(self, world: &World, loses_writes: bool) -> (History, Vec<Violation>, usize, (usize, usize)) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for thread in self.threads {
            history.absorb(thread.join().expect("a client does not panic"));
        }
        let mut reports: Vec<LoadReport> = Vec::new();
        for journal in self.journals {
            reports.push(match &world.upstream {
                Upstream::Cluster(cluster) => journal.finish(&mut cluster.client()),
                Upstream::Server { server, .. } => journal.finish(&mut server.client()),
            });
        }
        let report = |control: Option<Control>| match (control, &world.upstream) {
            (Some(control), Upstream::Cluster(cluster)) => control.finish(&mut cluster.client()),
            _ => ControlReport::default(),
        };
        let (control, journal_control) = (report(self.control), report(self.journal_control));
        history.losses = losses(&self.shared, &control.losses);
        if loses_writes {
            history.losses.extend(losses(&self.shared, &control.moves));
        }
        let journaled = reports.iter().map(|report| report.answered).sum();
        let faults: Vec<LoadFault> = reports.into_iter().flat_map(|report| report.faults).collect();
        let (lost, others): (Vec<_>, Vec<_>) =
            faults.into_iter().partition(|fault| matches!(fault, LoadFault::LostWrite(_)));
        let mut violations: Vec<Violation> = others.iter().map(violation).collect();
        let is_redis = loses_writes && (lost.len() <= LOST_BY_CHANCE || journal_control.lost > 0);
        if !is_redis {
            violations.extend(lost.iter().map(violation));
        }
        (history, violations, journaled, (lost.len(), journal_control.lost))
    }
}

/// What the control says that Redis lost, or may have lost: for each hash tag, whose keys are in one slot with the control's own.
fn losses(shared: &Shared, control: &[Vec<Range<Instant>>]) -> Vec<Loss> {
    let mut losses = Vec::new();
    for (tag, of_tag) in control.iter().enumerate() {
        let keys = shared.keys.all(|named| usize::from(named.tag) == tag);
        let loss = |times: &Range<Instant>| {
            let (from, until) = (shared.clock.at(times.start), shared.clock.at(times.end));
            Loss { keys: keys.clone(), from, until, is_of_all: false }
        };
        losses.extend(of_tag.iter().map(loss));
    }
    losses
}

fn prepare_journals(world: &World) {
    match &world.upstream {
        Upstream::Cluster(cluster) => Load::prepare(&mut cluster.client()),
        Upstream::Server { server, .. } => Load::prepare(&mut server.client()),
    }
}

fn violation(fault: &LoadFault) -> Violation {
    let promise = match fault {
        LoadFault::Hang => Promise::NoHang,
        LoadFault::LostWrite(_) => Promise::NoLoss,
        LoadFault::WrongReply { .. }
        | LoadFault::Closed(_)
        | LoadFault::DoubleWrite(_)
        | LoadFault::DeniedWrite(_)
        | LoadFault::Reordered(_) => Promise::OwnReplies,
    };
    Violation { promise, what: format!("journal: {fault:?}"), read: None }
}
