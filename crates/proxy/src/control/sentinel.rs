//! Watches what Sentinels call the primary, and publishes a new topology when that is another server.
//!
//! They are asked twice in the time that a lease lasts, and at once when somebody has reason to doubt (a lost connection, a server that
//! is no primary any more), though not without a pause, which grows while nothing turns out to have changed; more often while
//! the primary does not answer. Their `+switch-master` is not waited for: a question that is asked anyway tells the same, a
//! message can be missed, and what was fetched from the old primary is served no longer than a lease in either case.
//!
//! A server is believed to be the primary when Sentinels say so (`topology/monitored.rs` decides between them), and it says so.

use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::Time;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::clients::Clients;
use super::health::LastPing;
use super::seldom::Seldom;
use super::upstream::UpstreamError;
use crate::config::{Sentinels, UpstreamAddress};
use crate::net::clock;
use crate::shared::Shared;
use crate::topology::Topology;
use crate::topology::monitored::{Claim, Monitored};

/// Between two rounds of questions at least. It doubles while they are doubted for nothing, up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two rounds while the primary does not answer, or none is known.
const TROUBLED_PAUSE: Duration = Duration::from_millis(200);
/// Readiness holds for a while after the primary's last answer: between two rounds that are far apart it is asked as well.
const PING_EVERY: Duration = Duration::from_secs(1);
/// What no Sentinel has said for so long it says no more; or for so many rounds.
const GONE_AFTER: Duration = Duration::from_secs(3);
const GONE_AFTER_ROUNDS: u32 = 3;

/// What was asked, and what came of it.
enum Answer {
    /// Which server is the primary, by one of the Sentinels, asked at this time.
    Sentinel(usize, Time, Result<Claim, UpstreamError>),
    /// Whether the server that they speak of says so itself.
    Role(Claim, Result<bool, UpstreamError>),
    /// Whether the primary answers.
    Ping(UpstreamAddress, Result<(), UpstreamError>),
}

/// Watches until the end.
pub(super) async fn watch(
    shared: Arc<Shared>,
    sentinels: Sentinels,
    clients: Arc<Clients>,
    pings: watch::Sender<LastPing>,
) {
    let every = shared.config.topology_interval();
    let count = sentinels.addresses.len();
    let mut watcher = Watcher {
        monitored: Monitored::new(count, GONE_AFTER.max(every * GONE_AFTER_ROUNDS)),
        every,
        pause: PAUSE,
        at_sentinels: Clients::of_sentinels(Arc::clone(&shared), &sentinels),
        asked: vec![false; count],
        checked: false,
        pinged: false,
        sentinels,
        shared,
        clients,
        pings,
        answers: JoinSet::new(),
        in_trouble: true,
        published: 0,
        trouble: Seldom::default(),
    };
    watcher.run().await;
}

struct Watcher {
    shared: Arc<Shared>,
    sentinels: Sentinels,
    /// Of the Sentinels.
    at_sentinels: Clients,
    /// Of the servers.
    clients: Arc<Clients>,
    pings: watch::Sender<LastPing>,
    monitored: Monitored,
    /// Between two rounds, if nobody doubts and the primary answers.
    every: Duration,
    /// Between two rounds at least.
    pause: Duration,
    /// By Sentinel: it owes an answer, and is not asked again before it has come, or its time is up.
    asked: Vec<bool>,
    /// A server that is to be the primary is being asked whether it is.
    checked: bool,
    /// The primary owes an answer.
    pinged: bool,
    answers: JoinSet<Answer>,
    /// The primary did not answer, none is known, or the next one is not ready.
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
                    () = sleep(PING_EVERY) => self.ping(),
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

