//! `/metrics`: the counters of all threads added up, in the text format of Prometheus (OpenMetrics). The format is
//! `prometheus-client`'s, which this module alone knows.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::health::Health;
use crate::metrics::{CutOff, LATENCY_BUCKETS, Refusal, Route, WorkerMetrics};
use crate::net::clock;
use crate::shared::Shared;

/// What `/metrics` answers.
#[derive(Debug)]
pub(super) struct Exposition {
    registry: Registry,
}

impl Exposition {
    pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    pub(super) fn new(shared: Arc<Shared>, health: Health) -> Self {
        let start = SystemTime::now() - (clock::now() - shared.started);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Snapshot { shared, health, start }));
        Exposition { registry }
    }

    /// As of now.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(32 * 1024);
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}

/// Reads the counters when it is asked to encode them. Each is exact; taken one after the other, they may differ by what
/// happened in between.
#[derive(Debug)]
struct Snapshot {
    shared: Arc<Shared>,
    health: Health,
    start: SystemTime,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        self.encode_commands(&mut out)?;
        self.encode_cache(&mut out)?;
        self.encode_upstream(&mut out)?;
        self.encode_clients(&mut out)?;
        self.encode_process(&mut out)
    }
}

impl Snapshot {
    fn sum(&self, counter: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.shared.metrics.iter().map(|worker| counter(worker)).sum()
    }

    fn encode_commands(&self, out: &mut Families<'_>) -> fmt::Result {
        let commands =
            Route::ALL.map(|route| (route.label(), self.sum(|worker| worker.commands[route as usize].get())));
        out.counters(
            "nearside_commands",
            "Commands answered, by what became of them; of an MGET of cached keys, each key",
            "route",
            &commands,
        )?;
        self.encode_durations(out)?;
        let overloads = self.sum(|worker| worker.overloads.get());
        out.counter("nearside_overloads", "Commands answered -OVERLOAD, as all buffers together were full", overloads)
    }

