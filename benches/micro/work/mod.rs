//! What a command passes on its way, piece by piece: each prepared once, and done again and again.

#![allow(dead_code, missing_docs, unreachable_pub)] // each of the two benchmarks uses its part

pub mod decode;
pub mod encode;
pub mod lookup;
pub mod route;
pub mod scan;

/// Commands in a buffer: what one read of a deep pipeline brings.
pub const PIPELINE: usize = 64;

/// One piece of work, ready to be done; returns something that depends on all of it.
pub type Work = Box<dyn FnMut() -> usize>;

/// The work of this name. Each does [`PIPELINE`] commands.
pub fn named(name: &str) -> Work {
    let (group, case) = name.split_once('/').expect("GROUP/CASE");
    match group {
        "decode" => decode::work(case),
        "encode" => encode::work(case),
        "lookup" => lookup::work(case),
        "route" => route::work(case),
        "scan" => scan::work(case),
        _ => panic!("no such group: {group}"),
    }
}

/// All there are.
pub const NAMES: &[&str] = &[
    "decode/get",
    "decode/set_16b",
    "decode/set_16k",
    "decode/hmget_32_fields",
    "decode/inline_get",
    "route/slot",
    "route/slot_of_tag",
    "route/get",
    "route/mset_8_keys",
    "route/config_get",
    "lookup/hit_16b",
    "lookup/hit_1k",
    "lookup/miss",
    "scan/ok",
    "scan/integer",
    "scan/bulk_16b",
    "scan/bulk_16k",
    "scan/array_of_100_bulks",
    "scan/arrays_in_array",
    "encode/bulk_16b",
    "encode/integer",
    "encode/get",
];
