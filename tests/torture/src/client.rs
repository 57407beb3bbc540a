//! A client: asks, and notes what it was told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nearside_tests::{Address, Client, ClusterClient, Reply, request};

use crate::history::{Clock, History, Key, Nanos, Path, Read, Strange};
use crate::keyspace::{Keyspace, Kind};
use crate::plan::{Asker, Plan};

/// A reply that takes longer hangs: several times what the program may need, as machines may be busy.
pub const DEADLINE: Duration = Duration::from_secs(12);
/// Commands in one write at most.
const DEPTH: usize = 4;
/// Reads of one key by a client that insists on it, on the average.
const INSISTENCE: usize = 1000;
/// Between two pipelines at most: clients that never rest would leave the faults no time.
const LONGEST_PAUSE_US: u64 = 4000;
/// After an error, so that an outage is not one busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(5);
/// Of a direct client, which has no proxy that finds out for it.
pub const NODE_TIMEOUT: Duration = Duration::from_millis(500);

/// The user that may read only some keys.
pub const RESTRICTED_USER: &str = "few";
/// Its password.
pub const RESTRICTED_PASSWORD: &str = "few-password";

/// What all clients of a round share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The keys.
    pub keys: Arc<Keyspace>,
    /// The time.
    pub clock: Clock,
    /// The round is over.
    pub stop: Arc<AtomicBool>,
}

/// A client through a proxy: pipelines, in one of the two protocols.
pub fn through_proxy(shared: &Shared, address: &Address, asker: Asker, mut random: fastrand::Rng) -> History {
    let mut history = History::default();
    let (mut written, mut key) = (0, None);
    let mut client = None;
    while !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_micros(random.u64(..LONGEST_PAUSE_US)));
        if client.is_none() {
            client =
                connect(address, asker, &mut random).inspect_err(|error| note_io(error, "connect", &mut history)).ok();
        }
        let Some(connected) = client.as_mut() else {
            std::thread::sleep(PAUSE_AFTER_ERROR);
            continue;
        };
        let plans = match asker.insists {
            true => vec![Plan::read_one(&shared.keys, insisted_on(shared, asker, &mut random, &mut key))],
            false => (0..random.usize(1..=DEPTH))
                .map(|_| Plan::next(&shared.keys, asker, &mut random, &mut written))
                .collect(),
        };
        if let Err(error) = pipeline(shared, connected, asker, &plans, &mut history) {
            let is_allowed = plans.iter().any(Plan::is_transaction) && !is_timeout(&error);
            if !is_allowed {
                note_io(&error, &plans.iter().map(Plan::shown).collect::<Vec<_>>().join("; "), &mut history);
            }
            client = None;
        }
    }
    history
}

/// The key that is asked for again and again: another one seldom.
fn insisted_on(shared: &Shared, asker: Asker, random: &mut fastrand::Rng, key: &mut Option<Key>) -> Key {
    if random.usize(..INSISTENCE) == 0 {
        *key = None;
    }
    *key.get_or_insert_with(|| shared.keys.pick(random, asker.db, Kind::Text))
}

fn connect(address: &Address, asker: Asker, random: &mut fastrand::Rng) -> io::Result<Client> {
    let mut client = Client::try_connect(address)?;
    client.set_patience(DEADLINE);
    let mut lines = Vec::new();
    if random.bool() {
        lines.push("HELLO 3".to_owned());
    }
    if asker.is_restricted {
        lines.push(format!("AUTH {RESTRICTED_USER} {RESTRICTED_PASSWORD}"));
    }
    if asker.db > 0 {
        lines.push(format!("SELECT {}", asker.db));
    }
    for line in lines {
        client.try_send(&nearside_tests::words(&line))?;
        if client.try_reply()?.is_error() {
            // While Redis is away nobody can log in.
            return Err(io::ErrorKind::NotConnected.into());
        }
    }
    Ok(client)
}

