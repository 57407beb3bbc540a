//! Traffic in which every reply says whose it is, and every write can be found again.
//!
//! Each client pipelines a few commands, waits for their replies, and goes on until told to stop:
//! - GET and GETRANGE of keys whose value names the key: another's reply shows;
//! - PING with a text used once: it is answered by the proxy itself, and must not overtake what came before;
//! - RPUSH of a number used once to a list of the client's own. The list is the journal of what was executed:
//!   a number that is in it twice was sent twice; an acknowledged one that is missing was lost; two that changed
//!   places overtook each other.
//!
//! Before a cluster the keys are in slots of every node: each command names one.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, request, words};
use crate::direct::Direct;
use crate::patience::eventually;
use crate::reply::Reply;
use crate::socket::Address;

const KEYS: usize = 200;
const DEPTH: usize = 8;
/// Between a refusal and the next attempt, so that an outage is not one busy loop.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(5);

/// Clients at work, until [`Load::finish`].
#[derive(Debug)]
pub struct Load {
    /// The number of the first client: each has a journal by its number.
    first: usize,
    clients: Vec<JoinHandle<Journal>>,
    progress: Vec<Arc<AtomicUsize>>,
    stop: Arc<AtomicBool>,
}

/// Something that must never happen, whatever happens to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A reply that is neither the command's own nor an error of the kinds that are allowed.
    WrongReply {
        /// What was sent.
        request: String,
        /// What came.
        reply: String,
    },
    /// No reply within the deadline.
    Hang,
    /// The connection was closed under the client.
    Closed(String),
    /// A write is in the server more than once.
    DoubleWrite(u64),
    /// An acknowledged write is not in the server.
    LostWrite(u64),
    /// A write that the client was told had not been sent is in the server.
    DeniedWrite(u64),
    /// An acknowledged write was executed after one that its client sent later.
    Reordered(u64),
}

/// What one client saw.
#[derive(Debug, Default)]
struct Journal {
    faults: Vec<Fault>,
    answered: usize,
    refused: usize,
    slowest: Duration,
    written: HashMap<u64, Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged,
    Unknown,
    NotSent,
}

/// What all clients saw, held against what the server has.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that must not happen, and did.
    pub faults: Vec<Fault>,
    /// Commands that got their own answer.
    pub answered: usize,
    /// Commands that got an error saying that the upstream cannot be reached, or is not yet or no more ready.
    pub refused: usize,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// The most runs of lost writes that a client has, one after the other without one between them that was kept. A failover
    /// takes from each client the last that the old primary did, which is one run.
    pub lost_runs: usize,
    /// The longest that one pipeline waited for a reply.
    pub slowest: Duration,
}

impl Load {
    /// Writes the keys that will be read, past the proxy.
    pub fn prepare(server: &mut impl Direct) {
        for key in 0..KEYS {
            assert_eq!(server.ask(&[b"SET", tagged_key(key).as_bytes(), &tagged_value(key)]), "+OK\r\n");
        }
    }

    /// Starts so many clients. A reply that takes longer than `deadline` is a [`Fault::Hang`].
    #[must_use]
    pub fn start(address: &Address, clients: usize, deadline: Duration) -> Self {
        Self::start_from(0, address, clients, deadline)
    }

    /// The same with clients that are numbered from `first`, so that their journals are none of those of other runs.
    #[must_use]
    pub fn start_from(first: usize, address: &Address, clients: usize, deadline: Duration) -> Self {
        Self::start_with(first, address, clients, deadline, false)
    }

    /// As [`Load::start`] where a server may lose all its keys: those that are read may be missing.
    #[must_use]
    pub fn start_where_keys_may_vanish(address: &Address, clients: usize, deadline: Duration) -> Self {
        Self::start_with(0, address, clients, deadline, true)
    }

    fn start_with(first: usize, address: &Address, clients: usize, deadline: Duration, may_vanish: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let progress = (0..clients).map(|_| Arc::new(AtomicUsize::new(0))).collect::<Vec<_>>();
        let clients = progress.iter().enumerate().map(|(at, progress)| {
            let (number, client) = (first + at, Client::connect_in_turn(first + at, address));
            client.set_patience(deadline);
            let (stop, progress) = (Arc::clone(&stop), Arc::clone(progress));
            let random = fastrand::Rng::with_seed(number as u64);
            let worker = LoadClient { number, client, random, may_vanish, last_write: 0, journal: Journal::default() };
            std::thread::spawn(move || worker.run(&stop, &progress))
        });
        Self { first, clients: clients.collect(), progress, stop }
    }

