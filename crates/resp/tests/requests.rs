//! Requests, byte for byte: what the decoder makes of them, however they arrive. The outcomes of malformed ones are those
//! of `redis-server` 7.0.15, asked over a socket.

#![allow(clippy::unwrap_used)]

mod stream;

use nearside_resp::{Limits, Progress, RequestDecoder, encode, frame};
use proptest::collection::vec;
use proptest::prelude::*;
use stream::{Outcome, decode, decode_in_pieces, decode_when_needed};

const LIMITS: Limits = Limits::authenticated(Limits::DEFAULT_MAX_BULK_LEN);

fn request(arguments: &[&[u8]]) -> Outcome {
    let mut frame = Vec::new();
    encode::command(&mut frame, arguments);
    Outcome::Request { arguments: arguments.iter().map(|argument| argument.to_vec()).collect(), frame }
}

fn error(reply: &[u8]) -> Outcome {
    Outcome::Error { reply: reply.to_vec() }
}

/// `malformed`, then what Redis says to it before it closes the connection.
const REFUSED: &[(&[u8], &[u8])] = &[
    (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*-0\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*01\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*+1\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"* 1\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*2147483648\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*-9223372036854775809\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*1\r\nx4\r\nPING\r\n", b"-ERR Protocol error: expected '$', got 'x'\r\n"),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n"),
    (b"*1\r\n\r\nPING\r\n", b"-ERR Protocol error: expected '$', got ' '\r\n"),
    (b"*1\r\n\nPING\r\n", b"-ERR Protocol error: expected '$', got ' '\r\n"),
    (b"*1\r\n\xffPING\r\n", b"-ERR Protocol error: expected '$', got '\xff'\r\n"),
    (b"*1\r\n\x01PING\r\n", b"-ERR Protocol error: expected '$', got '\x01'\r\n"),
    (b"*1\r\n'PING\r\n", b"-ERR Protocol error: expected '$', got '''\r\n"),
    (b"*1\r\n$-1\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*1\r\n$x\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*1\r\n$\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*1\r\n$04\r\nPING\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*1\r\n$536870913\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*1\r\n$99999999999999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"echo \"a\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"echo \"a\"b\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"echo 'a\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"echo \"a\\\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
];

#[test]
fn malformed_requests_get_the_errors_of_redis() {
    for &(malformed, reply) in REFUSED {
        assert_eq!(decode(malformed, &LIMITS), [error(reply)], "{}", malformed.escape_ascii());
    }
}

#[test]
fn the_text_of_an_error_is_its_reply_without_the_code() {
    for &(malformed, reply) in REFUSED.iter().filter(|(malformed, _)| malformed.is_ascii()) {
        let error = RequestDecoder::new().decode(malformed, &LIMITS).unwrap_err();
        let reply = str::from_utf8(reply).unwrap().strip_prefix("-ERR ").unwrap().trim_end();
        assert_eq!(error.to_string(), reply);
    }
}

#[test]
fn what_came_before_an_error_is_served() {
    assert_eq!(
        decode(b"PING\r\n*x\r\n", &LIMITS),
        [request(&[b"PING"]), error(b"-ERR Protocol error: invalid multibulk length\r\n")]
    );
}

#[test]
fn a_request_without_arguments_is_passed_over() {
    for empty in ["*0\r\n", "*-1\r\n", "*-9223372036854775808\r\n", "\r\n", "\n", "   \t\x0b\r\n"] {
        let bytes = format!("{empty}PING\r\n");
        let expected = [Outcome::Skip { len: empty.len() }, request(&[b"PING"])];
        assert_eq!(decode(bytes.as_bytes(), &LIMITS), expected, "{empty:?}");
    }
}

#[test]
fn an_argument_may_be_empty_and_hold_any_byte() {
    let every_byte: Vec<u8> = (0..=255).collect();
    let expected = request(&[b"", &every_byte, b"\r\n$1\r\n"]);
    let Outcome::Request { frame, .. } = &expected else { unreachable!() };
    assert_eq!(decode(frame, &LIMITS), std::slice::from_ref(&expected));
}

#[test]
fn line_ends_that_redis_does_not_look_at_are_put_right_before_they_go_on() {
    for loose in [&b"*1\rX$4\r\nPING\r\n"[..], b"*1\r\n$4\rXPING\r\n", b"*1\r\n$4\r\nPINGxx"] {
        assert_eq!(decode(loose, &LIMITS), [request(&[b"PING"])], "{}", loose.escape_ascii());
    }
    let loose = b"*3\r\n$3\r\nSET??$1\r\nk\r\n$3\r\na\r\n--";
    assert_eq!(decode(loose, &LIMITS), [request(&[b"SET", b"k", b"a\r\n"])]);
}

#[test]
fn the_frame_of_a_usual_request_is_the_clients_own_bytes() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    let mut decoder = RequestDecoder::new();
    assert_eq!(decoder.decode(bytes, &LIMITS), Ok(Progress::Request { len: bytes.len() }));
    let request = decoder.request(bytes);
    assert_eq!(request.frame().as_ptr(), bytes.as_ptr());
    assert_eq!((request.len(), request.arg(1), request.get(2)), (2, &b"k"[..], None));
    assert!(!request.is_inline());
}

