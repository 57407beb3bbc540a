//! INFO: the upstream's, with a section of the proxy's own. <https://redis.io/docs/latest/commands/info/>
//!
//! Whoever asks for everything, or for nothing in particular, gets the section behind the upstream's; whoever asks for it
//! alone gets it without the upstream; whoever asks for other sections gets the upstream's reply as it is. Whether this is
//! a cluster they all hear as HELLO and CLUSTER tell it.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use nearside_resp::{Protocol, encode};

use super::table::Command;
use super::{Call, Flow, forward};
use crate::metrics::{self, Counter, CutOff, LATENCY_BUCKETS, Route, WorkerMetrics};
use crate::net::clock;
use crate::session::Session;
use crate::session::replies::Shape;
use crate::session::state::State;
use crate::shared::Shared;
use crate::worker::Worker;

pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    state.count_turn(session.worker(), session.worker().now()); // the section counts what came before in the same pipeline
    match Wanted::parse(call.request.args().skip(1)) {
        Wanted::Ours => {
            let section = section(session.worker().shared());
            state.answer(|out, protocol| encode::verbatim_text(out, protocol, section.as_bytes()));
            state.turn.own += 1;
            Flow::Done
        }
        Wanted::Theirs if state.topology.is_cluster() == session.worker().config().shows_cluster() => {
            forward::run(session, state, call, command, Shape::Plain)
        }
        Wanted::Theirs => forward::run(session, state, call, command, Shape::Info { ours: false }),
        Wanted::Both => forward::run(session, state, call, command, Shape::Info { ours: true }),
    }
}

/// The upstream's reply as the proxy gives it, with the section of its own where that is wanted.
pub(crate) fn complete(worker: &Rc<Worker>, reply: Vec<u8>, ours: bool) -> Vec<u8> {
    let Some((protocol, text)) = text(&reply) else { return reply }; // an error, which has nothing to be added to
    let is_cluster = worker.topology().is_cluster();
    let shows_cluster = worker.config().shows_cluster();
    let mut whole = if is_cluster == shows_cluster { text.to_vec() } else { in_mode(text, shows_cluster) };
    if ours {
        add_section(&mut whole, &section(worker.shared()));
    }
    let mut out = Vec::with_capacity(whole.len() + 32);
    encode::verbatim_text(&mut out, protocol, &whole);
    out
}

/// The text of a server that is a cluster's node, or is none, as of one that is it not, or is.
fn in_mode(text: &[u8], cluster: bool) -> Vec<u8> {
    let mode: &[u8] = if cluster { b"cluster" } else { b"standalone" };
    let enabled: &[u8] = if cluster { b"1" } else { b"0" };
    let mut out = Vec::with_capacity(text.len() + 16);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let field = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let value = match field {
            b"redis_mode" | b"server_mode" => mode, // as Redis calls it, and Valkey
            b"cluster_enabled" => enabled,
            _ => {
                out.extend_from_slice(line);
                continue;
            }
        };
        out.extend_from_slice(&[field, b":", value, b"\r\n"].concat());
    }
    out
}

/// Whose sections a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Ours,
    Theirs,
    Both,
}

impl Wanted {
    fn parse<'a>(sections: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut ours, mut theirs, mut any) = (false, false, false);
        for section in sections {
            any = true;
            match section.to_ascii_lowercase().as_slice() {
                b"nearside" => ours = true,
                b"default" | b"all" | b"everything" => (ours, theirs) = (true, true),
                _ => theirs = true,
            }
        }
        match (ours, theirs) {
            _ if !any => Wanted::Both,
            (true, false) => Wanted::Ours,
            (false, _) => Wanted::Theirs,
            (true, true) => Wanted::Both,
        }
    }
}