    /// A key that no client uses, in the slot of the journal of the client with this number.
    #[must_use]
    pub fn key_beside(number: usize) -> String {
        format!("{{{}}}:control", journal_key(number))
    }

    /// Waits until every client has had so many more answers, not counting refusals.
    #[track_caller]
    pub fn wait_for_answers(&self, each: usize, within: Duration) {
        let read = || self.progress.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = read();
        eventually(&format!("every client gets {each} more answers"), within, || {
            let is_served = |(now, before): (usize, &usize)| now >= before + each;
            read().into_iter().zip(&before).all(is_served).then_some(())
        });
    }

    /// Stops the clients and holds what they saw against the server's own data.
    #[must_use]
    pub fn finish(self, server: &mut impl Direct) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for (at, client) in self.clients.into_iter().enumerate() {
            let (number, journal) = (self.first + at, client.join().expect("a load client does not panic"));
            report.answered += journal.answered;
            report.refused += journal.refused;
            report.slowest = report.slowest.max(journal.slowest);
            report.acknowledged +=
                journal.written.values().filter(|&&outcome| outcome == Outcome::Acknowledged).count();
            let executed = server.ask(&[b"LRANGE", journal_key(number).as_bytes(), b"0", b"-1"]);
            let found = journal.compare(&executed);
            report.lost_runs = report.lost_runs.max(journal.lost_runs(&found));
            report.faults.extend(found);
            report.faults.extend(journal.faults);
        }
        report
    }
}

impl Report {
    /// Panics unless nothing happened that must not.
    #[track_caller]
    pub fn assert_faultless(&self) {
        assert!(
            self.faults.is_empty(),
            "{} faults, the first: {:?}",
            self.faults.len(),
            &self.faults[..self.faults.len().min(5)]
        );
    }

    /// The same after a failover: Redis replicates after it has acknowledged, so what the new primary had not got is lost
    /// whoever passed it on. Tells how many writes were.
    #[track_caller]
    pub fn assert_faultless_but_for_lost_writes(&mut self) -> usize {
        let faults = self.faults.len();
        self.faults.retain(|fault| !matches!(fault, Fault::LostWrite(_)));
        self.assert_faultless();
        faults - self.faults.len()
    }
}

impl Journal {
    fn compare(&self, executed: &Reply) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut times = HashMap::<u64, usize>::new();
        let mut newest = 0;
        for number in executed.elements() {
            let number = number
                .bulk()
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| digits.parse().ok());
            let number: u64 = number.expect("only numbers are pushed to a journal");
            let count = times.entry(number).or_default();
            *count += 1;
            if *count == 2 {
                faults.push(Fault::DoubleWrite(number));
            } else if number < newest && self.written.get(&number) == Some(&Outcome::Acknowledged) {
                // What was under way on a connection that was given up may be carried out after what came later on another.
                faults.push(Fault::Reordered(number));
            }
            newest = newest.max(number);
        }
        for (number, outcome) in &self.written {
            match (outcome, times.contains_key(number)) {
                (Outcome::Acknowledged, false) => faults.push(Fault::LostWrite(*number)),
                (Outcome::NotSent, true) => faults.push(Fault::DeniedWrite(*number)),
                _ => {}
            }
        }
        faults
    }

    /// See [`Report::lost_runs`].
    fn lost_runs(&self, found: &[Fault]) -> usize {
        let is_acknowledged = |(_, outcome): &(&u64, &Outcome)| **outcome == Outcome::Acknowledged;
        let mut acknowledged: Vec<u64> =
            self.written.iter().filter(is_acknowledged).map(|(&number, _)| number).collect();
        acknowledged.sort_unstable();
        let lost: HashSet<u64> = found
            .iter()
            .filter_map(|fault| if let Fault::LostWrite(number) = fault { Some(*number) } else { None })
            .collect();
        let runs = acknowledged.chunk_by(|one, next| lost.contains(one) == lost.contains(next));
        runs.filter(|run| lost.contains(&run[0])).count()
    }
}

struct LoadClient {
    number: usize,
    client: Client,
    random: fastrand::Rng,
    /// The keys that it reads.
    may_vanish: bool,
    last_write: u64,
    journal: Journal,
}

/// A command and what its reply has to be.
enum Sent {
    Read { key: usize, request: Vec<u8> },
    Ping { text: String },
    Write { number: u64 },
}