#[test]
fn a_line_may_take_64_kib_and_not_a_byte_more() {
    const FULL: usize = 64 * 1024;
    for (start, filler, end, too_big) in [
        (&b""[..], b'x', b'\n', &b"-ERR Protocol error: too big inline request\r\n"[..]),
        (b"*", b'1', b'\r', b"-ERR Protocol error: too big mbulk count string\r\n"),
        (b"*1\r\n$", b'1', b'\r', b"-ERR Protocol error: too big bulk count string\r\n"),
    ] {
        let line_start = if start.len() > 1 { 4 } else { 0 };
        let mut bytes = start.to_vec();
        bytes.resize(line_start + FULL, filler);
        assert_eq!(decode(&bytes, &LIMITS), [Outcome::Incomplete]);
        bytes.push(filler);
        assert_eq!(decode(&bytes, &LIMITS), [error(too_big)]);
        // The same with its end in sight: Redis looks for that first, if both came in one read. Here, always an error.
        bytes.extend_from_slice(&[end, b'\n']);
        assert_eq!(decode(&bytes, &LIMITS), [error(too_big)]);
        // One byte less is judged by what it says.
        bytes.remove(line_start + 1);
        assert_ne!(decode(&bytes, &LIMITS), [error(too_big)]);
    }
}

#[test]
fn behind_a_nul_byte_no_line_ends() {
    for (bytes, too_big) in [
        (&b"PI\0NG\r\n"[..], &b"-ERR Protocol error: too big inline request\r\n"[..]),
        (b"*1\0\r\n$4\r\nPING\r\n", b"-ERR Protocol error: too big mbulk count string\r\n"),
        (b"*1\r\n\0$4\r\nPING\r\n", b"-ERR Protocol error: too big bulk count string\r\n"),
    ] {
        let mut bytes = bytes.to_vec();
        let line_start = if bytes.starts_with(b"*1\r") { 4 } else { 0 };
        let needed = line_start + 64 * 1024 + 1;
        assert_eq!(RequestDecoder::new().decode(&bytes, &LIMITS), Ok(Progress::Incomplete { needed }));
        bytes.resize(needed - 1, b'\n');
        assert_eq!(decode(&bytes, &LIMITS), [Outcome::Incomplete]);
        bytes.push(b'\n');
        assert_eq!(decode(&bytes, &LIMITS), [error(too_big)]);
    }
}

#[test]
fn the_largest_allowed_numbers_are_waited_for() {
    let mut decoder = RequestDecoder::new();
    assert_eq!(decoder.decode(b"*2147483647\r\n", &LIMITS), Ok(Progress::Incomplete { needed: 14 }));
    assert!(decoder.allocated() < 10_000, "memory must follow what arrives, not what is announced");
    let announced = b"*1\r\n$536870912\r\n";
    let needed = announced.len() + 512 * 1024 * 1024 + 2;
    assert_eq!(RequestDecoder::new().decode(announced, &LIMITS), Ok(Progress::Incomplete { needed }));
}

