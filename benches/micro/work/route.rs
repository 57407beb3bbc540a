//! Where the key of a command lives. The program has no library, so its file is taken by its path.

use std::hint::black_box;

use super::{PIPELINE, Work};

#[allow(unused_imports)] // of its tests, which do not run here
#[path = "../../../crates/proxy/src/topology/slot.rs"]
mod slot;

pub fn work(case: &str) -> Work {
    let key: &[u8] = match case {
        "slot" => b"key:000000000042",
        "slot_of_tag" => b"{user:42}:key:000000000042",
        _ => panic!("nothing such is routed: {case}"),
    };
    Box::new(move || (0..PIPELINE).map(|_| usize::from(slot::Slot::of(black_box(key)).number())).sum())
}
