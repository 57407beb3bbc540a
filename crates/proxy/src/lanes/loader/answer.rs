//! What is kept of what was fetched, and for how long.

use std::time::Duration;

use nearside_nearcache::{Answer, Ttl};

use crate::commands::cached::reads::{CachedRead, GET};
use crate::config::Rule;

/// Bytes that a string's reply has beside the string.
const FRAMING: usize = 32;

/// What may be stored of a reply to a read by this command, and its key's time to live, as PTTL tells it; of a missing key for
/// `longest_absence` at most.
pub(super) fn answer<'a>(
    command: u8,
    reply: &'a [u8],
    ttl: Option<i64>,
    longest_absence: Duration,
    rule: &Rule,
) -> Answer<'a> {
    if reply.starts_with(b"-") {
        return Answer::Discard;
    }
    let is_absent = tells_absence(command, reply);
    let life = match ttl {
        Some(-2) if is_absent => longest_absence,
        Some(-1) => Duration::MAX,
        Some(millis @ 1..) => Duration::from_millis(millis.unsigned_abs()),
        // It has come to be since.
        _ if is_absent => return Answer::Discard,
        // It is just expiring, or was deleted since, or the server does not say.
        _ => return Answer::Expiring,
    };
    let millis = life.min(rule.max_age).as_millis();
    let ttl = Ttl::Millis(u64::try_from(millis).unwrap_or(u64::MAX));
    if reply.len() > rule.max_item_size.saturating_add(FRAMING) {
        Answer::TooLarge { ttl }
    } else {
        Answer::Store { reply, ttl }
    }
}

/// Whether this is what a key that does not exist is answered with: nothing, none, zero, or as many of these as were asked for.
fn tells_absence(command: u8, reply: &[u8]) -> bool {
    if command == GET {
        return reply == b"_\r\n"; // an empty value is one
    }
    let is_header = |line: &[u8]| matches!(line.first(), Some(b'*' | b'%' | b'~'));
    // Elsewhere it is an element, or a value, of a key that has just expired.
    let is_part = matches!(CachedRead::of(command).name, "getrange" | "substr");
    let is_none = |line: &[u8]| match line {
        b"_" | b":0" | b"" | b"+none" => true,
        b"$0" => is_part,
        _ => is_header(line),
    };
    reply.split(|byte| *byte == b'\n').all(|line| is_none(line.strip_suffix(b"\r").unwrap_or(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::cached::reads;

    /// Any but GET.
    const OTHER: u8 = GET + 1;

    fn stores_of(command: u8, value: &[u8], ttl: Option<i64>) -> bool {
        matches!(answer(command, value, ttl, Duration::MAX, &Rule::default()), Answer::Store { .. })
    }

    fn stores(value: &[u8], ttl: Option<i64>) -> bool {
        stores_of(OTHER, value, ttl)
    }

    #[test]
    fn only_what_has_a_known_life_is_stored() {
        assert!(stores(b"$1\r\na\r\n", Some(-1)));
        assert!(stores(b"$1\r\na\r\n", Some(1)));
        assert!(stores(b"_\r\n", Some(-2)));
        assert!(!stores(b"$1\r\na\r\n", Some(0)));
        assert!(!stores(b"$1\r\na\r\n", Some(-2)), "expired in between");
        assert!(stores(b"_\r\n", Some(-1)), "a field that a hash does not have");
        assert!(stores(b"*2\r\n_\r\n_\r\n", Some(-2)) && stores(b"%0\r\n", Some(-2)) && stores(b"+none\r\n", Some(-2)));
        assert!(!stores(b"*2\r\n_\r\n$1\r\n0\r\n", Some(-2)) && !stores(b":1\r\n", Some(-2)));
        let number = |name| reads::number(name).expect("it is cached");
        assert!(stores_of(number("getrange"), b"$0\r\n\r\n", Some(-2)), "of no value no part");
        assert!(!stores_of(number("lindex"), b"$0\r\n\r\n", Some(-2)), "an empty element that has just expired");
        assert!(!stores_of(number("lrange"), b"*1\r\n$0\r\n\r\n", Some(-2)));
        assert!(!stores_of(GET, b"$0\r\n\r\n", Some(-2)), "an empty value that has just expired");
        assert!(stores_of(GET, b"_\r\n", Some(-2)));
        assert!(!stores(b"$1\r\na\r\n", None));
        assert!(!stores(b"-WRONGTYPE x\r\n", Some(-1)));
    }
}
