//! Fields of a hash that expire by themselves: Redis 7.4 and later, Valkey 9.0 and later.
//!
//! The key's own time to live says nothing of theirs, and an invalidation comes only once the server has noticed. So what is
//! kept of a hash there is kept no longer than the first of the fields it shows. <https://redis.io/docs/latest/commands/hpttl/>

use nearside_resp::encode;
use nearside_resp::frame::{self, Value};

use super::version::{Valkey, Version};
use crate::commands::cached::reads::Fields;

/// Fields of a hash that are asked about: the reply for one with more is not kept.
const MOST_FIELDS: usize = 1024;
const FIRST_REDIS: Version = Version(7, 4, 0);
const FIRST_VALKEY: Version = Version(9, 0, 0);
/// What Valkey may be set to call itself in HELLO (`extended-redis-compatibility`).
const VALKEY_AS_REDIS: Version = Version(7, 2, 4);

/// Whether this server, as HELLO names it, knows such fields. Of one of which too little is known it is assumed.
pub(super) fn is_known_to(server: &[u8], version: Version, valkey: Valkey) -> bool {
    match (server, valkey) {
        (_, Valkey::Is(version)) => version >= FIRST_VALKEY,
        (b"redis", Valkey::Untold) if version == VALKEY_AS_REDIS => true,
        (b"redis", _) => version >= FIRST_REDIS,
        (b"valkey", _) => version >= FIRST_VALKEY,
        _ => true,
    }
}

/// Appends the question how long these fields live.
pub(super) fn ask<'a>(out: &mut Vec<u8>, key: &[u8], fields: impl Iterator<Item = &'a [u8]>) {
    let fields: Vec<&[u8]> = fields.collect();
    let count = fields.len().to_string();
    let mut command: Vec<&[u8]> = vec![b"HPTTL", key, b"FIELDS", count.as_bytes()];
    command.extend(fields);
    encode::command(out, &command);
}

/// Whether a reply, of which one in `step` elements is a field, has more fields than are asked about.
pub(super) fn are_too_many(reply: &[u8], step: usize) -> bool {
    let digits = reply.get(1..).unwrap_or_default();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let count = std::str::from_utf8(&digits[..end]).ok().and_then(|count| count.parse::<usize>().ok());
    let step = if reply.starts_with(b"%") { 1 } else { step };
    matches!(reply.first(), Some(b'%' | b'*' | b'~')) && count.is_some_and(|count| count / step > MOST_FIELDS)
}

/// As [`ask`], of all fields that a reply names, which is one in `step` of its elements. False: there are none, or too many.
pub(super) fn ask_all(out: &mut Vec<u8>, key: &[u8], reply: &[u8], step: usize) -> bool {
    let Ok(reply) = frame::parse(reply) else { return false };
    let fields: Vec<&[u8]> = match &reply {
        Value::Map(pairs) => pairs.iter().filter_map(|(field, _)| field.as_bytes()).collect(),
        other => other.as_items().unwrap_or_default().iter().step_by(step).filter_map(Value::as_bytes).collect(),
    };
    let asks = !fields.is_empty() && fields.len() <= MOST_FIELDS;
    if asks {
        ask(out, key, fields.into_iter());
    }
    asks
}

/// The earlier of a key's end and those that `reply` tells of its fields, each as PTTL tells it. `None`: it tells nothing, or
/// that a field is gone which `value` shows. In the last millisecond of a field servers do both (seen with Redis 8.0.2).
pub(super) fn earliest(ttl: i64, value: &[u8], reads: Fields, reply: &[u8]) -> Option<i64> {
    let (reply, value) = (frame::parse(reply).ok()?, frame::parse(value).ok()?);
    let mut earliest = ttl;
    for (number, field) in reply.as_items()?.iter().enumerate() {
        match field.as_integer()? {
            -1 => {} // it stays
            -2 if reads == Fields::Named && is_absent(&value, number) => {}
            -2 => return None,
            millis if earliest < 0 => earliest = millis,
            millis => earliest = earliest.min(millis),
        }
    }
    Some(earliest)
}

