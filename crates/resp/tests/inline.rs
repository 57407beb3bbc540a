//! Inline requests against a transcription of `sdssplitargs` (`sds.c` of Redis 7.0).

#![allow(clippy::unwrap_used)]

use nearside_resp::{Limits, Progress, ProtocolError, RequestDecoder};
use proptest::prelude::*;

/// The arguments of `line`; `None` where the quotes don't balance, an empty list where there is nothing.
fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut bytes = line.to_vec();
    bytes.push(b'\n');
    let mut decoder = RequestDecoder::new();
    match decoder.decode(&bytes, &Limits::UNAUTHENTICATED) {
        Ok(Progress::Request { len }) if len == bytes.len() => {
            let request = decoder.request(&bytes);
            assert!(request.is_inline());
            Some(request.args().map(<[u8]>::to_vec).collect())
        }
        Ok(Progress::Skip { len }) if len == bytes.len() => Some(Vec::new()),
        Err(ProtocolError::UnbalancedQuotes) => None,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// `sdssplitargs`, statement by statement. `line` ends with a NUL, as a C string.
fn sdssplitargs(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let is_space = |byte: u8| b" \t\n\x0b\x0c\r".contains(&byte);
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut p = 0;
    let mut vector = Vec::new();
    loop {
        while line[p] != 0 && is_space(line[p]) {
            p += 1;
        }
        if line[p] == 0 {
            return Some(vector);
        }
        let (mut inq, mut insq, mut done) = (false, false, false);
        let mut current = Vec::new();
        while !done {
            if inq {
                if line[p] == b'\\'
                    && line[p + 1] == b'x'
                    && let Some(high) = hex(line[p + 2])
                    && let Some(low) = hex(line[p + 3])
                {
                    current.push(u8::try_from(high * 16 + low).unwrap());
                    p += 3;
                } else if line[p] == b'\\' && line[p + 1] != 0 {
                    p += 1;
                    current.push(match line[p] {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => b'\x08',
                        b'a' => b'\x07',
                        c => c,
                    });
                } else if line[p] == b'"' {
                    if line[p + 1] != 0 && !is_space(line[p + 1]) {
                        return None;
                    }
                    done = true;
                } else if line[p] == 0 {
                    return None;
                } else {
                    current.push(line[p]);
                }
            } else if insq {
                if line[p] == b'\\' && line[p + 1] == b'\'' {
                    p += 1;
                    current.push(b'\'');
                } else if line[p] == b'\'' {
                    if line[p + 1] != 0 && !is_space(line[p + 1]) {
                        return None;
                    }
                    done = true;
                } else if line[p] == 0 {
                    return None;
                } else {
                    current.push(line[p]);
                }
            } else {
                match line[p] {
                    b' ' | b'\n' | b'\r' | b'\t' | 0 => done = true,
                    b'"' => inq = true,
                    b'\'' => insq = true,
                    c => current.push(c),
                }
            }
            if line[p] != 0 {
                p += 1;
            }
        }
        vector.push(current);
    }
}

fn arguments(expected: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    Some(expected.iter().map(|argument| argument.to_vec()).collect())
}

#[test]
fn lines_are_split_as_redis_does() {
    assert_eq!(split(b"set  k\tv\r"), arguments(&[b"set", b"k", b"v"]));
    assert_eq!(split(b"echo a\"b c\""), arguments(&[b"echo", b"ab c"]));
    assert_eq!(split(br#"echo "\x41\xzz\n\q""#), arguments(&[b"echo", b"Axzz\nq"]));
    assert_eq!(split(br"echo 'a\'b\n'"), arguments(&[b"echo", b"a'b\\n"]));
    assert_eq!(split(br"echo a\nb"), arguments(&[b"echo", b"a\\nb"]));
    assert_eq!(split(b"echo a\rb"), arguments(&[b"echo", b"a", b"b"]));
    assert_eq!(split(b"\x0becho \x0c a\x0bb"), arguments(&[b"echo", b"a\x0bb"]));
    assert_eq!(split(b"echo \"\" ''"), arguments(&[b"echo", b"", b""]));
    assert_eq!(split(b"echo \xa0\x85"), arguments(&[b"echo", b"\xa0\x85"]));
    assert_eq!(split(b"echo \"a\"b"), None);
    assert_eq!(split(b"echo 'a"), None);
    assert_eq!(split(b"echo \"a\\"), None);
}

#[test]
fn an_inline_request_goes_on_as_an_array() {
    let bytes = b"set k 'v w'\r\nGET k\r\n";
    let mut decoder = RequestDecoder::new();
    assert_eq!(decoder.decode(bytes, &Limits::UNAUTHENTICATED), Ok(Progress::Request { len: 13 }));
    assert_eq!(decoder.request(bytes).frame(), b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$3\r\nv w\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_line_is_split_as_by_sdssplitargs(
        // Dense in what matters: blanks, quotes, escapes and hex digits.
        pieces in prop::collection::vec(prop_oneof![
            6 => "[ \"'\\\\x4fFgntrba]".prop_map(String::into_bytes),
            2 => "\\\\x[0-9a-gA-G]{2}".prop_map(String::into_bytes),
            1 => "[\t\r\x0b\x0c]".prop_map(String::into_bytes),
            1 => (1..=255_u8).prop_map(|byte| vec![byte]),
        ], 0..24),
    ) {
        // A line has no line feed in it, and doesn't begin like an array; a CR before its end belongs to the end.
        let line: Vec<u8> = [b"e".to_vec(), pieces.concat()].concat().into_iter().filter(|byte| *byte != b'\n').collect();
        let mut c_string = line.strip_suffix(b"\r").unwrap_or(&line).to_vec();
        c_string.push(0);
        prop_assert_eq!(split(&line), sdssplitargs(&c_string));
    }
}
