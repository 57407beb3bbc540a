//! Frees the memory of what can never be served again, now and then: expired entries, and those of dead leases. Without it
//! they would stay until something takes their place.

use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::NearCache;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::net::clock;

/// Between two sweeps.
const PAUSE: Duration = Duration::from_secs(5);

/// On a thread of its own: millions of entries take a while to look at, and connections are to be accepted meanwhile.
pub(super) async fn run(cache: Arc<NearCache>) {
    loop {
        sleep(PAUSE).await;
        let cache = Arc::clone(&cache);
        match spawn_blocking(move || cache.sweep(clock::now())).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!("swept {count} entries"),
            Err(error) => tracing::error!("a sweep of the near-cache failed: {error}"),
        }
    }
}
