//! Finding where a reply ends in what an upstream sent.

use std::hint::black_box;

use nearside_resp::ReplyScanner;
use nearside_resp::encode::{array_header, bulk, integer};

use super::{PIPELINE, Work};

pub fn work(case: &str) -> Work {
    let buffer = reply(case).repeat(PIPELINE);
    let mut scanner = ReplyScanner::new();
    Box::new(move || scan_all(&mut scanner, black_box(&buffer)))
}

fn reply(case: &str) -> Vec<u8> {
    match case {
        "ok" => b"+OK\r\n".to_vec(),
        "integer" => b":1234567\r\n".to_vec(),
        "bulk_16b" => bulks(1, 16),
        "bulk_16k" => bulks(1, 16 << 10),
        "array_of_100_bulks" => array(100, &bulks(100, 16)),
        "arrays_in_array" => array(10, &array(2, &scored_member()).repeat(10)),
        _ => panic!("no such reply: {case}"),
    }
}

fn scan_all(scanner: &mut ReplyScanner, buffer: &[u8]) -> usize {
    let (mut rest, mut scanned_all) = (buffer, 0);
    while !rest.is_empty() {
        let scanned = scanner.scan(rest).expect("the buffer holds valid replies");
        assert!(scanned.complete, "the buffer holds whole replies");
        black_box(scanner.kind());
        scanned_all += scanned.consumed;
        rest = &rest[scanned.consumed..];
    }
    scanned_all
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
