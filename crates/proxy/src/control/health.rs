//! Readiness: whether a client that is sent here would be served. It is, as long as the upstream answers and this process
//! is not about to end. (A process that is not ready is not ill: restarting it would not bring the upstream back.)

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::upstream::{UpstreamClient, UpstreamError};
use crate::shared::Shared;

/// Between two pings.
const PING_EVERY: Duration = Duration::from_secs(1);
/// An answer older than this says nothing of now: two pings in a row are late.
const ANSWER_HOLDS: Duration = Duration::from_millis(2500);

/// What became of the last ping that has ended.
#[derive(Clone, Debug)]
pub(super) enum LastPing {
    /// None has ended yet.
    None,
    /// It was answered then.
    Answered(Instant),
    /// It was not.
    Failed(UpstreamError),
}

/// Says whether to send clients here.
#[derive(Clone, Debug)]
pub(super) struct Health {
    shared: Arc<Shared>,
    last_ping: watch::Receiver<LastPing>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReady {
    #[error("the process is shutting down")]
    Draining,
    #[error("the upstream has not answered yet")]
    NotPinged,
    #[error("the upstream does not answer")]
    Silent,
    #[error("the upstream does not answer: {0}")]
    Failed(UpstreamError),
}

impl Health {
    /// The second half is to be given to [`ping`].
    pub(super) fn new(shared: Arc<Shared>) -> (Self, watch::Sender<LastPing>) {
        let (pings, last_ping) = watch::channel(LastPing::None);
        (Health { shared, last_ping }, pings)
    }

    /// Whether it is as of now.
    pub(super) fn check(&self) -> Result<(), NotReady> {
        let draining = self.shared.draining.load(Ordering::Acquire);
        readiness(draining, &self.last_ping.borrow(), Instant::now())
    }
}

/// Pings for ever, so that the answer is there when somebody asks.
pub(super) async fn ping(upstream: Arc<UpstreamClient>, pings: watch::Sender<LastPing>) {
    let mut ticks = interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = upstream.ping().await;
        pings.send_replace(outcome.map_or_else(LastPing::Failed, |()| LastPing::Answered(Instant::now())));
    }
}

fn readiness(draining: bool, last_ping: &LastPing, now: Instant) -> Result<(), NotReady> {
    match last_ping {
        _ if draining => Err(NotReady::Draining),
        LastPing::None => Err(NotReady::NotPinged),
        LastPing::Answered(at) if now - *at > ANSWER_HOLDS => Err(NotReady::Silent),
        LastPing::Answered(_) => Ok(()),
        LastPing::Failed(error) => Err(NotReady::Failed(error.clone())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::fixture::{self, FakeUpstream, Reaction};

    #[test]
    fn it_is_ready_while_the_last_ping_was_answered_lately() {
        let (now, failed) = (Instant::now(), UpstreamError::Failed("no".to_owned()));
        let answered = LastPing::Answered(now);
        assert_eq!(readiness(false, &LastPing::None, now), Err(NotReady::NotPinged));
        assert_eq!(readiness(false, &answered, now + ANSWER_HOLDS), Ok(()));
        let late = now + ANSWER_HOLDS + Duration::from_millis(1);
        assert_eq!(readiness(false, &answered, late), Err(NotReady::Silent));
        assert_eq!(readiness(false, &LastPing::Failed(failed.clone()), now), Err(NotReady::Failed(failed)));
        assert_eq!(readiness(true, &answered, now), Err(NotReady::Draining));
    }

    #[tokio::test]
    async fn pings_follow_the_upstream_down_and_up_again() {
        let upstream = FakeUpstream::start(Reaction::polite);
        let (shared, _mailboxes) = fixture::shared(&["--upstream", &upstream.url()]);
        let client = Arc::new(fixture::client(&shared.config));
        let (health, pings) = Health::new(Arc::clone(&shared));
        assert_eq!(health.check(), Err(NotReady::NotPinged));
        let mut last_ping = health.last_ping.clone();
        let pinging = tokio::spawn(ping(client, pings));
        for silent in [false, true, false] {
            upstream.set_silent(silent);
            let limit = Duration::from_secs(20);
            let as_expected = last_ping.wait_for(|last| match last {
                LastPing::None => false,
                LastPing::Answered(_) => !silent,
                LastPing::Failed(_) => silent,
            });
            tokio::time::timeout(limit, as_expected).await.unwrap().unwrap();
            assert_eq!(health.check().is_ok(), !silent);
        }
        shared.draining.store(true, Ordering::Release);
        assert_eq!(health.check(), Err(NotReady::Draining));
        pinging.abort();
    }
}
