//! Writes with nothing between them and the cluster, as a control: what it loses, Redis has lost.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::{RedisCluster, spread_keys};
use crate::cluster_client::ClusterClient;

/// As the clients of the proxy do, it asks a node again that does not answer.
const NODE_TIMEOUT: Duration = Duration::from_millis(500);

/// One writer for each of some slots, until [`Control::finish`].
#[derive(Debug)]
pub struct Control {
    writers: Vec<JoinHandle<Journal>>,
    stop: Arc<AtomicBool>,
}

/// What one writer was told.
#[derive(Debug)]
struct Journal {
    key: String,
    acknowledged: Vec<Acknowledged>,
}

/// A number that is in the writer's list for sure, unless Redis has lost it.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    number: u64,
    began: Instant,
    ended: Instant,
    /// When the first write after it failed, if one did before the next was acknowledged.
    failed: Option<Instant>,
    /// When the next one had been answered, if that was by another node: the one that was asked had lost the slot.
    moved: Option<Instant>,
}

/// What became of the writes.
#[derive(Clone, Debug, Default)]
pub struct ControlReport {
    /// How many were acknowledged.
    pub acknowledged: usize,
    /// How many of those are gone.
    pub lost: usize,
    /// For each key, the times of acknowledgements that were lost, or of which that cannot be told: each begins with the last
    /// write before them that was kept, and ends with the next one, or when a write failed: something happened before that.
    pub losses: Vec<Vec<Range<Instant>>>,
    /// For each key, the times between two writes that were kept, of which the second was sent on to another node. If that took
    /// over without the first one's consent, what was acknowledged in between may be lost.
    pub moves: Vec<Vec<Range<Instant>>>,
}

impl Control {
    /// Starts as many writers, spread over the slots.
    #[must_use]
    pub fn start(cluster: &RedisCluster, writers: u16) -> Self {
        Self::on_keys(cluster, spread_keys(writers, "control"), Duration::ZERO)
    }

    /// Starts a writer for each of these keys, which nobody else uses, pausing so long between two writes.
    #[must_use]
    pub fn on_keys(cluster: &RedisCluster, keys: Vec<String>, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |key: String| {
            let (stop, client) = (Arc::clone(&stop), cluster.client().with_node_timeout(NODE_TIMEOUT));
            std::thread::spawn(move || write(key, client, pause, &stop))
        };
        let writers = keys.into_iter().map(start).collect();
        Self { writers, stop }
    }

    /// Ends it, and tells what is gone.
    ///
    /// # Panics
    /// When a writer did.
    #[must_use]
    pub fn finish(self, client: &mut ClusterClient) -> ControlReport {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = ControlReport::default();
        for writer in self.writers {
            let journal = writer.join().expect("a writer does not panic");
            let kept = client.command(&["LRANGE", &journal.key, "0", "-1"]).elements();
            let kept: HashSet<_> = kept.iter().filter_map(|number| number.bulk()).collect();
            let is_kept = |write: &Acknowledged| kept.contains(write.number.to_string().as_bytes());
            report.acknowledged += journal.acknowledged.len();
            report.lost += journal.acknowledged.iter().filter(|write| !is_kept(write)).count();
            report.losses.push(losses(&journal.acknowledged, is_kept));
            report
                .moves
                .push(journal.acknowledged.iter().filter_map(|write| Some(write.began..write.moved?)).collect());
        }
        report
    }
}

/// See [`ControlReport::losses`].
fn losses(acknowledged: &[Acknowledged], is_kept: impl Fn(&Acknowledged) -> bool) -> Vec<Range<Instant>> {
    let of_runs = acknowledged.chunk_by(|one, next| is_kept(one) == is_kept(next));
    let mut at = 0;
    let mut losses: Vec<_> = acknowledged.iter().filter_map(|write| Some(write.began..write.failed?)).collect();
    for run in of_runs {
        let (first, next) = (at, at + run.len());
        at = next;
        if !is_kept(&run[0]) {
            let from = first.checked_sub(1).map_or(run[0].began, |before| acknowledged[before].began);
            let until = acknowledged.get(next).map_or(run[run.len() - 1].ended, |after| after.ended);
            losses.push(from..until);
        }
    }
    losses
}

fn write(key: String, mut client: ClusterClient, pause: Duration, stop: &AtomicBool) -> Journal {
    let mut journal = Journal { key, acknowledged: Vec::new() };
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(pause);
        let (began, moved) = (Instant::now(), client.moved());
        let reply = client.try_command(&["RPUSH", &journal.key, &number.to_string()]);
        let ended = Instant::now();
        let is_acknowledged = reply.is_ok_and(|reply| reply.integer().is_some());
        if let Some(last) = journal.acknowledged.last_mut() {
            if client.moved() > moved {
                last.moved.get_or_insert(ended);
            }
            if !is_acknowledged {
                last.failed.get_or_insert(ended);
            }
        }
        if is_acknowledged {
            journal.acknowledged.push(Acknowledged { number, began, ended, failed: None, moved: None });
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    journal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_reaches_from_the_last_write_before_it_that_was_kept_to_the_next_one() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let write = |number| Acknowledged {
            number,
            began: at(10 * number),
            ended: at(10 * number + 5),
            failed: None,
            moved: None,
        };
        let mut all: Vec<_> = (0..10).map(write).collect();
        let lost = |all: &[Acknowledged], lost: &'static [u64]| losses(all, move |write| !lost.contains(&write.number));
        assert_eq!(lost(&all, &[]), []);
        assert_eq!(lost(&all, &[3, 4]), [at(20)..at(55)]);
        assert_eq!(lost(&all, &[0, 9]), [at(0)..at(15), at(80)..at(95)]);
        all[6].failed = Some(at(68));
        assert_eq!(lost(&all, &[]), [at(60)..at(68)], "the next writes failed: what came between may be lost");
    }
}
