//! Instructions of the same, counted by valgrind. The count repeats exactly.

#![allow(missing_docs)] // of what the macros make

mod commands;
mod work;

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};

/// Once before the count begins: what is built at first use is not of every command.
fn warm(name: &str) -> work::Work {
    let mut work = work::named(name);
    work();
    work
}

#[library_benchmark(setup = warm)]
#[bench::decode_get("decode/get")]
#[bench::decode_set_16b("decode/set_16b")]
#[bench::decode_set_16k("decode/set_16k")]
#[bench::decode_hmget_32_fields("decode/hmget_32_fields")]
#[bench::decode_inline_get("decode/inline_get")]
#[bench::route_slot("route/slot")]
#[bench::route_slot_of_tag("route/slot_of_tag")]
#[bench::route_get("route/get")]
#[bench::route_mset_8_keys("route/mset_8_keys")]
#[bench::route_config_get("route/config_get")]
#[bench::lookup_hit_16b("lookup/hit_16b")]
#[bench::lookup_hit_1k("lookup/hit_1k")]
#[bench::lookup_miss("lookup/miss")]
#[bench::scan_ok("scan/ok")]
#[bench::scan_integer("scan/integer")]
#[bench::scan_bulk_16b("scan/bulk_16b")]
#[bench::scan_bulk_16k("scan/bulk_16k")]
#[bench::scan_array_of_100_bulks("scan/array_of_100_bulks")]
#[bench::scan_arrays_in_array("scan/arrays_in_array")]
#[bench::encode_bulk_16b("encode/bulk_16b")]
#[bench::encode_integer("encode/integer")]
#[bench::encode_get("encode/get")]
fn piece(mut work: work::Work) -> (usize, work::Work) {
    // Given back, so that its end is not counted.
    (black_box(work()), work)
}

library_benchmark_group!(name = pieces; benchmarks = piece);
main!(library_benchmark_groups = pieces);
