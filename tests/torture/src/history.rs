//! What clients did and saw: the one thing the checker judges.
//!
//! Every value is written once, so a read tells whose write it saw. Times are nanoseconds since the run began, taken on the
//! safe side: before a request is sent, after its reply has been read.

use std::time::{Duration, Instant};

/// A key of the [`Keyspace`](crate::keyspace::Keyspace), by its number. The same name in another database is another key.
pub type Key = usize;

/// Nanoseconds since the run began.
pub type Nanos = u64;

/// Which way a command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// Through the proxy of this number.
    Proxy(usize),
    /// To Redis, with nothing in between: the control.
    Direct,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Nothing: there is no such key.
    Nothing,
    /// The value of this number.
    Value(u64),
    /// A value that nobody was told: that of an increment whose reply was lost, or one of which a client only asked whether
    /// it is there.
    Unknown,
}

/// Something that a client changed, or tried to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Write {
    /// What it changed.
    pub key: Key,
    /// What the key holds afterwards.
    pub content: Content,
    /// How long it is to live from then on, if not for ever.
    pub life: Option<Nanos>,
    /// Before it was sent.
    pub began: Nanos,
    /// After its reply was read; `None` when there was none, or an error that leaves open whether it was executed.
    pub acknowledged: Option<Nanos>,
    /// Which way it went.
    pub path: Path,
    /// The command names the key, or all keys: else (a script that does not declare it) promise 1 does not hold for it.
    pub names_key: bool,
}

/// Something that a client was told about a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read {
    /// What was read.
    pub key: Key,
    /// What it held.
    pub content: Content,
    /// Before it was sent.
    pub began: Nanos,
    /// After its reply was read.
    pub ended: Nanos,
    /// Which way it went.
    pub path: Path,
}

/// What is wrong in itself, whatever else happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Strange {
    /// A reply that is neither the command's own nor an error of the kinds that are allowed.
    WrongReply {
        /// What was asked.
        request: String,
        /// What came.
        reply: String,
    },
    /// No reply within the deadline.
    Hang(String),
    /// The connection to the proxy was closed under the client.
    Closed(String),
    /// A value of another database, or one that the client's user may not read.
    NotForThisClient(String),
}

/// A time in which nobody could reach the Redis that serves these keys.
#[derive(Clone, Debug)]
pub struct Silence {
    /// Which keys.
    pub keys: Vec<Key>,
    /// When it was cut off for sure.
    pub from: Nanos,
    /// When it was cut off for sure still.
    pub until: Nanos,
}

/// What clients did and saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In no order.
    pub writes: Vec<Write>,
    /// In no order.
    pub reads: Vec<Read>,
    /// Direct reads of every key, when all was over and everybody reached everybody.
    pub last_reads: Vec<Read>,
    /// What is wrong in itself.
    pub strange: Vec<Strange>,
    /// When which keys could not be read from Redis.
    pub silences: Vec<Silence>,
    /// What Redis has lost of what it had acknowledged, as direct writes show.
    pub losses: Vec<Loss>,
}

/// Times of acknowledgements that were worth nothing, as direct writes to the same slot show: a replica that takes over has
/// what its primary did up to some moment, and nothing that it did after that.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The keys of the slot.
    pub keys: Vec<Key>,
    /// The last write before them that was kept.
    pub from: Nanos,
    /// The next one.
    pub until: Nanos,
    /// What was there before is gone as well: the slot was taken over without its keys.
    pub is_of_all: bool,
}

impl History {
    /// Adds what another client did and saw.
    pub fn absorb(&mut self, other: History) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        self.last_reads.extend(other.last_reads);
        self.strange.extend(other.strange);
        self.silences.extend(other.silences);
        self.losses.extend(other.losses);
    }
}

/// The one clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A run begins.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Nanos {
        nanos(self.0.elapsed())
    }

    /// What time it was then.
    #[must_use]
    pub fn at(&self, then: Instant) -> Nanos {
        nanos(then.duration_since(self.0))
    }
}

/// A span as a number.
#[must_use]
pub fn nanos(span: Duration) -> Nanos {
    Nanos::try_from(span.as_nanos()).expect("a run does not last for centuries")
}
