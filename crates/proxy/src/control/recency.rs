//! The echo of recency: an upstream that evicts the keys used least, or longest ago, does not see the reads that are answered
//! here, and would evict the hottest keys first. So it is told of them, by TOUCH, a few at a time.
//!
//! Of very many hot keys some are told in each round, others in the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::NearCache;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::clients::Clients;
use crate::shared::{Message, Shared};
use crate::topology::Node;
use crate::users::User;

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(5);
/// Keys told of in a round: a thousand a second cost a server some thousandths of its time.
const MOST_KEYS: usize = 5_000;
/// Keys longer than this are not told of: what waits to be told has a bound in bytes too.
const LONGEST_KEY: usize = 512;
/// Keys given to a lane at a time, and the pause between two such batches.
const BATCH: usize = 250;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the upstream's answer holds.
const VALIDITY: Duration = Duration::from_secs(30);

type Keys = Vec<Vec<u8>>;

/// Until the end.
pub(super) async fn run(shared: Arc<Shared>, cache: Arc<NearCache>, upstream: Arc<Clients>) {
    let mut policy: Option<(bool, Instant)> = None;
    let mut sample = Sample::default();
    loop {
        sleep(PERIOD).await;
        if policy.is_none_or(|(_, asked)| asked.elapsed() >= VALIDITY) {
            policy = Some((evicts_by_use(&upstream).await, Instant::now()));
        }
        if !policy.is_some_and(|(evicts, _)| evicts) {
            continue;
        }
        let looked_at = Arc::clone(&cache);
        match spawn_blocking(move || sample.take(&looked_at)).await {
            Ok((next, keys)) => {
                sample = next;
                tell(&shared, keys).await;
            }
            Err(error) => {
                tracing::error!("the keys in use could not be collected: {error}");
                sample = Sample::default();
            }
        }
    }
}

/// Whether the upstream evicts keys, and those first that it thinks are not used. All nodes of a cluster are configured alike.
async fn evicts_by_use(upstream: &Clients) -> bool {
    let Some(client) = upstream.any() else { return false };
    client.memory().await.is_ok_and(|memory| told(&memory))
}

fn told(memory: &str) -> bool {
    let field = |name: &str| memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let by_use = field("maxmemory_policy").is_some_and(|policy| policy.ends_with("-lru") || policy.ends_with("-lfu"));
    by_use && field("maxmemory").is_some_and(|limit| limit != "0")
}

/// Which of the keys in use are told of: one in so many, others each time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    one_in: usize,
    round: usize,
}

impl Default for Sample {
    fn default() -> Self {
        Sample { one_in: 1, round: 0 }
    }
}

impl Sample {
    /// The keys, each with its db, and how to go on the next time.
    fn take(self, cache: &NearCache) -> (Self, Vec<(Vec<u8>, u16)>) {
        let (mut seen, mut keys) = (0, Vec::new());
        cache.recently_used(|key, db| {
            let is_drawn = (seen + self.round).is_multiple_of(self.one_in);
            if is_drawn && key.len() <= LONGEST_KEY && keys.len() < MOST_KEYS {
                keys.push((key.to_vec(), db));
            }
            seen += 1;
        });
        (Sample { one_in: seen.div_ceil(MOST_KEYS).max(1), round: self.round.wrapping_add(1) }, keys)
    }
}

async fn tell(shared: &Shared, keys: Vec<(Vec<u8>, u16)>) {
    for batch in keys.chunks(BATCH) {
        let topology = shared.topology.load_full();
        let mut by_lane: HashMap<(u64, u16), (Arc<Node>, Keys)> = HashMap::new();
        for (key, db) in batch {
            if let Some(node) = topology.owner(key) {
                let (_, keys) = by_lane.entry((node.id(), *db)).or_insert_with(|| (Arc::clone(node), Vec::new()));
                keys.push(key.clone());
            }
        }
        for ((_, db), (node, keys)) in by_lane {
            let worker = shared.loader_worker(&node, &User::own(), db);
            // A worker whose mailbox is full has other worries.
            let _ = shared.mailboxes[worker].try_send(Message::Touch(node, db, keys));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_evicts_by_use_is_told() {
        let memory = |limit: u32, policy: &str| {
            format!("# Memory\r\nmaxmemory:{limit}\r\nmaxmemory_human:x\r\nmaxmemory_policy:{policy}\r\n")
        };
        for policy in ["allkeys-lru", "volatile-lru", "allkeys-lfu", "volatile-lfu"] {
            assert!(told(&memory(100, policy)) && !told(&memory(0, policy)), "{policy}");
        }
        for policy in ["noeviction", "allkeys-random", "volatile-ttl"] {
            assert!(!told(&memory(100, policy)), "{policy}");
        }
        assert!(!told(""));
    }
}
