//! Writes with nothing between them and the cluster, as a control: what it loses, Redis has lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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
    acknowledged: Vec<u64>,
}

impl Control {
    /// Starts as many writers, spread over the slots.
    #[must_use]
    pub fn start(cluster: &RedisCluster, writers: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |key: String| {
            let (stop, client) = (Arc::clone(&stop), cluster.client().with_node_timeout(NODE_TIMEOUT));
            std::thread::spawn(move || write(key, client, &stop))
        };
        let writers = spread_keys(writers, "control").into_iter().map(start).collect();
        Self { writers, stop }
    }

    /// Ends it, and tells how many writes were acknowledged, and how many of those are gone.
    ///
    /// # Panics
    /// When a writer did.
    #[must_use]
    pub fn finish(self, client: &mut ClusterClient) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut lost) = (0, 0);
        for writer in self.writers {
            let journal = writer.join().expect("a writer does not panic");
            let kept = client.command(&["LRANGE", &journal.key, "0", "-1"]).elements();
            let kept: HashSet<_> = kept.iter().filter_map(|number| number.bulk()).collect();
            let is_lost = |number: &&u64| !kept.contains(number.to_string().as_bytes());
            acknowledged += journal.acknowledged.len();
            lost += journal.acknowledged.iter().filter(is_lost).count();
        }
        (acknowledged, lost)
    }
}

fn write(key: String, mut client: ClusterClient, stop: &AtomicBool) -> Journal {
    let mut journal = Journal { key, acknowledged: Vec::new() };
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match client.try_command(&["RPUSH", &journal.key, &number.to_string()]) {
            Ok(reply) if reply.integer().is_some() => journal.acknowledged.push(number),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    journal
}
