//! Writing replies and requests of the proxy's own.

use std::hint::black_box;

use nearside_resp::encode::{bulk, command, integer};

use super::{PIPELINE, Work};

pub fn work(case: &str) -> Work {
    let one: fn(&mut Vec<u8>) = match case {
        "bulk_16b" => |out| bulk(out, black_box(b"0123456789abcdef")),
        "integer" => |out| integer(out, black_box(1_234_567)),
        "get" => |out| command(out, black_box(&[b"GET".as_slice(), b"key:000000000042"])),
        _ => panic!("nothing such is encoded: {case}"),
    };
    let mut out = Vec::with_capacity(PIPELINE * 64);
    Box::new(move || {
        out.clear();
        for _ in 0..PIPELINE {
            one(&mut out);
        }
        black_box(&out).len()
    })
}
