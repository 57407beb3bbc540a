//! A run: rounds before a cluster and before a server of its own, until the time is over.

use std::time::{Duration, Instant};

use crate::faults::Fault;
use crate::history::Clock;
use crate::report::Report;
use crate::round;
use crate::world::World;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// How long to go on; the round that is under way then is finished.
    pub span: Duration,
    /// Of the order of faults and of what clients ask. (What happens at the same time is up to the machine.)
    pub seed: u64,
    /// Only this fault.
    pub fault: Option<Fault>,
    /// Only before this: `cluster`, or `server`.
    pub upstream: Option<String>,
}

/// One in so many rounds is before a server of its own: a cluster has more that can go wrong.
const SERVER_EVERY: usize = 3;

impl Run {
    /// Carries it out; `progress` is told of each round, and what has come of all until then.
    ///
    /// # Panics
    /// When there is no such upstream, or the fault cannot happen to it.
    pub fn carry_out(&self, mut progress: impl FnMut(&str, &Report)) -> Report {
        let is_wanted = |name: &str| self.upstream.as_deref().is_none_or(|upstream| upstream == name);
        let mut cluster = is_wanted("cluster").then(World::cluster);
        let mut server = is_wanted("server").then(World::server);
        let (mut of_cluster, mut of_server) = (self.deck(Fault::OF_CLUSTER), self.deck(Fault::OF_SERVER));
        let (clock, end) = (Clock::start(), Instant::now() + self.span);
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut report = Report::default();
        let mut number = 0;
        while Instant::now() < end {
            let is_server = cluster.is_none() || (server.is_some() && number % SERVER_EVERY == SERVER_EVERY - 1);
            let (world, deck) = if is_server { (&mut server, &mut of_server) } else { (&mut cluster, &mut of_cluster) };
            let world = world.as_mut().expect("an upstream is a cluster or a server");
            let outcome = round::run(world, deck.draw(&mut random), number, self.seed, clock);
            let line = report.add(world.name(), outcome);
            progress(&line, &report);
            number += 1;
        }
        report
    }

    fn deck(&self, all: &[Fault]) -> Deck {
        let is_wanted = |fault: &&Fault| self.fault.is_none_or(|only| only == **fault);
        Deck { all: all.iter().filter(is_wanted).copied().collect(), left: Vec::new() }
    }
}

/// Faults, each drawn once before any is drawn again.
struct Deck {
    all: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    fn draw(&mut self, random: &mut fastrand::Rng) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            random.shuffle(&mut self.left);
        }
        self.left.pop().expect("the fault can happen to this upstream")
    }
}