/// Whether a reply tells that the hash has no such field: the one of this number, of those that were named.
fn is_absent(value: &Value, number: usize) -> bool {
    let field = match value {
        Value::Array(fields) => fields.get(number),
        only => Some(only),
    };
    // HEXISTS and HSTRLEN tell it by a zero.
    matches!(field, Some(Value::Null | Value::Integer(0)))
}

/// Whether a reply about all fields tells that there are none.
pub(super) fn are_none(value: &[u8]) -> bool {
    matches!(value, b"%0\r\n" | b"*0\r\n" | b":0\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_is_not_by_what_it_is_called() {
        let is_known = |server: &str, version, valkey| is_known_to(server.as_bytes(), version, valkey);
        assert!(is_known("redis", Version(7, 4, 0), Valkey::No) && !is_known("redis", Version(7, 2, 4), Valkey::No));
        assert!(
            is_known("valkey", Version(9, 0, 0), Valkey::Untold)
                && !is_known("valkey", Version(8, 1, 1), Valkey::Untold)
        );
        assert!(is_known("redis", Version(7, 2, 4), Valkey::Is(Version(9, 0, 0))));
        assert!(!is_known("redis", Version(7, 2, 4), Valkey::Is(Version(8, 1, 1))));
        assert!(
            is_known("redis", Version(7, 2, 4), Valkey::Untold) && !is_known("redis", Version(7, 2, 5), Valkey::Untold)
        );
        assert!(is_known("other", Version(1, 0, 0), Valkey::No));
    }

    #[test]
    fn the_first_end_counts() {
        let all = |ttl, reply: &[u8]| earliest(ttl, b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n", Fields::InReply(2), reply);
        assert_eq!(all(-1, b"*2\r\n:-1\r\n:-1\r\n"), Some(-1));
        assert_eq!(all(-1, b"*3\r\n:-1\r\n:500\r\n:900\r\n"), Some(500));
        assert_eq!(all(300, b"*1\r\n:500\r\n"), Some(300));
        assert_eq!(all(300, b"*1\r\n:0\r\n"), Some(0));
        assert_eq!(all(-1, b"-ERR unknown command\r\n"), None);
    }

    #[test]
    fn a_field_that_is_gone_is_gone_from_the_value_too() {
        let gone = b"*2\r\n:-1\r\n:-2\r\n";
        assert_eq!(earliest(-1, b"*2\r\n$1\r\nv\r\n_\r\n", Fields::Named, gone), Some(-1));
        assert_eq!(earliest(-1, b"*2\r\n$1\r\nv\r\n$1\r\nw\r\n", Fields::Named, gone), None);
        assert_eq!(earliest(-1, b"*2\r\n$1\r\nv\r\n$1\r\nw\r\n", Fields::InReply(1), gone), None);
        for (value, expected) in [("_", Some(-2)), (":0", Some(-2)), ("$0\r\n", None), (":1", None)] {
            let value = format!("{value}\r\n");
            assert_eq!(earliest(-2, value.as_bytes(), Fields::Named, b"*1\r\n:-2\r\n"), expected, "{value}");
        }
    }

    #[test]
    fn the_fields_of_a_reply_are_asked_about() {
        let asked = |reply: &[u8], step| {
            let mut out = Vec::new();
            ask_all(&mut out, b"k", reply, step).then_some(out)
        };
        let one = b"*5\r\n$5\r\nHPTTL\r\n$1\r\nk\r\n$6\r\nFIELDS\r\n$1\r\n1\r\n$1\r\nf\r\n".to_vec();
        assert_eq!(asked(b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n", 2), Some(one.clone()));
        assert_eq!(asked(b"*1\r\n$1\r\nf\r\n", 1), Some(one));
        assert_eq!(asked(b"%0\r\n", 2), None);
    }
}
