//! What must hold for any bytes at all: properties of the codec, as fuzz targets.
//!
//! A target is given bytes by the fuzzer, and its first byte says how to deliver the others. To fuzz, the package is
//! built with the feature `libfuzzer` and the compiler's coverage instrumentation, which stable Rust has too (`make fuzz`).
//! Built as usual, each binary replays the files it is given: a crash is looked into with an ordinary build.

use nearside_resp::{Limits, ReplyError, ReplyKind, ReplyScanner, encode};
use redis_protocol::{resp2, resp3};

#[path = "../../tests/stream/mod.rs"]
mod stream;
use stream::Outcome;

/// `redis-protocol` recurses: nested deeper, it isn't asked.
const ORACLE_MAX_DEPTH: usize = 50;

/// Requests are the same however they arrive, and what would be sent on is read in one way only.
///
/// # Panics
/// If they aren't: that is the finding.
pub fn request_decode(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let limits = match mode & 1 {
        0 => Limits::authenticated(Limits::DEFAULT_MAX_BULK_LEN),
        _ => Limits::UNAUTHENTICATED,
    };
    let whole = stream::decode(bytes, &limits);
    let cuts: Vec<usize> = (0..=bytes.len()).step_by(piece_len(mode)).collect();
    assert_eq!(stream::decode_in_pieces(bytes, &cuts, &limits), whole, "in pieces");
    assert_eq!(stream::decode_when_needed(bytes, &limits), whole, "when needed");
    for outcome in whole {
        if let Outcome::Request { arguments, frame } = outcome {
            check_frame(&arguments, &frame);
        }
    }
}

fn check_frame(arguments: &[Vec<u8>], frame: &[u8]) {
    let mut encoded = Vec::new();
    encode::command(&mut encoded, &arguments.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(frame, encoded, "the frame is not the one spelling of its arguments");
    let Ok(Some((resp2::types::OwnedFrame::Array(items), len))) = resp2::decode::decode(frame) else {
        panic!("redis-protocol sees no array");
    };
    assert_eq!(len, frame.len());
    let arguments = arguments.iter().map(|argument| resp2::types::OwnedFrame::BulkString(argument.clone()));
    assert!(items.into_iter().eq(arguments), "redis-protocol sees other arguments");
}

/// Replies end at the same bytes however they arrive, and where `redis-protocol` sees them end.
///
/// # Panics
/// If they don't: that is the finding.
pub fn reply_scan(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let whole = scan(bytes, bytes.len().max(1));
    assert_eq!(scan(bytes, piece_len(mode)), whole, "in pieces");
    let mut start = 0;
    for (end, _) in &whole.replies {
        for oracle_len in oracle_lens(&bytes[start..]) {
            assert_eq!(oracle_len, end - start, "redis-protocol sees another end");
        }
        start = *end;
    }
    if whole.error.is_none() {
        assert_eq!(oracle_lens(&bytes[start..]), [], "redis-protocol sees an end");
    }
}

/// Where the replies of a stream ended, their kinds, and what ended the stream.
#[derive(Debug, PartialEq)]
struct Replies {
    replies: Vec<(usize, ReplyKind)>,
    error: Option<ReplyError>,
}

fn scan(bytes: &[u8], piece_len: usize) -> Replies {
    let mut found = Replies { replies: Vec::new(), error: None };
    let mut scanner = ReplyScanner::new();
    let mut at = 0;
    for mut piece in bytes.chunks(piece_len) {
        while !piece.is_empty() {
            match scanner.scan(piece) {
                Ok(scanned) => {
                    at += scanned.consumed;
                    piece = &piece[scanned.consumed..];
                    assert!(scanned.complete || piece.is_empty(), "stopped for no reason");
                    if scanned.complete {
                        found.replies.push((at, scanner.kind().expect("a complete reply has a kind")));
                    }
                }
                Err(error) => {
                    found.error = Some(error);
                    return found;
                }
            }
        }
    }
    found
}

/// The length of the first reply, as far as `redis-protocol` can tell: by its RESP2 and by its RESP3 decoder.
fn oracle_lens(bytes: &[u8]) -> Vec<usize> {
    let aggregates = bytes.iter().filter(|byte| b"*%~>|".contains(byte)).count();
    if aggregates > ORACLE_MAX_DEPTH {
        return Vec::new();
    }
    let resp2 = resp2::decode::decode_range(bytes).ok().flatten().map(|(_, len)| len);
    let resp3 = resp3::decode::complete::decode_range(bytes).ok().flatten().map(|(_, len)| len);
    resp2.into_iter().chain(resp3).collect()
}

fn piece_len(mode: u8) -> usize {
    usize::from(mode >> 1) + 1
}

/// Runs `target` over the content of each file named on the command line.
///
/// # Panics
/// If a file can't be read, or with what the target finds.
pub fn replay(target: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        let data = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        target(&data);
        println!("{}: ok", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = format!("{}/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).expect("the seeds are part of the package");
        let seeds: Vec<_> = files.map(|file| std::fs::read(file.expect("listed").path()).expect("readable")).collect();
        assert!(!seeds.is_empty());
        seeds
    }

    #[test]
    fn requests_hold_on_the_seeds() {
        seeds("request_decode").iter().for_each(|seed| request_decode(seed));
    }

    #[test]
    fn replies_hold_on_the_seeds() {
        seeds("reply_scan").iter().for_each(|seed| reply_scan(seed));
    }
}