fn pipeline(
    shared: &Shared,
    client: &mut Client,
    asker: Asker,
    plans: &[Plan],
    history: &mut History,
) -> io::Result<()> {
    let bytes: Vec<u8> = plans.iter().flat_map(|plan| &plan.requests).flat_map(|words| request(words)).collect();
    let began = shared.clock.now();
    let sent = client.try_send(&bytes);
    let mut is_refused = false;
    for (at, plan) in plans.iter().enumerate() {
        let replies = match sent {
            Ok(()) => plan.requests.iter().map(|_| client.try_reply()).collect::<io::Result<Vec<Reply>>>(),
            Err(ref error) => Err(error.kind().into()),
        };
        match replies {
            Ok(replies) => {
                is_refused |= replies.iter().any(Reply::is_error);
                plan.note(&shared.keys, asker, (began, shared.clock.now()), &replies, history);
            }
            Err(error) => {
                plans[at..].iter().for_each(|plan| plan.note_lost(&shared.keys, asker, began, history));
                return Err(error);
            }
        }
    }
    if is_refused {
        std::thread::sleep(PAUSE_AFTER_ERROR);
    }
    Ok(())
}

fn note_io(error: &io::Error, what: &str, history: &mut History) {
    match error.kind() {
        io::ErrorKind::NotConnected => {}
        _ if is_timeout(error) => history.strange.push(Strange::Hang(what.to_owned())),
        _ => history.strange.push(Strange::Closed(format!("{what}: {error}"))),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Redis itself, in one of its forms.
#[derive(Debug)]
pub enum Redis {
    /// A cluster, whose client reconnects by itself.
    Cluster(ClusterClient),
    /// One server.
    Server {
        /// Where it is.
        address: Address,
        /// Which of its databases.
        db: u16,
        /// The connection, while there is one.
        client: Option<Client>,
    },
}

impl Redis {
    /// One command and its reply.
    pub fn ask(&mut self, words: &[String]) -> io::Result<Reply> {
        match self {
            Self::Cluster(client) => client.try_command(words),
            Self::Server { address, db, client } => {
                let mut connected = match client.take() {
                    Some(connected) => connected,
                    None => {
                        let mut connected = Client::try_connect(address)?;
                        connected.set_patience(NODE_TIMEOUT);
                        connected.try_send(&request(&["SELECT", &db.to_string()]))?;
                        connected.try_reply()?;
                        connected
                    }
                };
                connected.try_send(&request(words))?;
                let reply = connected.try_reply()?;
                *client = Some(connected);
                Ok(reply)
            }
        }
    }
}

/// A client with nothing in between: the control.
pub fn direct(shared: &Shared, mut redis: Redis, asker: Asker, mut random: fastrand::Rng) -> History {
    let mut history = History::default();
    let mut written = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_micros(random.u64(..LONGEST_PAUSE_US)));
        let plan = Plan::next(&shared.keys, asker, &mut random, &mut written);
        let began = shared.clock.now();
        match redis.ask(&plan.requests[0]) {
            Ok(reply) => plan.note(&shared.keys, asker, (began, shared.clock.now()), &[reply], &mut history),
            Err(_) => {
                plan.note_lost(&shared.keys, asker, began, &mut history);
                std::thread::sleep(PAUSE_AFTER_ERROR);
            }
        }
    }
    history
}

/// Reads every key of a database once more.
///
/// # Panics
/// When Redis does not answer, though nothing disturbs it.
pub fn read_all(shared: &Shared, redis: &mut Redis, db: u16) -> Vec<Read> {
    let read = |key: usize| {
        let plan = Plan::read_one(&shared.keys, key);
        let began: Nanos = shared.clock.now();
        let reply = std::iter::repeat_with(|| redis.ask(&plan.requests[0]))
            .take(100)
            .filter_map(Result::ok)
            .find(|reply| !reply.is_error());
        let reply = reply.unwrap_or_else(|| panic!("{} is answered when all is well", plan.shown()));
        let content = shared.keys.content(key, &reply).unwrap_or(crate::history::Content::Nothing);
        Read { key, content, began, ended: shared.clock.now(), path: Path::Direct }
    };
    shared.keys.all(|named| named.db == db).into_iter().map(read).collect()
}