    fn encode_durations(&self, out: &mut Families<'_>) -> fmt::Result {
        let help = "Time from the read of a command to its reply being ready for the socket";
        let mut family = out.family("nearside_command_duration_seconds", help, MetricType::Histogram)?;
        for route in Route::ALL {
            let mut counts = [0; LATENCY_BUCKETS];
            let latencies = self.shared.metrics.iter().map(|worker| &worker.latency[route as usize]);
            let sum_ns: u64 = latencies.map(|latency| latency.collect(&mut counts)).sum();
            let sum = Duration::from_nanos(sum_ns).as_secs_f64();
            let labels = [("route", route.label())];
            let mut histogram = family.encode_family(&labels)?;
            histogram.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets(counts), None)?;
        }
        Ok(())
    }

    fn encode_cache(&self, out: &mut Families<'_>) -> fmt::Result {
        let hits = self.sum(|worker| worker.commands[Route::Hit as usize].get());
        out.counter("nearside_cache_hits", "Reads answered from the near-cache", hits)?;
        let misses = self.sum(WorkerMetrics::cache_misses);
        out.counter("nearside_cache_misses", "Reads that the near-cache could have answered, but did not", misses)?;
        let cache = self.shared.cache.as_ref();
        let capacity = self.shared.config.cache_size.unwrap_or(0);
        out.gauge("nearside_cache_capacity_bytes", "The setting cache-size; 0: off", capacity)?;
        let bytes = cache.map_or(0, |cache| cache.bytes());
        out.gauge("nearside_cache_bytes", "Memory that the entries of the near-cache take", bytes)?;
        let entries = cache.map_or(0, |cache| cache.entries());
        out.gauge("nearside_cache_entries", "Keys in the near-cache, those among them that expired lately", entries)?;
        let stats = cache.map(|cache| cache.stats()).unwrap_or_default();
        out.counter("nearside_cache_stored", "Answers stored in the near-cache", stats.stored)?;
        let help = "Answers not stored, as the key may have changed meanwhile or the connection was lost";
        out.counter("nearside_cache_store_refused", help, stats.refused)?;
        let help = "Keys that an invalidation or a write removed from the near-cache";
        out.counter("nearside_cache_removed", help, stats.removed)?;
        let invalidations = self.sum(|worker| worker.invalidations.get());
        let help = "Keys that the upstream named in invalidations; a flush counts as one";
        out.counter("nearside_invalidations", help, invalidations)?;
        let touched = self.sum(|worker| worker.keys_touched.get());
        let help = "Keys read from the near-cache that the upstream was told are in use, as it evicts others first";
        out.counter("nearside_keys_touched", help, touched)?;
        self.encode_lag(out)?;
        let fences = self.sum(|worker| worker.fences.get());
        let help = "Replies held back until the upstream had named the keys that their commands had changed";
        out.counter("nearside_fences", help, fences)?;
        let lapsed = self.sum(|worker| worker.leases_lapsed.get());
        out.counter("nearside_leases_lapsed", "Times that a lease ran out before the upstream renewed it", lapsed)
    }

    fn encode_lag(&self, out: &mut Families<'_>) -> fmt::Result {
        let help = "Time from the answer to a write through the proxy to its invalidation, of keys that were cached";
        let mut family = out.family("nearside_invalidation_lag_seconds", help, MetricType::Histogram)?;
        let mut counts = [0; LATENCY_BUCKETS];
        let lags = self.shared.metrics.iter().map(|worker| &worker.invalidation_lag);
        let sum = Duration::from_nanos(lags.map(|lag| lag.collect(&mut counts)).sum()).as_secs_f64();
        family.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets(counts), None)
    }

    fn encode_upstream(&self, out: &mut Families<'_>) -> fmt::Result {
        let totals: Vec<_> =
            self.shared.nodes.all().iter().map(|node| (node.address().to_string(), node.totals())).collect();
        let commands: Vec<_> = totals.iter().map(|(node, (commands, _))| (node.as_str(), *commands)).collect();
        out.counters("nearside_upstream_commands", "Commands sent upstream, heartbeats included", "node", &commands)?;
        let errors: Vec<_> = totals.iter().map(|(node, (_, errors))| (node.as_str(), *errors)).collect();
        out.counters("nearside_upstream_errors", "Upstream connections lost or not made", "node", &errors)?;
        let users = &self.shared.users;
        out.gauge(
            "nearside_upstream_users",
            "Users of the upstream's ACL that clients are logged in as",
            users.in_use(),
        )?;
        let logins = [("let-in", users.let_in.get()), ("refused", users.refused.get()), ("failed", users.failed.get())];
        out.counters("nearside_logins", "Logins as users of the upstream's ACL, by what it said", "verdict", &logins)?;
        let topology = self.shared.topology.load();
        out.gauge(
            "nearside_upstream_nodes",
            "Primaries upstream; 1 before a standalone server",
            topology.nodes().len(),
        )?;
        if topology.is_cluster() {
            let help = "Slots that a primary is known to serve, of 16384";
            out.gauge("nearside_cluster_slots_served", help, topology.slots_served())?;
        }
        let help = "Whether /readyz says so: the upstream answers and no shutdown has begun";
        out.gauge("nearside_ready", help, u64::from(self.health.check().is_ok()))?;
        let draining = self.shared.draining.load(Relaxed);
        out.gauge("nearside_draining", "Whether a shutdown has begun", u64::from(draining))
    }

    fn encode_clients(&self, out: &mut Families<'_>) -> fmt::Result {
        let now: usize = self.shared.clients.iter().map(|count| count.load(Relaxed)).sum();
        out.gauge("nearside_connections", "Clients connected now", now)?;
        let max = self.shared.max_clients.load(Relaxed);
        out.gauge("nearside_max_connections", "Clients allowed: max-clients, or what the file limit allows", max)?;
        // In this order: a total below the number now would puzzle. (`connections` would be one family with the gauge.)
        let total = self.sum(|worker| worker.connections.get());
        out.counter("nearside_connections_accepted", "Clients that have connected", total)?;
        let refused = Refusal::ALL.map(|why| (why.label(), self.shared.acceptor.refused[why as usize].get()));
        out.counters("nearside_connections_refused", "Clients not let in", "reason", &refused)?;
        let cut_off = CutOff::ALL.map(|why| (why.label(), self.sum(|worker| worker.cut_off[why as usize].get())));
        out.counters("nearside_clients_cut_off", "Clients disconnected by the proxy", "reason", &cut_off)?;
        let buffers = self.shared.buffers.load(Relaxed);
        out.gauge("nearside_buffer_bytes", "Memory of all clients' buffers", buffers)?;
        out.gauge("nearside_buffer_limit_bytes", "The setting buffer-memory", self.shared.config.buffer_memory)
    }

    fn encode_process(&self, out: &mut Families<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.family("nearside_build", "The version that runs", MetricType::Info)?.encode_info(&version)?;
        out.gauge("nearside_workers", "Threads that serve clients", self.shared.config.workers)?;
        let start = self.start.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        out.gauge("process_start_time_seconds", "When the process began, in seconds since 1970", start)?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        out.counter("process_cpu_seconds", "CPU time that the process has used", cpu)?;
        if let Some(bytes) = resident_memory() {
            out.gauge("process_resident_memory_bytes", "Memory of the process", bytes)?;
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            out.gauge("process_open_fds", "Open files, connections included", files.count())?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            out.gauge("process_max_fds", "The limit of open files", limit)?;
        }
        Ok(())
    }
}