#[test]
fn the_limit_of_an_argument_is_the_one_configured() {
    let limits = Limits::authenticated(4);
    assert_eq!(decode(b"*1\r\n$4\r\nPING\r\n", &limits), [request(&[b"PING"])]);
    let refused = [error(b"-ERR Protocol error: invalid bulk length\r\n")];
    assert_eq!(decode(b"*1\r\n$5\r\nPINGS\r\n", &limits), refused);
    let no_limit = Limits::authenticated(usize::MAX);
    assert_eq!(decode(b"*1\r\n$9223372036854775807\r\n", &no_limit), [Outcome::Incomplete]);
}

#[test]
fn before_authentication_requests_are_small() {
    let limits = Limits::UNAUTHENTICATED;
    let unauthenticated_count = [error(b"-ERR Protocol error: unauthenticated multibulk length\r\n")];
    let unauthenticated_len = [error(b"-ERR Protocol error: unauthenticated bulk length\r\n")];
    assert_eq!(decode(b"*10\r\n", &limits), [Outcome::Incomplete]);
    assert_eq!(decode(b"*11\r\n", &limits), unauthenticated_count);
    assert_eq!(decode(b"*2147483647\r\n", &limits), unauthenticated_count);
    assert_eq!(decode(b"*2147483648\r\n", &limits), [error(b"-ERR Protocol error: invalid multibulk length\r\n")]);
    assert_eq!(decode(b"*1\r\n$16384\r\n", &limits), [Outcome::Incomplete]);
    assert_eq!(decode(b"*1\r\n$16385\r\n", &limits), unauthenticated_len);
    assert_eq!(decode(b"*1\r\n$536870913\r\n", &limits), [error(b"-ERR Protocol error: invalid bulk length\r\n")]);
    // Also where the argument has arrived already.
    let mut whole = Vec::new();
    encode::command(&mut whole, &[&[b'x'; 16385]]);
    assert_eq!(decode(&whole, &limits), unauthenticated_len);
    whole.clear();
    encode::command(&mut whole, &[&b"x"[..]; 11]);
    assert_eq!(decode(&whole, &limits), unauthenticated_count);
}

#[test]
fn limits_may_change_between_two_requests() {
    let mut bytes = Vec::new();
    encode::command(&mut bytes, &[b"AUTH", b"password"]);
    let first = bytes.len();
    encode::command(&mut bytes, &[&b"x"[..]; 11]);
    let mut decoder = RequestDecoder::new();
    assert_eq!(decoder.decode(&bytes, &Limits::UNAUTHENTICATED), Ok(Progress::Request { len: first }));
    let rest = &bytes[first..];
    assert_eq!(decoder.decode(rest, &LIMITS), Ok(Progress::Request { len: rest.len() }));
}

#[test]
fn bytes_that_were_seen_are_not_searched_again() {
    let mut decoder = RequestDecoder::new();
    assert_eq!(decoder.decode(b"PING", &LIMITS), Ok(Progress::Incomplete { needed: 5 }));
    assert_eq!(decoder.decode(b"P\nNG\r\n", &LIMITS), Ok(Progress::Request { len: 6 }));

    let seen = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\n";
    assert_eq!(decoder.decode(seen, &LIMITS), Ok(Progress::Incomplete { needed: seen.len() + 7 }));
    let mut bytes = vec![b'?'; seen.len()];
    bytes.extend_from_slice(b"value\r\n");
    assert_eq!(decoder.decode(&bytes, &LIMITS), Ok(Progress::Request { len: bytes.len() }));
    assert_eq!(decoder.request(&bytes).args().next_back(), Some(&b"value"[..]));
}

