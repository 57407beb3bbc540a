//! What a node of a cluster answers to a command that it does not, or cannot now, carry out:
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding>.
//! From the node itself it means that the command was not executed. A script may say the same when it has done something.

use std::time::Duration;

use super::Slot;
use crate::config::UpstreamAddress;

/// Longer lines are no redirections: the longest code, a slot, a host name (RFC 1035: 255 bytes), a port.
pub(crate) const LONGEST: usize = 320;

/// How often one command is sent on before its client is told.
pub(crate) const MOST_REDIRECTIONS: u8 = 16;
/// From here on there is a pause before the next: two nodes may each believe that the other one has the slot.
pub(crate) const PAUSE_FROM: u8 = 3;
/// The first pause. It doubles up to [`LONGEST_PAUSE`]: until a client is told, some 3 s have passed.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The pause before a command is sent on that has been sent on `times` times.
pub(crate) fn pause(times: u8) -> Duration {
    (FIRST_PAUSE * 2_u32.pow(u32::from(times).min(16))).min(LONGEST_PAUSE)
}

/// An error that asks for another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// Another node serves the slot.
    Moved(Slot, UpstreamAddress),
    /// Another node has the key, in a slot that is being moved to it: ask there, this once.
    Ask(Slot, UpstreamAddress),
    /// Some of the command's keys are here and some are there: try again in a while.
    TryAgain,
    /// The slot, or the whole cluster, is not served now: the topology may have changed. The client is told.
    Down,
}

impl Redirect {
    /// Whether an error line may be one, seen its beginning.
    #[inline]
    pub(crate) fn is_likely(line: &[u8]) -> bool {
        matches!(line.get(1), Some(b'M' | b'A' | b'T' | b'C'))
    }

    /// Reads an error line, with `-` and line end, that `asked` answered.
    pub(crate) fn parse(line: &[u8], asked: &UpstreamAddress) -> Option<Redirect> {
        let line = line.strip_prefix(b"-")?.strip_suffix(b"\r\n")?;
        let line = std::str::from_utf8(line).ok()?;
        let (code, rest) = line.split_once(' ')?;
        match code {
            "MOVED" => target(rest, asked).map(|(slot, address)| Redirect::Moved(slot, address)),
            "ASK" => target(rest, asked).map(|(slot, address)| Redirect::Ask(slot, address)),
            "TRYAGAIN" => Some(Redirect::TryAgain),
            "CLUSTERDOWN" => Some(Redirect::Down),
            _ => None,
        }
    }
}

/// `3999 127.0.0.1:6381`. An IPv6 address has no brackets. No host, or `?`: the one that was asked, under another port.
fn target(text: &str, asked: &UpstreamAddress) -> Option<(Slot, UpstreamAddress)> {
    let (slot, address) = text.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    let slot = Slot::new(slot.parse().ok()?)?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((slot, UpstreamAddress::Tcp { host: host_or_that_of(host, asked)?, port }))
}

/// `host`, unless the node does not know by which name clients reach it.
pub(super) fn host_or_that_of(host: &str, asked: &UpstreamAddress) -> Option<String> {
    match (host, asked) {
        ("" | "?", UpstreamAddress::Tcp { host, .. }) => Some(host.clone()),
        ("" | "?", UpstreamAddress::Unix(_)) => None,
        _ => Some(host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tcp(host: &str, port: u16) -> UpstreamAddress {
        UpstreamAddress::Tcp { host: host.into(), port }
    }

    #[test]
    fn redirections_name_a_node_by_address_name_or_port_alone() {
        let asked = tcp("asked", 1);
        for (line, address) in [
            ("-MOVED 3999 127.0.0.1:6381\r\n", tcp("127.0.0.1", 6381)),
            ("-MOVED 3999 ::1:6381\r\n", tcp("::1", 6381)),
            ("-MOVED 3999 node-1.example:6381\r\n", tcp("node-1.example", 6381)),
            ("-MOVED 3999 :6381\r\n", tcp("asked", 6381)),
            ("-MOVED 3999 ?:6381\r\n", tcp("asked", 6381)),
        ] {
            assert_eq!(Redirect::parse(line.as_bytes(), &asked), Some(Redirect::Moved(Slot(3999), address)), "{line}");
        }
        let ask = Redirect::parse(b"-ASK 0 h:2\r\n", &asked);
        assert_eq!(ask, Some(Redirect::Ask(Slot(0), tcp("h", 2))));
    }

    #[test]
    fn other_errors_are_none() {
        for line in [
            "-MOVED\r\n",
            "-MOVED 16384 h:1\r\n",
            "-MOVED 5 h\r\n",
            "-MOVED 5 h:0\r\n",
            "-MOVED x h:1\r\n",
            "-ERR MOVED 5 h:1\r\n",
            "+MOVED 5 h:1\r\n",
            "-MOVED 5 h:1",
            "-ASKING\r\n",
        ] {
            assert_eq!(Redirect::parse(line.as_bytes(), &tcp("asked", 1)), None, "{line}");
        }
        assert_eq!(Redirect::parse(b"-MOVED 5 :1\r\n", &UpstreamAddress::Unix("/s".into())), None);
    }

    #[test]
    fn codes_without_a_node_are_understood() {
        let asked = tcp("asked", 1);
        let again = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
        assert_eq!(Redirect::parse(again, &asked), Some(Redirect::TryAgain));
        assert_eq!(Redirect::parse(b"-CLUSTERDOWN Hash slot not served\r\n", &asked), Some(Redirect::Down));
        for line in [&again[..], b"-MOVED 1 h:1\r\n", b"-ASK 1 h:1\r\n", b"-CLUSTERDOWN x\r\n"] {
            assert!(Redirect::is_likely(line));
        }
        assert!(!Redirect::is_likely(b"-ERR x\r\n") && !Redirect::is_likely(b"-WRONGTYPE x\r\n"));
    }
}
