//! RESP3 replies as a server would have sent them in RESP2.
//!
//! What the versions differ in is decided type by type, so that a reply is rewritten in one pass, header by header. Where a
//! command differs by more than its types, the caller says how.

use crate::decimal;

/// How a command's reply differs between the versions beyond its types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// Null is a null array in RESP2, not a null bulk string.
    NullArray,
    /// An array of pairs is a flat array in RESP2.
    FlatPairs,
}

/// Appends `reply`, one whole reply in RESP3, as RESP2 has it. Attributes are left out of RESP2 by servers, and must not be in
/// it.
pub fn append(out: &mut Vec<u8>, reply: &[u8], difference: Difference) {
    let mut rest = reply;
    if difference == Difference::FlatPairs
        && let Some((pairs, after)) = flat_pairs(reply)
    {
        header(out, b'*', pairs * 2);
        rest = after;
    }
    let is_flat = rest.len() < reply.len();
    while let Some((kind, line, after)) = next_line(rest) {
        rest = after;
        match kind {
            b'_' if difference == Difference::NullArray => out.extend_from_slice(b"*-1\r\n"),
            b'_' => out.extend_from_slice(b"$-1\r\n"),
            b'#' => out.extend_from_slice(if line == b"t" { b":1\r\n" } else { b":0\r\n" }),
            b',' | b'(' => bulk(out, line),
            b'*' if is_flat => {}
            b'~' => header(out, b'*', number(line)),
            b'%' => header(out, b'*', number(line) * 2),
            b'$' | b'=' => {
                let (text, after) = rest.split_at_checked(number(line)).unwrap_or((rest, b""));
                // Behind the three letters of a verbatim string's format there is a colon.
                bulk(out, if kind == b'=' { text.get(4..).unwrap_or_default() } else { text });
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(kind);
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// The number of pairs that an array consists of, and what follows its header.
fn flat_pairs(reply: &[u8]) -> Option<(usize, &[u8])> {
    let (kind, line, after) = next_line(reply)?;
    (kind == b'*' && after.starts_with(b"*2\r\n")).then(|| (number(line), after))
}

/// The type of what comes next, the rest of its line, and what follows.
fn next_line(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let end = memchr::memchr(b'\r', rest)?;
    Some((*kind, &rest[..end], rest.get(end + 2..)?))
}

fn number(digits: &[u8]) -> usize {
    decimal::parse(digits).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

fn header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    out.extend_from_slice(count.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, text: &[u8]) {
    crate::encode::bulk(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(reply: &str, difference: Difference) -> String {
        let mut out = Vec::new();
        append(&mut out, reply.as_bytes(), difference);
        String::from_utf8(out).expect("tests speak ASCII")
    }

    #[test]
    fn each_type_has_its_form() {
        let cases = [
            ("_\r\n", "$-1\r\n"),
            ("#t\r\n", ":1\r\n"),
            ("#f\r\n", ":0\r\n"),
            (",1.5\r\n", "$3\r\n1.5\r\n"),
            (",-inf\r\n", "$4\r\n-inf\r\n"),
            ("(12345678901234567890\r\n", "$20\r\n12345678901234567890\r\n"),
            ("=8\r\ntxt:a\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            ("$4\r\n%1\r\n\r\n", "$4\r\n%1\r\n\r\n"),
            ("$0\r\n\r\n", "$0\r\n\r\n"),
            ("%2\r\n$1\r\na\r\n:1\r\n+b\r\n_\r\n", "*4\r\n$1\r\na\r\n:1\r\n+b\r\n$-1\r\n"),
            ("~3\r\n$1\r\na\r\n*1\r\n,1\r\n:-2\r\n", "*3\r\n$1\r\na\r\n*1\r\n$1\r\n1\r\n:-2\r\n"),
            ("*0\r\n", "*0\r\n"),
            ("-ERR no\r\n", "-ERR no\r\n"),
        ];
        for (reply, expected) in cases {
            assert_eq!(converted(reply, Difference::None), expected);
        }
    }

    #[test]
    fn what_a_command_differs_in_is_told() {
        assert_eq!(converted("_\r\n", Difference::NullArray), "*-1\r\n");
        assert_eq!(
            converted("*2\r\n_\r\n*2\r\n,1\r\n,2\r\n", Difference::NullArray),
            "*2\r\n*-1\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
        );
        let pairs = "*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2.5\r\n";
        assert_eq!(converted(pairs, Difference::FlatPairs), "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\n2.5\r\n");
        assert_eq!(converted("*1\r\n$1\r\na\r\n", Difference::FlatPairs), "*1\r\n$1\r\na\r\n");
        assert_eq!(converted("*0\r\n", Difference::FlatPairs), "*0\r\n");
    }

    #[test]
    fn bytes_that_are_no_reply_do_no_harm() {
        for bytes in ["", "$", "$9\r\nab", "*2\r\n$1", "%x\r\n", "=2\r\nab\r\n", "$99999999999999999999\r\n"] {
            for difference in [Difference::None, Difference::NullArray, Difference::FlatPairs] {
                converted(bytes, difference);
            }
        }
    }
}
