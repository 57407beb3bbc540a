//! What is counted. Every worker counts for itself, with plain loads and stores; the admin port adds up when asked.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Number of buckets of a latency histogram: powers of two from 1 µs to about 4 s, and one for all above.
pub(crate) const LATENCY_BUCKETS: usize = 24;

/// A counter that one thread adds to and any thread reads. No read-modify-write instruction: one writer needs none.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`; only from the thread that owns the counter.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// The sum so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What became of a command, as `nearside_commands_total{route}` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Answered from the near-cache.
    Hit,
    /// Fetched by a loader lane, for this client or another that asked first.
    Fetch,
    /// Sent upstream as it came.
    Forward,
    /// Answered by the proxy itself.
    Own,
    /// Refused by the proxy.
    Refused,
}

impl Route {
    /// All of them, in the order of their counters.
    pub(crate) const ALL: [Route; 5] = [Route::Hit, Route::Fetch, Route::Forward, Route::Own, Route::Refused];

    /// The label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Route::Hit => "hit",
            Route::Fetch => "fetch",
            Route::Forward => "forward",
            Route::Own => "own",
            Route::Refused => "refused",
        }
    }
}

/// Why a client was cut off, as `nearside_clients_cut_off_total{reason}` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutOff {
    /// Its unread replies passed the hard or the soft limit.
    Output,
    /// Its unparsed request passed the limit.
    QueryBuffer,
    /// It broke the protocol.
    Protocol,
    /// It was silent for longer than `idle-timeout`.
    Idle,
    /// `CLIENT KILL`.
    Killed,
    /// A reply that had begun could not be finished: the upstream was lost in the middle.
    TornReply,
    /// All buffers together were full.
    Overload,
    /// The drain timeout ran out.
    Drain,
    /// The upstream connection that it had to itself was lost, and with it what the server knew of it.
    UpstreamLost,
}

impl CutOff {
    /// All of them, in the order of their counters.
    pub(crate) const ALL: [CutOff; 9] = [
        CutOff::Output,
        CutOff::QueryBuffer,
        CutOff::Protocol,
        CutOff::Idle,
        CutOff::Killed,
        CutOff::TornReply,
        CutOff::Overload,
        CutOff::Drain,
        CutOff::UpstreamLost,
    ];

    /// The label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            CutOff::Output => "output",
            CutOff::QueryBuffer => "query-buffer",
            CutOff::Protocol => "protocol",
            CutOff::Idle => "idle",
            CutOff::Killed => "killed",
            CutOff::TornReply => "torn-reply",
            CutOff::Overload => "overload",
            CutOff::Drain => "drain",
            CutOff::UpstreamLost => "upstream-lost",
        }
    }
}

/// Why the acceptor did not take a connection, as `nearside_connections_refused_total{reason}` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `max-clients`, or what the file limit leaves of it.
    MaxClients,
    /// Not from this machine, and there is no password.
    ProtectedMode,
    /// The machine, or a worker, was out of something.
    System,
}

impl Refusal {
    /// All of them, in the order of their counters.
    pub(crate) const ALL: [Refusal; 3] = [Refusal::MaxClients, Refusal::ProtectedMode, Refusal::System];

    /// The label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Refusal::MaxClients => "max-clients",
            Refusal::ProtectedMode => "protected-mode",
            Refusal::System => "system",
        }
    }
}

/// Times from the read of a request to its reply being ready for the socket, in powers of two of a microsecond.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// `buckets[i]` counts times below `2^i` µs (and not below `2^(i-1)`); the last one all above.
    buckets: [Counter; LATENCY_BUCKETS],
    sum_ns: Counter,
}

impl Latency {
    /// Counts `count` commands that took `ns` nanoseconds each.
    #[inline]
    pub(crate) fn record(&self, ns: u64, count: u64) {
        let bucket = (u64::BITS - (ns / 1000).leading_zeros()) as usize;
        self.buckets[bucket.min(LATENCY_BUCKETS - 1)].add(count);
        self.sum_ns.add(ns * count);
    }

    /// Adds the buckets to `into`, and gives the sum of the times in nanoseconds.
    pub(crate) fn collect(&self, into: &mut [u64; LATENCY_BUCKETS]) -> u64 {
        for (sum, bucket) in into.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        self.sum_ns.get()
    }
}

/// In microseconds, the limit of the bucket within which this share of the times is, 0 to 1; 0 without any times.
pub(crate) fn within(buckets: &[u64; LATENCY_BUCKETS], share: f64) -> u64 {
    let all: u64 = buckets.iter().sum();
    let mut counted = 0;
    let found = buckets.iter().position(|count| {
        counted += count;
        all > 0 && counted as f64 >= all as f64 * share
    });
    found.map_or(0, |bucket| 1 << bucket)
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerMetrics {
    /// By [`Route`].
    pub(crate) commands: [Counter; Route::ALL.len()],
    /// By [`Route`].
    pub(crate) latency: [Latency; Route::ALL.len()],
    /// By [`CutOff`].
    pub(crate) cut_off: [Counter; CutOff::ALL.len()],
    /// Connections taken over from the acceptor.
    pub(crate) connections: Counter,
    /// Keys named by the upstream's invalidations; a flush counts as one.
    pub(crate) invalidations: Counter,
    /// How long after the answer to a write its invalidation came, of keys that were cached.
    pub(crate) invalidation_lag: Latency,
    /// Keys that the upstream was told are in use.
    pub(crate) keys_touched: Counter,
    /// Replies held back until the upstream had named what their commands changed.
    pub(crate) fences: Counter,
    /// Leases that ran out before a heartbeat renewed them.
    pub(crate) leases_lapsed: Counter,
    /// Commands answered `-OVERLOAD`.
    pub(crate) overloads: Counter,
    /// Reads that could have been cached and were sent upstream all the same, past the near-cache.
    pub(crate) bypasses: Counter,
}

impl WorkerMetrics {
    /// Counts `count` commands of `route` that took `ns` nanoseconds each.
    #[inline]
    pub(crate) fn served(&self, route: Route, ns: u64, count: u64) {
        self.commands[route as usize].add(count);
        self.latency[route as usize].record(ns, count);
    }

    /// Reads that the near-cache could have answered, but did not.
    pub(crate) fn cache_misses(&self) -> u64 {
        self.commands[Route::Fetch as usize].get() + self.bypasses.get()
    }

    /// Counts a client cut off.
    pub(crate) fn cut_off(&self, reason: CutOff) {
        self.cut_off[reason as usize].add(1);
    }
}

/// The counters of the acceptor, which is one thread.
#[derive(Debug, Default)]
pub(crate) struct AcceptorMetrics {
    /// By [`Refusal`].
    pub(crate) refused: [Counter; Refusal::ALL.len()],
}

impl AcceptorMetrics {
    /// Counts a connection not taken.
    pub(crate) fn refused(&self, why: Refusal) {
        self.refused[why as usize].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_within_the_limit_of_its_bucket() {
        let mut buckets = [0; LATENCY_BUCKETS];
        assert_eq!(within(&buckets, 0.5), 0);
        let lag = Latency::default();
        lag.record(300_000, 99);
        lag.record(5_000_000, 1);
        lag.collect(&mut buckets);
        assert_eq!((within(&buckets, 0.5), within(&buckets, 0.99), within(&buckets, 1.0)), (512, 512, 8192));
    }
}
