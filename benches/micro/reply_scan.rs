//! What it costs to find where a reply ends in what an upstream sent.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nearside_resp::ReplyScanner;
use nearside_resp::encode::{array_header, bulk, integer};

/// Replies in a buffer: what one read from a busy upstream brings.
const PIPELINE: u64 = 64;

fn whole_replies(criterion: &mut Criterion) {
    let replies: [(&str, Vec<u8>); 6] = [
        ("ok", b"+OK\r\n".to_vec()),
        ("integer", b":1234567\r\n".to_vec()),
        ("bulk_16b", bulks(1, 16)),
        ("bulk_16k", bulks(1, 16 << 10)),
        ("array_of_100_bulks", array(100, &bulks(100, 16))),
        ("arrays_in_array", array(10, &array(2, &scored_member()).repeat(10))),
    ];
    let mut group = criterion.benchmark_group("reply_scan");
    group.throughput(Throughput::Elements(PIPELINE));
    for (name, reply) in replies {
        let buffer = reply.repeat(usize::try_from(PIPELINE).expect("a small number"));
        let mut scanner = ReplyScanner::new();
        group.bench_with_input(BenchmarkId::from_parameter(name), &buffer, |bencher, buffer| {
            bencher.iter(|| scan_all(&mut scanner, black_box(buffer)));
        });
    }
    group.finish();
}

fn scan_all(scanner: &mut ReplyScanner, buffer: &[u8]) {
    let mut rest = buffer;
    while !rest.is_empty() {
        let scanned = scanner.scan(rest).expect("the buffer holds valid replies");
        assert!(scanned.complete, "the buffer holds whole replies");
        black_box(scanner.kind());
        rest = &rest[scanned.consumed..];
    }
}

fn bulks(count: usize, len: usize) -> Vec<u8> {
    let mut reply = Vec::new();
    for _ in 0..count {
        bulk(&mut reply, &vec![b'v'; len]);
    }
    reply
}

fn scored_member() -> Vec<u8> {
    let mut pair = bulks(1, 16);
    integer(&mut pair, 42);
    pair
}

fn array(len: usize, elements: &[u8]) -> Vec<u8> {
    let mut reply = Vec::new();
    array_header(&mut reply, len);
    reply.extend_from_slice(elements);
    reply
}

criterion_group!(benches, whole_replies);
criterion_main!(benches);