    fn ask_round(&mut self) {
        self.in_trouble = self.monitored.address().is_none();
        for sentinel in 0..self.sentinels.addresses.len() {
            if std::mem::replace(&mut self.asked[sentinel], true) {
                continue;
            }
            let client = self.at_sentinels.at(&self.sentinels.addresses[sentinel]);
            let name = self.sentinels.name.clone();
            let asked_at = clock::now();
            self.answers.spawn(async move { Answer::Sentinel(sentinel, asked_at, client.monitored(&name).await) });
        }
        self.ping();
    }

    fn ping(&mut self) {
        let Some(address) = self.monitored.address().cloned() else { return };
        if !std::mem::replace(&mut self.pinged, true) {
            let client = self.clients.at(&address);
            self.answers.spawn(async move { Answer::Ping(address, client.ping().await) });
        }
    }

    fn take_in(&mut self, answer: Answer) {
        match answer {
            Answer::Sentinel(sentinel, asked_at, claim) => {
                self.asked[sentinel] = false;
                match claim {
                    Ok(claim) => self.monitored.said(sentinel, claim, asked_at, clock::now()),
                    Err(error) => self.is_silent(sentinel, error),
                }
                self.consider();
            }
            Answer::Role(claim, is_primary) => {
                self.checked = false;
                self.has_said_its_role(claim, is_primary);
            }
            Answer::Ping(address, outcome) => {
                self.pinged = false;
                if self.monitored.address() == Some(&address) {
                    self.in_trouble |= outcome.is_err();
                    let outcome = outcome.map_or_else(LastPing::Failed, |()| LastPing::Answered(Instant::now()));
                    self.pings.send_replace(outcome);
                }
            }
        }
    }

    fn is_silent(&mut self, sentinel: usize, error: UpstreamError) {
        self.monitored.silent(sentinel);
        if self.trouble.is_due() {
            let (address, name) = (&self.sentinels.addresses[sentinel], &self.sentinels.name);
            tracing::warn!("Sentinel {address} does not say where {name} is: {error}");
        }
        if self.monitored.address().is_none() {
            self.pings.send_replace(LastPing::Failed(error));
        }
    }

    /// Goes by what the Sentinels say, as far as it is news; another server is asked first.
    fn consider(&mut self) {
        let Some(candidate) = self.monitored.candidate(clock::now()).cloned() else {
            if let Some(since) = self.monitored.confirmed() {
                self.shared.confirmed.send_replace(since);
            }
            return;
        };
        if self.monitored.address() == Some(&candidate.address) {
            return self.monitored.believe(candidate, clock::now());
        }
        if !std::mem::replace(&mut self.checked, true) {
            let client = self.clients.at(&candidate.address);
            self.answers.spawn(async move { Answer::Role(candidate, client.is_primary().await) });
        }
    }

    fn has_said_its_role(&mut self, claim: Claim, is_primary: Result<bool, UpstreamError>) {
        if self.monitored.candidate(clock::now()) != Some(&claim) {
            return self.consider(); // the Sentinels speak of another one by now
        }
        let why_not = match is_primary {
            Ok(true) => return self.publish(claim),
            Ok(false) => UpstreamError::Failed("it is no primary yet".to_owned()),
            Err(error) => error,
        };
        self.in_trouble = true; // it is asked again with the next round
        if self.trouble.is_due() {
            tracing::warn!("{} is to be the primary, but is not ready: {why_not}", claim.address);
        }
        if self.monitored.address().is_none() {
            self.pings.send_replace(LastPing::Failed(why_not));
        }
    }

    fn publish(&mut self, claim: Claim) {
        let Some(node) = self.shared.nodes.at(&claim.address) else { return };
        self.published += 1;
        self.pause = PAUSE;
        tracing::info!("{} is the primary, since epoch {}", claim.address, claim.epoch);
        self.shared.publish(Topology::primary(self.published, Some(node)));
        self.clients.keep(|address| *address == claim.address);
        self.monitored.believe(claim, clock::now());
        self.pings.send_replace(LastPing::Answered(Instant::now())); // it has just said what it is
        self.consider();
    }
}