#[test]
fn a_request_leaves_nothing_behind_for_the_next() {
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    for before in [&b"*2\r\n$1\r\na\r\n$1\r\nbxx"[..], b"echo a\r\n", b"*0\r\n", b"\r\n"] {
        let mut decoder = RequestDecoder::new();
        decoder.decode(before, &LIMITS).unwrap();
        assert_eq!(decoder.decode(get, &LIMITS), Ok(Progress::Request { len: get.len() }));
        let request = decoder.request(get);
        assert_eq!(request.frame().as_ptr(), get.as_ptr());
        assert_eq!(request.args().collect::<Vec<_>>(), [&b"GET"[..], b"k"]);
        assert!(!request.is_inline());
    }
}

#[test]
fn what_clients_send_is_not_in_debug_output() {
    let line = b"AUTH secret\r\n";
    let mut decoder = RequestDecoder::new();
    decoder.decode(line, &LIMITS).unwrap();
    assert_eq!(decoder.request(line).arg(1), b"secret");
    assert_eq!(format!("{decoder:?}"), "RequestDecoder { stage: Start, at: 0, arguments: 2, .. }");
}

#[test]
fn memory_for_a_giant_request_is_given_back_with_the_next() {
    let mut giant = Vec::new();
    encode::command(&mut giant, &vec![&b"x"[..]; 100_000]);
    let mut decoder = RequestDecoder::new();
    assert_eq!(decoder.decode(&giant, &LIMITS), Ok(Progress::Request { len: giant.len() }));
    assert_eq!(decoder.request(&giant).len(), 100_000);
    assert!(decoder.allocated() > 1_000_000);

    let mut line = b"echo ".to_vec();
    line.resize(60_000, b'x');
    line.push(b'\n');
    assert_eq!(decoder.decode(&line, &LIMITS), Ok(Progress::Request { len: line.len() }));
    assert!((60_000..200_000).contains(&decoder.allocated()));

    assert_eq!(decoder.decode(b"", &LIMITS), Ok(Progress::Incomplete { needed: 1 }));
    assert!(decoder.allocated() < 5_000);
}

/// What a client may send: mostly requests, sometimes not quite.
fn client_bytes() -> impl Strategy<Value = Vec<u8>> {
    let array = vec(vec(any::<u8>(), 0..40), 1..6).prop_map(|arguments| {
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &arguments.iter().map(Vec::as_slice).collect::<Vec<_>>());
        bytes
    });
    let inline = "[ -~]{0,30}\r?\n".prop_map(String::into_bytes);
    let header = "[*$](-?[0-9]{0,3}|[0-9]{18,21})\r[\n ]".prop_map(String::into_bytes);
    let garbage = vec(any::<u8>(), 0..5);
    let part = prop_oneof![6 => array, 3 => inline, 2 => header, 1 => garbage];
    vec(part, 1..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn split_at_every_byte_gives_the_same_requests(bytes in client_bytes()) {
        for limits in [LIMITS, Limits::UNAUTHENTICATED] {
            let whole = decode(&bytes, &limits);
            for cut in 0..=bytes.len() {
                prop_assert_eq!(&decode_in_pieces(&bytes, &[cut], &limits), &whole, "cut at {}", cut);
            }
            let every: Vec<usize> = (0..=bytes.len()).collect();
            prop_assert_eq!(&decode_in_pieces(&bytes, &every, &limits), &whole, "byte by byte");
        }
    }

    #[test]
    fn waiting_until_as_much_is_there_as_needed_misses_nothing(bytes in client_bytes()) {
        prop_assert_eq!(decode_when_needed(&bytes, &LIMITS), decode(&bytes, &LIMITS));
    }

    #[test]
    fn redis_protocol_reads_the_same_arguments(bytes in client_bytes()) {
        for outcome in decode(&bytes, &LIMITS) {
            if let Outcome::Request { arguments, frame } = outcome {
                let expected = arguments.into_iter().map(frame::Value::Bulk).collect();
                prop_assert_eq!(frame::parse(&frame), Ok(frame::Value::Array(expected)));
            }
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(arguments in vec(vec(any::<u8>(), 0..200), 1..200)) {
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let expected = request(&arguments);
        let Outcome::Request { frame, .. } = &expected else { unreachable!() };
        prop_assert_eq!(decode(frame, &LIMITS), std::slice::from_ref(&expected));
    }
}
