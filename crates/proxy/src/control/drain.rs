//! The end of a process in bounded time: what is in flight is finished, and who takes too long is cut off.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::metrics::CutOff;
use crate::shared::{Message, Shared};

/// After the drain timeout clients are cut off; this long the workers may take for that.
const CUT_OFF_TIME: Duration = Duration::from_millis(500);
/// How often the threads are looked at; they have no way to wake this one.
const LOOK: Duration = Duration::from_millis(5);

/// Tells the workers to drain, and waits until they have: for the drain timeout, and a little longer, at most.
pub(super) async fn run(shared: &Shared, workers: &[JoinHandle<()>]) {
    shared.drain();
    if timeout(shared.config.drain_timeout, finished(workers)).await.is_err() {
        cut_off(shared);
        // Whoever is left is cut off by the exit of the process.
        let _ = timeout(CUT_OFF_TIME, finished(workers)).await;
    }
    let left: usize = shared.clients.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    tracing::info!("stopped; {left} clients left");
}

async fn finished(workers: &[JoinHandle<()>]) {
    while workers.iter().any(|worker| !worker.is_finished()) {
        sleep(LOOK).await;
    }
}

fn cut_off(shared: &Shared) {
    let clients = shared.registry.all();
    tracing::warn!("{} clients were still busy after the drain timeout and are cut off", clients.len());
    for client in clients {
        let end = Message::End { session: client.id, reason: CutOff::Drain };
        let _ = shared.mailboxes[client.worker].try_send(end);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;
    use std::thread;

    use tokio::time::Instant;

    use super::*;
    use crate::control::fixture;

    #[tokio::test]
    async fn it_ends_as_soon_as_the_workers_have() {
        let (shared, mut mailboxes) = fixture::shared(&["--workers", "1", "--drain-timeout", "1h"]);
        let mut mailbox = mailboxes.remove(0);
        let worker = thread::spawn(move || assert!(matches!(mailbox.blocking_recv(), Some(Message::Drain))));
        timeout(Duration::from_secs(10), run(&shared, &[worker])).await.unwrap();
        assert!(shared.draining.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_end_is_not_waited_for_much_longer_than_the_drain_timeout() {
        let (shared, _mailboxes) = fixture::shared(&["--workers", "1", "--drain-timeout", "7s"]);
        let (end, ended) = mpsc::channel::<()>();
        let worker = thread::spawn(move || assert!(ended.recv().is_err()));
        let began = Instant::now();
        run(&shared, &[worker]).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(7) && took < Duration::from_secs(8), "{took:?}");
        drop(end);
    }
}
