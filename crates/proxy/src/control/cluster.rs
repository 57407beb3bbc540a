//! Watches a cluster: asks its nodes who serves what, and publishes a new topology when that has changed.
//!
//! Every primary is asked as often as a lease lasts, for what it believes itself: a node that has lost a slot and knows it
//! must not vouch for what was fetched from it. They are asked at once when somebody has reason to doubt (a redirection, a
//! lost connection), though not without a pause: one question serves all who doubt. When no primary answers, all nodes
//! that were ever spoken of are asked, and the seeds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::clients::Clients;
use super::health::LastPing;
use super::seldom::Seldom;
use super::upstream::UpstreamError;
use crate::config::UpstreamAddress;
use crate::net::clock;
use crate::shared::Shared;
use crate::topology::ownership::Ownership;
use crate::topology::view::View;

/// Between two rounds of questions at least.
const PAUSE: Duration = Duration::from_millis(50);
/// Who was asked, and what it said.
type Answer = (UpstreamAddress, Result<View, UpstreamError>);

/// Watches until the end.
pub(super) async fn watch(shared: Arc<Shared>, clients: Arc<Clients>, pings: watch::Sender<LastPing>) {
    let mut watcher = Watcher {
        shared,
        clients,
        pings,
        ownership: Ownership::default(),
        asked: HashSet::new(),
        answers: JoinSet::new(),
        in_trouble: true,
        published: 0,
        trouble: Seldom::default(),
    };
    watcher.run().await;
}

struct Watcher {
    shared: Arc<Shared>,
    clients: Arc<Clients>,
    pings: watch::Sender<LastPing>,
    ownership: Ownership,
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
            self.ask();
            let asked_at = Instant::now();
            let (next, soonest) = (asked_at + self.wait(), asked_at + PAUSE);
            // The answers are taken in as they arrive: a node that is silent holds up nobody.
            loop {
                tokio::select! {
                    Some(answer) = self.answers.join_next() => {
                        if let Ok(answer) = answer {
                            self.take_in(answer);
                        }
                    }
                    () = sleep_until(next) => break,
                    () = async { sleep_until(soonest).await; shared.topology_doubted.notified().await } => break,
                }
            }
        }
    }

    /// Until the next round, if nobody doubts.
    fn wait(&self) -> Duration {
        let config = &self.shared.config;
        let every = config.topology_interval.unwrap_or(config.max_staleness);
        if self.in_trouble { every.min(PAUSE * 4) } else { every }
    }

    fn ask(&mut self) {
        let mut addresses: Vec<UpstreamAddress> = Vec::new();
        addresses.extend(self.shared.topology.load().nodes().iter().map(|node| node.address().clone()));
        if self.in_trouble {
            addresses.extend(self.ownership.addresses().cloned());
            addresses.extend_from_slice(self.shared.config.upstream.seeds());
        }
        self.in_trouble = addresses.is_empty();
        for address in addresses {
            if self.asked.insert(address.clone()) {
                let client = self.clients.at(&address);
                self.answers.spawn(async move {
                    let view = client.cluster_view(&address).await;
                    (address, view)
                });
            }
        }
    }

    fn take_in(&mut self, (address, answer): Answer) {
        self.asked.remove(&address);
        match answer {
            Ok(view) => {
                self.pings.send_replace(LastPing::Answered(Instant::now()));
                if self.ownership.take_in(&view, clock::now()) {
                    self.publish();
                }
            }
            Err(error) => {
                self.in_trouble = true;
                if self.trouble.is_due() {
                    tracing::warn!("{address} does not say who serves what in the cluster: {error}");
                }
                if self.shared.topology.load().nodes().is_empty() {
                    self.pings.send_replace(LastPing::Failed(error));
                }
            }
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        let topology = self.ownership.topology(self.published, &self.shared.nodes);
        let (nodes, slots) = (topology.nodes().len(), topology.slots_served());
        tracing::info!("the cluster has {nodes} primaries, which serve {slots} slots");
        self.shared.publish(topology);
        let seeds = self.shared.config.upstream.seeds();
        let known: HashSet<_> = self.ownership.addresses().chain(seeds).collect();
        self.clients.keep(|address| known.contains(address));
    }
}