/// Counts with the upper bounds of their buckets, in seconds.
fn buckets(counts: [u64; LATENCY_BUCKETS]) -> [(f64, u64); LATENCY_BUCKETS] {
    std::array::from_fn(|bucket| {
        let bound = if bucket == LATENCY_BUCKETS - 1 { f64::INFINITY } else { (1u64 << bucket) as f64 / 1e6 };
        (bound, counts[bucket])
    })
}

/// proc(5); elsewhere than on Linux there is no such file.
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Writes families of metrics. A counter's name gets its `_total` from the encoder.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn family<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.family(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// One for each value of a label.
    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        for (of, value) in values {
            let labels = [(label, *of)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;
    use crate::control::fixture;

    /// What is told of what `count` has counted.
    fn told(flags: &[&str], count: impl FnOnce(&Shared)) -> String {
        let (shared, _) = fixture::shared(flags);
        count(&shared);
        let (health, _) = Health::new(Arc::clone(&shared));
        Exposition::new(shared, health).text()
    }

    fn assert_has_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|told| told == *line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_counters_of_all_workers_are_added_up() {
        let text = told(&["--workers", "2", "--upstream", "redis://h:7"], |shared| {
            for worker in &shared.metrics {
                worker.served(Route::Hit, 1500, 3);
                worker.served(Route::Fetch, 20_000, 2);
                worker.bypasses.add(1);
                worker.invalidations.add(5);
                worker.leases_lapsed.add(6);
                worker.overloads.add(7);
                worker.connections.add(8);
                worker.cut_off(CutOff::TornReply);
            }
            for worker in 0..2 {
                shared.topology.load().nodes()[0].counters(worker).commands.add(10);
                shared.topology.load().nodes()[0].counters(worker).errors.add(4);
            }
            shared.clients[1].store(9, Relaxed);
            shared.buffers.store(1000, Relaxed);
            shared.acceptor.refused(Refusal::MaxClients);
        });
        assert_has_lines(
            &text,
            &[
                "nearside_commands_total{route=\"hit\"} 6",
                "nearside_commands_total{route=\"own\"} 0",
                "nearside_cache_hits_total 6",
                "nearside_cache_misses_total 6",
                "nearside_cache_bytes 0",
                "nearside_cache_entries 0",
                "nearside_upstream_commands_total{node=\"h:7\"} 20",
                "nearside_upstream_errors_total{node=\"h:7\"} 8",
                "nearside_invalidations_total 10",
                "nearside_leases_lapsed_total 12",
                "nearside_overloads_total 14",
                "nearside_connections 9",
                "nearside_connections_accepted_total 16",
                "nearside_connections_refused_total{reason=\"max-clients\"} 1",
                "nearside_clients_cut_off_total{reason=\"torn-reply\"} 2",
                "nearside_buffer_bytes 1000",
                "nearside_draining 0",
                "nearside_ready 0",
                concat!("nearside_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            ],
        );
    }

    #[test]
    fn buckets_count_all_that_took_no_longer_than_their_bound() {
        let text = told(&["--workers", "1"], |shared| {
            shared.metrics[0].served(Route::Own, 900, 1); // below 1 µs
            shared.metrics[0].served(Route::Own, 1_500, 2); // below 2 µs
            shared.metrics[0].served(Route::Own, 60_000_000_000, 4); // a minute
        });
        let bucket = |bound: &str, count: u64| {
            format!("nearside_command_duration_seconds_bucket{{le=\"{bound}\",route=\"own\"}} {count}")
        };
        // The largest bound is 2^22 µs.
        let buckets = [bucket("0.000001", 1), bucket("0.000002", 3), bucket("4.194304", 3), bucket("+Inf", 7)];
        assert_has_lines(&text, &buckets.each_ref().map(String::as_str));
        assert_has_lines(
            &text,
            &[
                "nearside_command_duration_seconds_count{route=\"own\"} 7",
                "nearside_command_duration_seconds_sum{route=\"own\"} 240.0000039",
            ],
        );
    }

    #[test]
    fn every_family_is_described_once_and_ends_in_what_it_is() {
        let text = told(&[], |_| {});
        let mut families = HashSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, _) = line.split_once(' ').unwrap();
            assert!(families.insert(name), "{name} twice");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is not explained");
        }
        assert!(families.len() > 25);
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_tells_what_it_takes_of_the_machine() {
        let text = told(&[], |_| {});
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
            line.trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(value("process_cpu_seconds_total ") > 0.0);
        assert!(value("process_open_fds ") >= 3.0);
        let since = UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - value("process_start_time_seconds ");
        assert!((-1.0..60.0).contains(&since), "{since}");
    }
}
