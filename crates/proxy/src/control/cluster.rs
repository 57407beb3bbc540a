//! Watches a cluster: asks its nodes who serves what, and publishes a new topology when that has changed.
//!
//! Every primary is asked twice in the time that a lease lasts, for what it believes itself: a node that has lost a slot and
//! knows it must not vouch for what was fetched from it. Its leases last as long after the question as after a heartbeat. The
//! primaries are asked at once when somebody has reason to doubt (a redirection, a lost connection), though not without a
//! pause, which grows while nothing turns out to have changed: one question serves all who doubt. When a primary does not
//! answer, all nodes that are spoken of are asked, and the seeds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::Time;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::clients::Clients;
use super::health::LastPing;
use super::seldom::Seldom;
use super::upstream::UpstreamError;
use crate::config::UpstreamAddress;
use crate::net::clock;
use crate::shared::Shared;
use crate::topology::Node;
use crate::topology::ownership::Ownership;
use crate::topology::view::View;

/// Between two rounds of questions at least. It doubles with every round that brings nothing new, up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two rounds while a primary does not answer, or none is known.
const TROUBLED_PAUSE: Duration = Duration::from_millis(200);
/// Readiness holds for a while after the last answer: between two rounds that are far apart a question keeps it alive.
const ANSWER_EVERY: Duration = Duration::from_secs(1);
/// How long the first clients are kept waiting.
const FIRST_TOPOLOGY_WITHIN: Duration = Duration::from_millis(500);
/// A node of which nothing was heard for so long counts as gone, or for so many rounds.
const GONE_AFTER: Duration = Duration::from_secs(3);
const GONE_AFTER_ROUNDS: u32 = 3;

/// Who was asked, when, and what it said.
type Answer = (UpstreamAddress, Time, Result<View, UpstreamError>);

/// Watches until the end.
pub(super) async fn watch(shared: Arc<Shared>, clients: Arc<Clients>, pings: watch::Sender<LastPing>) {
    let config = &shared.config;
    let every = config.topology_interval();
    let mut watcher = Watcher {
        ownership: Ownership::new(GONE_AFTER.max(every * GONE_AFTER_ROUNDS)),
        every,
        pause: PAUSE,
        shared,
        clients,
        pings,
        asked: HashSet::new(),
        answers: JoinSet::new(),
        in_trouble: true,
        published: 0,
        trouble: Seldom::default(),
    };
    watcher.run().await;
}

/// Waits until a topology is known, but not for long: a client that connects at once should find it, and one that connects
/// to a proxy whose cluster is away should hear so.
pub(super) async fn first_topology(shared: &Shared) {
    let known = async {
        while shared.topology.load().nodes().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = timeout(FIRST_TOPOLOGY_WITHIN, known).await;
}

struct Watcher {
    shared: Arc<Shared>,
    clients: Arc<Clients>,
    pings: watch::Sender<LastPing>,
    ownership: Ownership,
    /// Between two rounds, if nobody doubts and everybody answers.
    every: Duration,
    /// Between two rounds at least.
    pause: Duration,
    /// Nodes that owe an answer: they are not asked again before it has come, or its time is up.
    asked: HashSet<UpstreamAddress>,
    answers: JoinSet<Answer>,
    /// A node did not answer, or none is known: everybody is asked.
    in_trouble: bool,
    /// The version of the topology published last.
    published: u64,
    trouble: Seldom,
}

impl Watcher {
    async fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let asked_at = Instant::now();
            self.ask_round();
            // The answers are taken in as they arrive: a node that is silent holds up nobody.
            loop {
                let (soonest, next) = (asked_at + self.pause, asked_at + self.wait());
                tokio::select! {
                    Some(answer) = self.answers.join_next() => {
                        if let Ok(answer) = answer {
                            self.take_in(answer);
                        }
                    }
                    () = sleep_until(next) => {
                        if next >= soonest {
                            self.pause = PAUSE; // nobody has doubted
                        }
                        break;
                    }
                    () = sleep(ANSWER_EVERY) => self.ask_one(),
                    () = async { sleep_until(soonest).await; shared.topology_doubted.notified().await } => {
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                        break;
                    }
                }
            }
        }
    }

    /// From one round to the next, if nobody doubts.
    fn wait(&self) -> Duration {
        if self.in_trouble { self.every.min(TROUBLED_PAUSE) } else { self.every }
    }

    /// Asks every primary; and everybody else, if that is not enough.
    fn ask_round(&mut self) {
        let mut addresses = self.primaries();
        if self.in_trouble || addresses.is_empty() {
            addresses.extend(self.ownership.addresses().cloned());
            addresses.extend_from_slice(self.shared.config.upstream.seeds());
        }
        self.in_trouble = self.shared.topology.load().nodes().is_empty();
        addresses.into_iter().for_each(|address| self.ask(address));
    }

    /// Asks a primary, in the middle of a long pause.
    fn ask_one(&mut self) {
        if let Some(address) = self.primaries().into_iter().next() {
            self.ask(address);
        }
    }

    fn primaries(&self) -> Vec<UpstreamAddress> {
        self.shared.topology.load().nodes().iter().map(|node| node.address().clone()).collect()
    }

    fn ask(&mut self, address: UpstreamAddress) {
        if !self.asked.insert(address.clone()) {
            return;
        }
        let (client, asked_at) = (self.clients.at(&address), clock::now());
        self.answers.spawn(async move {
            let view = client.cluster_view(&address).await;
            (address, asked_at, view)
        });
    }

    fn take_in(&mut self, (address, asked_at, answer): Answer) {
        self.asked.remove(&address);
        match answer {
            Ok(view) => {
                self.pings.send_replace(LastPing::Answered(Instant::now()));
                let changed = self.ownership.take_in(&view, asked_at, clock::now());
                self.tell_members();
                if changed {
                    self.publish();
                }
                if self.ownership.is_owner(&view.myself) {
                    self.shared.nodes.at(&address).inspect(|node| node.has_told_slots(asked_at));
                }
            }
            Err(error) => {
                let is_primary = self.primaries().contains(&address);
                self.in_trouble |= is_primary;
                if self.trouble.is_due() {
                    tracing::warn!("{address} does not say who serves what in the cluster: {error}");
                }
                if self.shared.topology.load().nodes().is_empty() {
                    self.pings.send_replace(LastPing::Failed(error));
                }
            }
        }
    }

    /// Lets the lanes know where redirections may lead.
    fn tell_members(&self) {
        let members = self.ownership.names();
        if **self.shared.members.load() != members {
            self.shared.members.store(Arc::new(members));
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        self.pause = PAUSE;
        let topology = self.ownership.topology(self.published, &self.shared.nodes);
        let (nodes, slots) = (topology.nodes().len(), topology.slots_served());
        tracing::info!("the cluster has {nodes} primaries, which serve {slots} slots");
        self.shared.publish(topology);
        let seeds = self.shared.config.upstream.seeds();
        let known: HashSet<_> = self.ownership.addresses().chain(seeds).collect();
        self.clients.keep(|address| known.contains(address));
        self.ask_new_primaries();
    }

    /// Nothing that is fetched from them is served before they have told their slots.
    fn ask_new_primaries(&mut self) {
        let now = clock::now();
        let topology = self.shared.topology.load_full();
        let is_new = |node: &&Arc<Node>| node.told_slots() + self.every < now;
        let addresses: Vec<_> = topology.nodes().iter().filter(is_new).map(|node| node.address().clone()).collect();
        addresses.into_iter().for_each(|address| self.ask(address));
    }
}