/// Adds `section` behind a text, after the blank line that parts sections.
fn add_section(text: &mut Vec<u8>, section: &str) {
    if !text.is_empty() {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(section.as_bytes());
}

/// The text of a bulk string, or of a verbatim string, and the protocol version that has it so.
fn text(reply: &[u8]) -> Option<(Protocol, &[u8])> {
    let line = reply.iter().position(|byte| *byte == b'\r')?;
    let length: usize = std::str::from_utf8(reply.get(1..line)?).ok()?.parse().ok()?;
    let payload = reply.get(line + 2..)?.strip_suffix(b"\r\n").filter(|payload| payload.len() == length)?;
    match reply[0] {
        b'$' => Some((Protocol::Resp2, payload)),
        b'=' => Some((Protocol::Resp3, payload.strip_prefix(b"txt:")?)),
        _ => None,
    }
}

/// `# Nearside`: numbers of the whole process, whatever worker is asked. The counts are those of `/metrics`.
pub(super) fn section(shared: &Shared) -> String {
    let sum = |counter: fn(&WorkerMetrics) -> &Counter| -> u64 {
        shared.metrics.iter().map(|metrics| counter(metrics).get()).sum()
    };
    let served =
        |route: Route| -> u64 { shared.metrics.iter().map(|metrics| metrics.commands[route as usize].get()).sum() };
    let cut_off =
        |reason: &CutOff| -> u64 { shared.metrics.iter().map(|metrics| metrics.cut_off[*reason as usize].get()).sum() };
    let cache = shared.cache.as_ref();
    let mut lags = [0; LATENCY_BUCKETS];
    shared.metrics.iter().for_each(|metrics| _ = metrics.invalidation_lag.collect(&mut lags));
    let mut section = String::from("# Nearside\r\n");
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        write!(section, "nearside_{name}:{value}\r\n").expect("a String takes everything");
    };
    field("version", &env!("CARGO_PKG_VERSION"));
    field("uptime_in_seconds", &(clock::now() - shared.started).as_secs());
    field("workers", &shared.config.workers);
    field("upstream", &shared.config.upstream);
    field("connections", &shared.registry.len());
    field("max_connections", &shared.max_clients.load(Relaxed));
    field("connections_accepted", &sum(|metrics| &metrics.connections));
    field("clients_cut_off", &CutOff::ALL.iter().map(cut_off).sum::<u64>());
    field("buffer_bytes", &shared.buffers.load(Relaxed));
    field("cache_capacity_bytes", &shared.config.cache_size.unwrap_or(0));
    field("cache_bytes", &cache.map_or(0, |cache| cache.bytes()));
    field("cache_entries", &cache.map_or(0, |cache| cache.entries()));
    field("cache_hits", &served(Route::Hit));
    field("cache_misses", &shared.metrics.iter().map(|metrics| metrics.cache_misses()).sum::<u64>());
    field("invalidations", &sum(|metrics| &metrics.invalidations));
    for (name, share) in [("invalidation_lag_p50_us", 0.5), ("invalidation_lag_p99_us", 0.99)] {
        field(name, &metrics::within(&lags, share));
    }
    field("keys_touched", &sum(|metrics| &metrics.keys_touched));
    field("leases_lapsed", &sum(|metrics| &metrics.leases_lapsed));
    for route in Route::ALL {
        field(&format!("commands_{}", route.label()), &served(route));
    }
    field("overloads", &sum(|metrics| &metrics.overloads));
    let upstream: Vec<_> = shared.nodes.all().iter().map(|node| node.totals()).collect();
    field("upstream_nodes", &shared.topology.load().nodes().len());
    field("upstream_commands", &upstream.iter().map(|(commands, _)| commands).sum::<u64>());
    field("upstream_errors", &upstream.iter().map(|(_, errors)| errors).sum::<u64>());
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(request: &str) -> Wanted {
        Wanted::parse(request.split_whitespace().skip(1).map(str::as_bytes))
    }

    #[test]
    fn the_section_is_part_of_what_is_asked_for_as_a_whole() {
        for request in ["INFO", "INFO default", "INFO ALL", "info Everything", "INFO server all", "INFO nearside cpu"] {
            assert_eq!(wanted(request), Wanted::Both, "{request}");
        }
        for request in ["INFO server", "INFO clients memory", "INFO nosuch"] {
            assert_eq!(wanted(request), Wanted::Theirs, "{request}");
        }
        for request in ["INFO nearside", "INFO NearSide NEARSIDE"] {
            assert_eq!(wanted(request), Wanted::Ours, "{request}");
        }
    }

    fn completed(reply: &str) -> Option<String> {
        let (protocol, text) = text(reply.as_bytes())?;
        let (mut whole, mut out) = (text.to_vec(), Vec::new());
        add_section(&mut whole, "# N\r\nx:1\r\n");
        encode::verbatim_text(&mut out, protocol, &whole);
        Some(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn what_mode_this_is_in_is_rewritten_and_nothing_else() {
        let standalone = "# Server\r\nredis_mode:standalone\r\nserver_mode:standalone\r\nos:redis_mode:x\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n";
        let cluster = "# Server\r\nredis_mode:cluster\r\nserver_mode:cluster\r\nos:redis_mode:x\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n";
        assert_eq!(in_mode(standalone.as_bytes(), true), cluster.as_bytes());
        assert_eq!(in_mode(cluster.as_bytes(), false), standalone.as_bytes());
    }

    #[test]
    fn the_section_follows_the_upstreams_after_a_blank_line() {
        assert_eq!(
            completed("$10\r\n# S\r\nv:7\r\n\r\n").as_deref(),
            Some("$22\r\n# S\r\nv:7\r\n\r\n# N\r\nx:1\r\n\r\n"),
            "in RESP2"
        );
        assert_eq!(
            completed("=14\r\ntxt:# S\r\nv:7\r\n\r\n").as_deref(),
            Some("=26\r\ntxt:# S\r\nv:7\r\n\r\n# N\r\nx:1\r\n\r\n"),
            "in RESP3"
        );
    }

    #[test]
    fn nothing_comes_before_the_section_of_an_upstream_that_gives_none() {
        assert_eq!(completed("$0\r\n\r\n").as_deref(), Some("$10\r\n# N\r\nx:1\r\n\r\n"));
        assert_eq!(completed("=4\r\ntxt:\r\n").as_deref(), Some("=14\r\ntxt:# N\r\nx:1\r\n\r\n"));
    }

    #[test]
    fn what_is_no_text_is_left_alone() {
        for reply in [
            "-NOPERM no\r\n",
            "-ERR $3\r\n",
            "$-1\r\n",
            "_\r\n",
            "*1\r\n$1\r\nx\r\n",
            "+OK\r\n",
            "=5\r\nmkd:x\r\n",
            "$5\r\nabc\r\n",
            "$3\r\nabc",
            "",
        ] {
            assert_eq!(completed(reply), None, "{reply:?}");
        }
    }
}
