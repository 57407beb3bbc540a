//! INFO: the upstream's, with a section of the proxy's own. <https://redis.io/docs/latest/commands/info/>
//!
//! Whoever asks for everything, or for nothing in particular, gets the section behind the upstream's; whoever asks for it
//! alone gets it without the upstream; whoever asks for other sections gets the upstream's reply as it is.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use nearside_resp::{Protocol, encode};

use super::table::Command;
use super::{Call, Flow, forward};
use crate::metrics::{Counter, CutOff, Route, WorkerMetrics};
use crate::net::clock;
use crate::session::Session;
use crate::session::replies::Shape;
use crate::session::state::State;
use crate::shared::Shared;
use crate::worker::Worker;

pub(super) fn run(session: &Rc<Session>, state: &mut State, call: Call<'_>, command: &Command) -> Flow {
    state.count_turn(session.worker(), session.worker().now()); // the section counts what came before in the same pipeline
    match Wanted::parse(call.request.args().skip(1)) {
        Wanted::Ours => {
            let section = section(session.worker().shared());
            state.answer(|out, protocol| encode::verbatim_text(out, protocol, section.as_bytes()));
            state.turn.own += 1;
            Flow::Done
        }
        Wanted::Theirs => forward::run(session, state, call, command, Shape::Plain),
        Wanted::Both => forward::run(session, state, call, command, Shape::Info),
    }
}

/// The upstream's reply with the section added.
pub(crate) fn complete(worker: &Rc<Worker>, reply: Vec<u8>) -> Vec<u8> {
    with_section(&reply, &section(worker.shared())).unwrap_or(reply)
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

/// A text reply with `section` behind its text, after the blank line that parts sections. `None`: it is no text, but an
/// error, which has nothing to be added to.
fn with_section(reply: &[u8], section: &str) -> Option<Vec<u8>> {
    let (protocol, text) = text(reply)?;
    let gap: &[u8] = if text.is_empty() { b"" } else { b"\r\n" };
    let whole = [text, gap, section.as_bytes()].concat();
    let mut out = Vec::with_capacity(whole.len() + 32);
    encode::verbatim_text(&mut out, protocol, &whole);
    Some(out)
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
fn section(shared: &Shared) -> String {
    let sum = |counter: fn(&WorkerMetrics) -> &Counter| -> u64 {
        shared.metrics.iter().map(|metrics| counter(metrics).get()).sum()
    };
    let served =
        |route: Route| -> u64 { shared.metrics.iter().map(|metrics| metrics.commands[route as usize].get()).sum() };
    let cut_off =
        |reason: &CutOff| -> u64 { shared.metrics.iter().map(|metrics| metrics.cut_off[*reason as usize].get()).sum() };
    let cache = shared.cache.as_ref();
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
        with_section(reply.as_bytes(), "# N\r\nx:1\r\n").map(|reply| String::from_utf8_lossy(&reply).into_owned())
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