impl LoadClient {
    fn run(mut self, stop: &AtomicBool, progress: &AtomicUsize) -> Journal {
        while !stop.load(Ordering::Relaxed) && self.journal.faults.is_empty() {
            let refused = self.journal.refused;
            if let Err(error) = self.pipeline() {
                self.journal.faults.push(match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::Hang,
                    _ => Fault::Closed(error.to_string()),
                });
            }
            progress.store(self.journal.answered, Ordering::Relaxed);
            if self.journal.refused > refused {
                std::thread::sleep(PAUSE_AFTER_REFUSAL);
            }
        }
        // It does no more: whoever waits for its answers waits in vain, and shall see why.
        self.journal.faults.iter().for_each(|fault| eprintln!("client {}: {fault:?}", self.number));
        self.journal
    }

    fn pipeline(&mut self) -> io::Result<()> {
        let commands = (0..self.random.usize(1..=DEPTH)).map(|_| self.next_command()).collect::<Vec<_>>();
        let bytes = commands.iter().flat_map(|sent| sent.encode(self.number)).collect::<Vec<_>>();
        for sent in &commands {
            if let Sent::Write { number } = sent {
                self.journal.written.insert(*number, Outcome::Unknown);
            }
        }
        let started = Instant::now();
        self.client.try_send(&bytes)?;
        for sent in commands {
            let reply = self.client.try_reply()?;
            self.journal.slowest = self.journal.slowest.max(started.elapsed());
            self.judge(&sent, &reply);
        }
        Ok(())
    }

    fn next_command(&mut self) -> Sent {
        let key = self.random.usize(..KEYS);
        match self.random.u8(..10) {
            0..4 => Sent::Read { key, request: words(&format!("GET {}", tagged_key(key))) },
            4..6 => Sent::Read { key, request: words(&format!("GETRANGE {} 0 -1", tagged_key(key))) },
            6 => Sent::Ping { text: format!("ping-{}-{}", self.number, self.random.u64(..)) },
            _ => {
                self.last_write += 1;
                Sent::Write { number: self.last_write }
            }
        }
    }

    fn judge(&mut self, sent: &Sent, reply: &Reply) {
        if is_refusal(reply) {
            self.journal.refused += 1;
            if let Sent::Write { number } = sent {
                // Redis says LOADING and CLUSTERDOWN instead of running the command.
                let was_refused = [&b"-LOADING"[..], b"-CLUSTERDOWN"].iter().any(|code| reply.starts_with(code));
                let outcome =
                    if was_refused || reply.text().contains("not sent") { Outcome::NotSent } else { Outcome::Unknown };
                self.journal.written.insert(*number, outcome);
            }
            return;
        }
        let is_own = match sent {
            Sent::Read { .. } if self.may_vanish && is_missing(reply) => true,
            Sent::Read { key, .. } => reply.bulk() == Some(&tagged_value(*key)),
            Sent::Ping { text } => reply.bulk() == Some(text.as_bytes()),
            Sent::Write { .. } => reply.integer().is_some_and(|length| length > 0),
        };
        if !is_own {
            let request = Reply(sent.encode(self.number)).text();
            self.journal.faults.push(Fault::WrongReply { request, reply: reply.text() });
            return;
        }
        self.journal.answered += 1;
        if let Sent::Write { number } = sent {
            self.journal.written.insert(*number, Outcome::Acknowledged);
        }
    }
}

impl Sent {
    fn encode(&self, client: usize) -> Vec<u8> {
        match self {
            Self::Read { request, .. } => request.clone(),
            Self::Ping { text } => request(&["PING", text]),
            Self::Write { number } => request(&["RPUSH", &journal_key(client), &number.to_string()]),
        }
    }
}

/// An error that says that the server is out of reach, or not yet ready. No other error is an answer to these commands.
fn is_refusal(reply: &Reply) -> bool {
    [&b"-UPSTREAM "[..], b"-LOADING ", b"-CLUSTERDOWN "].iter().any(|code| reply.starts_with(code))
}

/// What GET or GETRANGE say of a key that is missing, in either protocol.
fn is_missing(reply: &Reply) -> bool {
    ["$-1\r\n", "_\r\n", "$0\r\n\r\n"].iter().any(|missing| *reply == **missing)
}

fn journal_key(client: usize) -> String {
    format!("journal:{client}")
}

fn tagged_key(key: usize) -> String {
    format!("tagged:{key}")
}

/// Names its key, and has a length of its own, so that a slip in where a reply ends shows as well.
fn tagged_value(key: usize) -> Vec<u8> {
    format!("value of tagged:{key} {}", "#".repeat(key * 7 % 300)).into_bytes()
}
