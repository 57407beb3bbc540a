//! A model of the coherence protocol, which stateright explores whole: every order of steps, in executions of any length.
//!
//! One key; a primary and a replica; one or two proxies, each with a cache, a loader lane to each server, and clients; writers
//! beside them. What a client is given is compared with what the same read, sent uncached through that proxy, would have been
//! answered with: now, or up to `max-staleness` ago. Which worlds are explored is in `worlds.rs`, which steps there are in
//! `actions.rs` (each says what code it stands for), which rules can be left out in `broken.rs`.
//!
//! # What it abstracts from
//! - Values are numbers of versions, and nothing but the order of the writes is known of them. A value that nobody can be given
//!   any more is forgotten, and its number used again.
//! - Time is ticks, the same for everybody, and anything may take any number of them: a link that holds its bytes back, a
//!   stopped process and a slow server are executions in which time passes and nothing is delivered. A lost connection is a
//!   step of its own, and so is that the proxy hears of it.
//! - Each operation of the cache is one step. That its own threads cannot come between is what `interleavings` explores.
//! - The cache is one entry, and never evicts it: without it the read is a miss. An entry whose lease is dead is no entry.
//! - A heartbeat is sent whenever the lane may send one, not only four times in `max-staleness`.
//! - Uncached reads and writes take no time on their way to the server, and the answers to reads none back.
//!
//! # What it knows nothing of
//! - Users and dbs (promise 4), several commands for one key, the order within a session.
//! - Slots that move one by one, so neither the check of a node's slot map nor the short memory of missing keys in a cluster;
//!   another server behind an address (`run_id`).
//! - Fences and writes whose keys are not known, SWAPDB, writes whose outcome is unknown: these are not acknowledged, so that
//!   promise 1 says nothing of them, and the server's invalidation does the rest.

mod actions;
mod broken;
mod properties;
mod proxy;
mod server;
pub mod state;
mod time;
mod worlds;

use stateright::{Model, Property};

pub use self::actions::Action;
pub use self::broken::Broken;
pub use self::properties::{EXPIRY, OWN_WRITES, RESURRECTION, STALENESS, VOUCHED};
use self::state::{Entry, FIRST, FOREVER, Lane, Phase, Proxy, Server, State, VERSIONS, Writing};

/// How large the world is.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// One or two.
    pub proxies: usize,
    /// In ticks.
    pub max_staleness: u8,
    /// Versions of the key that somebody may be given, or be told of, at once: at most [`VERSIONS`].
    pub versions: u8,
    /// How long a version lives that is written with a time to live; `None`: none is, and fetches ask for none.
    pub life: Option<u8>,
    /// Clients write through the proxies.
    pub has_writes_through: bool,
    /// Fetches under way at once: one or two.
    pub fills: usize,
    /// Readers join fetches.
    pub has_followers: bool,
    /// Heartbeats under way at once, for a lane.
    pub beats: usize,
    /// Connections are cut.
    pub has_cuts: bool,
    /// The server forgets who has read the key, and tells them that it has changed.
    pub has_evictions: bool,
    /// There is FLUSHALL.
    pub has_flushes: bool,
    /// The replica may be promoted.
    pub has_failover: bool,
    /// Servers send reads that they do not serve to who does. Else it is Sentinels that tell a proxy who is elected.
    pub is_cluster: bool,
}

/// The protocol, whole or without one of its rules.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// How large the world is.
    pub bounds: Bounds,
    /// The rule that is left out.
    pub broken: Option<Broken>,
}

impl Protocol {
    /// Whether this rule is left out.
    fn lacks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let server = |is_primary| Server { holds: 0, is_primary, has_noticed: false };
        let connected = Lane { phase: Phase::Up, is_tracking: true, ..Lane::default() };
        let proxy = Proxy {
            topology: FIRST,
            is_retiring: false,
            lanes: [connected, Lane::default()],
            entry: None::<Entry>,
            fills: [None, None],
            writing: Writing::Nothing,
            acknowledged: 0,
            ages: [0; 2 * VERSIONS],
        };
        vec![State {
            servers: [server(true), server(false)],
            proxies: (0..self.bounds.proxies).map(|_| proxy.clone()).collect(),
            elected: FIRST,
            written: 1,
            life: [FOREVER; VERSIONS],
            forked: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.offer(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.take(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.all_properties()
    }
}
