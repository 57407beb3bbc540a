//! What the proxy says itself: byte for byte in both versions of the protocol, and read back by `redis-protocol`.

#![allow(clippy::unwrap_used)]

use nearside_resp::Protocol::{self, Resp2, Resp3};
use nearside_resp::encode;
use nearside_resp::frame::{self, Value};
use proptest::prelude::*;

fn bytes(append: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before ".to_vec();
    append(&mut out);
    String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
}

#[test]
fn what_both_versions_share() {
    assert_eq!(bytes(|out| encode::simple(out, b"OK")), "+OK\r\n");
    assert_eq!(bytes(|out| encode::error(out, b"ERR no")), "-ERR no\r\n");
    assert_eq!(bytes(|out| encode::integer(out, -42)), ":-42\r\n");
    assert_eq!(bytes(|out| encode::bulk(out, b"")), "$0\r\n\r\n");
    assert_eq!(bytes(|out| encode::bulk(out, b"a\r\nb")), "$4\r\na\r\nb\r\n");
    assert_eq!(bytes(|out| encode::array_header(out, 1234)), "*1234\r\n");
    assert_eq!(bytes(|out| encode::command(out, &[b"GET", b"k"])), "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
}

#[test]
fn a_line_stays_one_line() {
    assert_eq!(bytes(|out| encode::error(out, b"ERR a\r\nb\nc")), "-ERR a  b c\r\n");
    assert_eq!(bytes(|out| encode::simple(out, b"\r\n")), "+  \r\n");
}

#[test]
fn what_resp3_has_types_for() {
    type Append = fn(&mut Vec<u8>, Protocol);
    let table: [(Append, &str, &str); 13] = [
        (encode::null, "$-1\r\n", "_\r\n"),
        (encode::null_array, "*-1\r\n", "_\r\n"),
        (|out, protocol| encode::map_header(out, protocol, 2), "*4\r\n", "%2\r\n"),
        (|out, protocol| encode::set_header(out, protocol, 2), "*2\r\n", "~2\r\n"),
        (|out, protocol| encode::push_header(out, protocol, 2), "*2\r\n", ">2\r\n"),
        (|out, protocol| encode::verbatim_text(out, protocol, b"a b"), "$3\r\na b\r\n", "=7\r\ntxt:a b\r\n"),
        (|out, protocol| encode::boolean(out, protocol, true), ":1\r\n", "#t\r\n"),
        (|out, protocol| encode::boolean(out, protocol, false), ":0\r\n", "#f\r\n"),
        (|out, protocol| encode::double(out, protocol, 0.0), "$1\r\n0\r\n", ",0\r\n"),
        (|out, protocol| encode::double(out, protocol, -0.0), "$2\r\n-0\r\n", ",-0\r\n"),
        (|out, protocol| encode::double(out, protocol, 0.1), "$3\r\n0.1\r\n", ",0.1\r\n"),
        (|out, protocol| encode::double(out, protocol, -1e300), "$6\r\n-1e300\r\n", ",-1e300\r\n"),
        (|out, protocol| encode::double(out, protocol, f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
    ];
    for (append, resp2, resp3) in table {
        assert_eq!(bytes(|out| append(out, Resp2)), resp2);
        assert_eq!(bytes(|out| append(out, Resp3)), resp3);
    }
    assert_eq!(bytes(|out| encode::double(out, Resp3, f64::NAN)), ",nan\r\n");
}

#[test]
fn replies_become_values() {
    let value = |bytes: &[u8]| frame::parse(bytes).unwrap();
    assert_eq!(value(b"-ERR \xff\r\n"), Value::Error(b"ERR \xff".to_vec()));
    assert_eq!(value(b"*2\r\n$-1\r\n*-1\r\n"), Value::Array(vec![Value::Null, Value::Null]));
    assert_eq!(value(b"=7\r\ntxt:a\r\n\r\n").as_bytes(), Some(&b"a\r\n"[..]));
    let push = value(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    assert_eq!(
        push,
        Value::Push(vec![Value::Bulk(b"invalidate".to_vec()), Value::Array(vec![Value::Bulk(b"k".to_vec())])])
    );
    assert_eq!(value(b"|1\r\n+a\r\n+b\r\n:7\r\n").as_integer(), Some(7));
    for wrong in [&b""[..], b":1", b":1\r\n:2\r\n", b"$?\r\n", b"PONG\r\n", b"HELLO 3\r\n"] {
        assert!(frame::parse(wrong).is_err(), "{}", wrong.escape_ascii());
    }
}

#[test]
fn a_field_is_found_in_either_version_of_a_map() {
    let resp3 = frame::parse(b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:9\r\n").unwrap();
    let resp2 = frame::parse(b"*4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:9\r\n").unwrap();
    assert_eq!(resp3.field(b"proto").and_then(Value::as_integer), Some(3));
    assert_eq!(resp2.field(b"proto").and_then(Value::as_integer), Some(2));
    assert_eq!(resp2.field(b"id").and_then(Value::as_integer), Some(9));
    assert_eq!(resp3.field(b"mode"), None);
}

#[test]
fn deep_nesting_is_refused_and_not_recursed_into() {
    let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    assert!(frame::parse(&nested(frame::MAX_DEPTH)).is_ok());
    assert!(frame::parse(&nested(frame::MAX_DEPTH + 1)).is_err());
    assert!(frame::parse(&nested(1_000_000)).is_err());
    // Also where the nesting is in a map's value, in an attribute, or behind one.
    let steps = [(&b"%1\r\n+k\r\n"[..], 0), (b"|1\r\n+k\r\n", 1), (b"*2\r\n|0\r\n:1\r\n", 0)];
    for (step, behind) in steps {
        let nested = |depth| [step.repeat(depth), b":1\r\n".to_vec(), b":2\r\n".repeat(behind * depth)].concat();
        assert!(frame::parse(&nested(10)).is_ok(), "{}", step.escape_ascii());
        assert!(frame::parse(&nested(100)).is_err(), "{}", step.escape_ascii());
    }
    let wide = [b"*1000\r\n".to_vec(), b"*1\r\n:1\r\n".repeat(1000)].concat();
    assert!(frame::parse(&wide).is_ok());
}

#[test]
fn a_hash_tag_decides_the_slot() {
    assert_eq!(frame::key_slot(b"123456789"), 12739);
    assert_eq!(frame::key_slot(b"{user1000}.following"), frame::key_slot(b"user1000"));
    assert_eq!(frame::key_slot(b"foo{}{bar}"), 8363);
}

proptest! {
    #[test]
    fn a_double_reads_back_as_the_same_number(number in any::<f64>()) {
        prop_assume!(!number.is_nan());
        let mut out = Vec::new();
        encode::double(&mut out, Resp3, number);
        prop_assert!(out.len() < 32);
        let Ok(Value::Double(read)) = frame::parse(&out) else { panic!("{}", out.escape_ascii()) };
        prop_assert_eq!(read.to_bits(), number.to_bits());
    }

    #[test]
    fn an_integer_reads_back_as_the_same_number(number in any::<i64>()) {
        let mut out = Vec::new();
        encode::integer(&mut out, number);
        prop_assert_eq!(frame::parse(&out), Ok(Value::Integer(number)));
    }
}
