//! Replies: the scanner finds their ends, however they are nested and however they arrive.

#![allow(clippy::unwrap_used)]

use nearside_resp::{ReplyError, ReplyKind, ReplyScanner, Scanned, frame};
use proptest::collection::vec;
use proptest::prelude::*;

/// The length of the one reply at the start of `bytes` and its kind, if it is complete.
fn scan(bytes: &[u8]) -> Option<(usize, ReplyKind)> {
    let mut scanner = ReplyScanner::new();
    let Scanned { consumed, complete } = scanner.scan(bytes).unwrap();
    complete.then(|| (consumed, scanner.kind().unwrap()))
}

fn error(bytes: &[u8]) -> ReplyError {
    let whole = ReplyScanner::new().scan(bytes).unwrap_err();
    let mut scanner = ReplyScanner::new();
    let bytewise = bytes.chunks(1).find_map(|byte| scanner.scan(byte).err());
    assert_eq!(bytewise, Some(whole), "{}", bytes.escape_ascii());
    whole
}

#[test]
fn every_type_has_its_kind_and_its_end() {
    for (bytes, kind) in [
        (&b"+OK\r\n"[..], ReplyKind::Simple),
        (b"+\r\n", ReplyKind::Simple),
        (b"+a\rb\nc\r\r\n", ReplyKind::Simple),
        (b"-ERR \xff no\r\n", ReplyKind::Error),
        (b":-12\r\n", ReplyKind::Integer),
        (b":12\r\n", ReplyKind::Integer),
        (b"$0\r\n\r\n", ReplyKind::Bulk),
        (b"$7\r\n\r\n$9\r\n\r\r\n", ReplyKind::Bulk),
        (b"$12\r\nabcdefghijkl\r\n", ReplyKind::Bulk),
        (b"$-1\r\n", ReplyKind::Null),
        (b"*-1\r\n", ReplyKind::Null),
        (b"_\r\n", ReplyKind::Null),
        (b"*0\r\n", ReplyKind::Array),
        (b"*3\r\n:1\r\n*2\r\n+a\r\n*0\r\n$1\r\nx\r\n", ReplyKind::Array),
        (b",3.5e-7\r\n", ReplyKind::Double),
        (b"#t\r\n", ReplyKind::Boolean),
        (b"(-12345678901234567890\r\n", ReplyKind::BigNumber),
        (b"!5\r\nERR x\r\n", ReplyKind::BlobError),
        (b"=7\r\ntxt:abc\r\n", ReplyKind::Verbatim),
        (b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n", ReplyKind::Map),
        (b"~2\r\n+a\r\n+b\r\n", ReplyKind::Set),
        (b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n", ReplyKind::Push),
        (b"|0\r\n_\r\n", ReplyKind::Null),
        (b"|1\r\n+ttl\r\n:5\r\n$1\r\nx\r\n", ReplyKind::Bulk),
        (b"|1\r\n|1\r\n+a\r\n+b\r\n+c\r\n%0\r\n|0\r\n>0\r\n", ReplyKind::Push),
        (b"*1\r\n|1\r\n+a\r\n+b\r\n:1\r\n", ReplyKind::Array),
    ] {
        let mut stream = bytes.to_vec();
        stream.extend_from_slice(b":1\r\n");
        assert_eq!(scan(&stream), Some((bytes.len(), kind)), "{}", bytes.escape_ascii());
        for cut in 0..bytes.len() {
            assert_eq!(scan(&bytes[..cut]), None, "{} cut at {cut}", bytes.escape_ascii());
        }
    }
}

#[test]
fn what_is_no_reply_is_an_error() {
    for (bytes, expected) in [
        (&b"PONG\r\n"[..], ReplyError::UnknownType(b'P')),
        (b"\r\n", ReplyError::UnknownType(b'\r')),
        (b"*1\r\n\0", ReplyError::UnknownType(0)),
        (b"$\r\n", ReplyError::BadLength(b'$')),
        (b"$-\r\n", ReplyError::BadLength(b'$')),
        (b"$-2\r\n", ReplyError::BadLength(b'$')),
        (b"$-11\r\n", ReplyError::BadLength(b'$')),
        (b"$+1\r\n", ReplyError::BadLength(b'$')),
        (b"$01\r\nx\r\n", ReplyError::BadLength(b'$')),
        (b"$1 \r\n", ReplyError::BadLength(b'$')),
        (b"$1\n", ReplyError::BadLength(b'$')),
        (b"$1\rx", ReplyError::BadLength(b'$')),
        (b"%-1\r\n", ReplyError::BadLength(b'%')),
        (b"|-1\r\n", ReplyError::BadLength(b'|')),
        (b"=-1\r\n", ReplyError::BadLength(b'=')),
        (b"$?\r\n", ReplyError::Streamed(b'$')),
        (b"*?\r\n", ReplyError::Streamed(b'*')),
        (b"$1\r\nxy\r\n", ReplyError::UnterminatedBulk),
        (b"$1\r\nx\ry", ReplyError::UnterminatedBulk),
        (b"$0\r\n\n", ReplyError::UnterminatedBulk),
        (b"$4611686018427387904\r\n", ReplyError::LengthOutOfRange(b'$')),
        (b"$18446744073709551620\r\n", ReplyError::LengthOutOfRange(b'$')),
        (b"$99999999999999999999999999\r\n", ReplyError::LengthOutOfRange(b'$')),
        (b"%4611686018427387904\r\n", ReplyError::LengthOutOfRange(b'%')),
    ] {
        assert_eq!(error(bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn lengths_are_counted_up_to_half_of_64_bits_and_elements_up_to_all_of_them() {
    let mut scanner = ReplyScanner::new();
    let header = b"$4611686018427387903\r\n";
    assert_eq!(scanner.scan(header), Ok(Scanned { consumed: header.len(), complete: false }));
    assert_eq!(scanner.scan(&[b'x'; 100]), Ok(Scanned { consumed: 100, complete: false }));

    let map = &b"%4611686018427387903\r\n"[..];
    assert_eq!(scan(map), None);
    assert_eq!(error(&map.repeat(3)), ReplyError::LengthOutOfRange(b'%'));
    let array = &b"*4611686018427387903\r\n"[..];
    assert_eq!(scan(&array.repeat(4)), None);
    assert_eq!(error(&array.repeat(5)), ReplyError::LengthOutOfRange(b'*'));
    // A short header, on the quick path, is counted as carefully.
    let brim = [&array.repeat(4), &b"*999999999\r\n"[..]].concat();
    assert_eq!(error(&brim), ReplyError::LengthOutOfRange(b'*'));
}

#[test]
fn nesting_has_no_limit_and_no_cost() {
    let mut bytes = b"*1\r\n".repeat(1_000_000);
    assert_eq!(scan(&bytes), None);
    bytes.extend_from_slice(b":1\r\n");
    assert_eq!(scan(&bytes), Some((bytes.len(), ReplyKind::Array)));
}

#[test]
fn the_kind_is_known_as_soon_as_the_header_and_until_the_next_scan() {
    let mut scanner = ReplyScanner::new();
    assert_eq!(scanner.kind(), None);
    for (bytes, kind) in [
        (&b"|1\r\n+a\r\n"[..], None),
        (b":1\r\n", None),
        (b">2\r", None),
        (b"\n", Some(ReplyKind::Push)),
        (b"+message\r\n+x\r\n", Some(ReplyKind::Push)),
    ] {
        scanner.scan(bytes).unwrap();
        assert_eq!(scanner.kind(), kind, "{}", bytes.escape_ascii());
    }
    assert_eq!(scanner.scan(b"+OK\r\n:1\r\n"), Ok(Scanned { consumed: 5, complete: true }));
    assert_eq!(scanner.kind(), Some(ReplyKind::Simple));
    assert_eq!(scanner.scan(b""), Ok(Scanned { consumed: 0, complete: false }));
    assert_eq!(scanner.kind(), None);
}

/// One reply and its outermost kind.
#[derive(Clone, Debug)]
struct Reply {
    bytes: Vec<u8>,
    kind: ReplyKind,
}

fn line(type_byte: u8, text: &[u8], kind: ReplyKind) -> Reply {
    Reply { bytes: [&[type_byte], text, b"\r\n"].concat(), kind }
}

fn blob(type_byte: u8, content: &[u8], kind: ReplyKind) -> Reply {
    let header = format!("{}{}\r\n", char::from(type_byte), content.len());
    Reply { bytes: [header.as_bytes(), content, b"\r\n"].concat(), kind }
}

fn aggregate(type_byte: u8, children: &[Reply], kind: ReplyKind) -> Reply {
    let len = if matches!(type_byte, b'%' | b'|') { children.len() / 2 } else { children.len() };
    let mut bytes = format!("{}{len}\r\n", char::from(type_byte)).into_bytes();
    children.iter().for_each(|child| bytes.extend_from_slice(&child.bytes));
    Reply { bytes, kind }
}

/// Values without others inside. Text without CRLF; numbers that read as such.
fn scalar() -> impl Strategy<Value = Reply> {
    let text = || vec(any::<u8>().prop_filter("a line", |byte| *byte != b'\n'), 0..12);
    let content = || vec(any::<u8>(), 0..120);
    prop_oneof![
        2 => text().prop_map(|text| line(b'+', &text, ReplyKind::Simple)),
        1 => Just(line(b'+', b"OK", ReplyKind::Simple)),
        1 => "[A-Z]{3,5} [a-z ]{0,20}".prop_map(|text| line(b'-', text.as_bytes(), ReplyKind::Error)),
        2 => any::<i64>().prop_map(|number| line(b':', number.to_string().as_bytes(), ReplyKind::Integer)),
        1 => any::<f64>().prop_map(|number| line(b',', number.to_string().as_bytes(), ReplyKind::Double)),
        1 => any::<bool>().prop_map(|truth| line(b'#', if truth { b"t" } else { b"f" }, ReplyKind::Boolean)),
        1 => any::<u128>().prop_map(|number| line(b'(', number.to_string().as_bytes(), ReplyKind::BigNumber)),
        1 => Just(line(b'_', b"", ReplyKind::Null)),
        4 => content().prop_map(|content| blob(b'$', &content, ReplyKind::Bulk)),
        1 => content().prop_map(|content| blob(b'!', &content, ReplyKind::BlobError)),
        1 => content().prop_map(|text| blob(b'=', &[b"txt:", text.as_slice()].concat(), ReplyKind::Verbatim)),
    ]
}

/// What `redis-protocol` can hash, so take for the key of a map or the member of a set.
fn key() -> impl Strategy<Value = Reply> {
    vec(any::<u8>(), 0..6).prop_map(|content| blob(b'$', &content, ReplyKind::Bulk))
}

fn reply() -> impl Strategy<Value = Reply> {
    scalar().prop_recursive(5, 40, 5, |value| {
        let pairs = |value: BoxedStrategy<Reply>| {
            vec((key(), value), 0..4).prop_map(|pairs| pairs.into_iter().flat_map(<[Reply; 2]>::from).collect())
        };
        let value = value.boxed();
        prop_oneof![
            3 => vec(value.clone(), 0..5).prop_map(|items| aggregate(b'*', &items, ReplyKind::Array)),
            1 => vec(value.clone(), 0..5).prop_map(|items| aggregate(b'>', &items, ReplyKind::Push)),
            1 => vec(key(), 0..5).prop_map(|items| aggregate(b'~', &items, ReplyKind::Set)),
            2 => pairs(value.clone()).prop_map(|items: Vec<Reply>| aggregate(b'%', &items, ReplyKind::Map)),
            1 => (pairs(value.clone()), value).prop_map(|(items, reply): (Vec<Reply>, Reply)| {
                // Two in a row, or one before a null, are right but more than `redis-protocol` knows.
                if reply.bytes[0] == b'|' || reply.kind == ReplyKind::Null {
                    return reply;
                }
                let attribute = aggregate(b'|', &items, reply.kind);
                Reply { bytes: [attribute.bytes, reply.bytes].concat(), kind: reply.kind }
            }),
        ]
    })
}

/// Replies of RESP2, the nulls that only it has among them.
fn resp2_reply() -> impl Strategy<Value = Reply> {
    let null = prop::sample::select(vec![&b"$-1\r\n"[..], b"*-1\r\n"]);
    let scalar = prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(|content| blob(b'$', &content, ReplyKind::Bulk)),
        any::<i64>().prop_map(|number| line(b':', number.to_string().as_bytes(), ReplyKind::Integer)),
        Just(line(b'+', b"QUEUED", ReplyKind::Simple)),
        null.prop_map(|bytes| Reply { bytes: bytes.to_vec(), kind: ReplyKind::Null }),
    ];
    scalar
        .prop_recursive(5, 40, 6, |value| vec(value, 0..6).prop_map(|items| aggregate(b'*', &items, ReplyKind::Array)))
}

proptest! {
    #[test]
    fn a_reply_ends_where_it_ends(reply in reply(), behind in vec(any::<u8>(), 0..8)) {
        let stream = [reply.bytes.as_slice(), &behind].concat();
        prop_assert_eq!(scan(&stream), Some((reply.bytes.len(), reply.kind)));
    }

    #[test]
    fn split_at_every_byte_gives_the_same_end(reply in prop_oneof![reply(), resp2_reply()]) {
        let len = reply.bytes.len();
        for cut in 0..len {
            let mut scanner = ReplyScanner::new();
            prop_assert_eq!(scanner.scan(&reply.bytes[..cut]), Ok(Scanned { consumed: cut, complete: false }));
            let rest = [&reply.bytes[cut..], b"+next\r\n"].concat();
            prop_assert_eq!(scanner.scan(&rest), Ok(Scanned { consumed: len - cut, complete: true }), "cut at {}", cut);
            prop_assert_eq!(scanner.kind(), Some(reply.kind));
        }
        let mut scanner = ReplyScanner::new();
        for (at, byte) in reply.bytes.iter().enumerate() {
            let expected = Scanned { consumed: 1, complete: at + 1 == len };
            prop_assert_eq!(scanner.scan(&[*byte]), Ok(expected), "byte {}", at);
        }
        prop_assert_eq!(scanner.kind(), Some(reply.kind));
    }

    #[test]
    fn one_scanner_serves_a_whole_connection(replies in vec(reply(), 1..10), piece in 1..50_usize) {
        let stream: Vec<u8> = replies.iter().flat_map(|reply| reply.bytes.clone()).collect();
        let mut scanner = ReplyScanner::new();
        let mut kinds = Vec::new();
        for mut piece in stream.chunks(piece) {
            while !piece.is_empty() {
                let scanned = scanner.scan(piece).unwrap();
                piece = &piece[scanned.consumed..];
                kinds.extend(scanned.complete.then(|| scanner.kind().unwrap()));
            }
        }
        prop_assert_eq!(kinds, replies.iter().map(|reply| reply.kind).collect::<Vec<_>>());
    }

    #[test]
    fn redis_protocol_sees_the_same_ends(reply in prop_oneof![reply(), resp2_reply()]) {
        prop_assert_eq!(frame::parse(&reply.bytes).err(), None);
        let cut = &reply.bytes[..reply.bytes.len() - 1];
        prop_assert!(frame::parse(cut).is_err());
        prop_assert_eq!(scan(cut), None);
    }
}
