//! What can be told of a string once its value is there: STRLEN, EXISTS, GETRANGE. One reply of GET in the near-cache serves them
//! all.

use nearside_resp::{Request, encode};

use super::reads::CachedRead;

/// Whether the command of this number may be told from a value.
#[inline]
pub(super) fn can_tell(command: u8) -> bool {
    matches!(CachedRead::of(command).name, "strlen" | "exists" | "getrange" | "substr")
}

/// Appends the reply to `request`, given the reply of GET for its key, in RESP3. In both versions it is the same. False: it
/// cannot be told.
pub(super) fn tell(out: &mut Vec<u8>, command: u8, request: &Request<'_>, reply: &[u8]) -> bool {
    let Some(value) = value(reply) else { return false };
    match CachedRead::of(command).name {
        "strlen" => encode::integer(out, value.map_or(0, <[u8]>::len) as i64),
        "exists" => encode::integer(out, i64::from(value.is_some())),
        "getrange" | "substr" => {
            let (Some(start), Some(end)) = (number(request.arg(2)), number(request.arg(3))) else { return false };
            encode::bulk(out, range(value.unwrap_or_default(), start, end));
        }
        _ => return false,
    }
    true
}

/// A number that is spelled as Redis wants it.
fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

/// The string in a reply of GET; `Some(None)` if there is none.
fn value(reply: &[u8]) -> Option<Option<&[u8]>> {
    if reply == b"_\r\n" {
        return Some(None);
    }
    let end = reply.iter().position(|byte| *byte == b'\n')?;
    reply.starts_with(b"$").then(|| Some(&reply[end + 1..reply.len() - 2]))
}

/// GETRANGE: both ends count, from the back if they are negative.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let len = i64::try_from(value.len()).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let from = |at: i64| if at < 0 { len.saturating_add(at).max(0) } else { at };
    let (start, end) = (from(start), from(end).min(len - 1));
    if start > end || len == 0 { b"" } else { &value[start as usize..=end as usize] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_as_redis_cuts_it() {
        let cases: [(i64, i64, &str); 14] = [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 4, ""),
            (16, 20, ""),
            (-100, 2, "Thi"),
            (-100, -100, "T"),
            (-1, -3, ""),
            (3, -100, ""),
            (0, 0, "T"),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
            (15, 15, "g"),
        ];
        for (start, end, expected) in cases {
            assert_eq!(range(b"This is a string", start, end), expected.as_bytes(), "{start} {end}");
        }
        assert_eq!(range(b"", 0, -1), b"");
        assert_eq!(range(b"", -100, -100), b"");
    }

    #[test]
    fn a_value_is_found_in_its_reply() {
        assert_eq!(value(b"_\r\n"), Some(None));
        assert_eq!(value(b"$0\r\n\r\n"), Some(Some(&b""[..])));
        assert_eq!(value(b"$3\r\na\nb\r\n"), Some(Some(&b"a\nb"[..])));
        assert_eq!(value(b"-WRONGTYPE x\r\n"), None);
    }
}
