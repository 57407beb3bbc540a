//! Where a command goes: its entry in the command table, its keys, their slot.

use std::hint::black_box;

use nearside_resp::encode::command;
use nearside_resp::{Limits, Progress, RequestDecoder};

use self::slot::Slot;
use super::{PIPELINE, Work};
use crate::commands::table::{Found, Table};

#[allow(unused_imports)] // of its tests, which do not run here
#[path = "../../../crates/proxy/src/topology/slot.rs"]
mod slot;

pub fn work(case: &str) -> Work {
    match case {
        "slot" => slot_of(b"key:000000000042"),
        "slot_of_tag" => slot_of(b"{user:42}:key:000000000042"),
        "get" => whole(&[b"GET", b"key:000000000042"]),
        "mset_8_keys" => {
            let keys: Vec<Vec<u8>> = (0..8).map(|key| format!("{{user:42}}:key:{key}").into_bytes()).collect();
            let pairs = keys.iter().flat_map(|key| [key, b"0123456789abcdef".as_slice()]);
            whole(&[b"MSET".as_slice()].into_iter().chain(pairs).collect::<Vec<_>>())
        }
        "config_get" => whole(&[b"CONFIG", b"GET", b"maxmemory"]),
        _ => panic!("nothing such is routed: {case}"),
    }
}

fn slot_of(key: &'static [u8]) -> Work {
    Box::new(move || (0..PIPELINE).map(|_| usize::from(Slot::of(black_box(key)).number())).sum())
}

/// From the decoded request to the slot of all its keys.
fn whole(arguments: &[&[u8]]) -> Work {
    let mut bytes = Vec::new();
    command(&mut bytes, arguments);
    let mut decoder = RequestDecoder::new();
    let limits = Limits::authenticated(Limits::DEFAULT_MAX_BULK_LEN);
    let Ok(Progress::Request { .. }) = decoder.decode(&bytes, &limits) else { panic!("it is a whole request") };
    let table = Table::core();
    Box::new(move || {
        let request = decoder.request(&bytes);
        let route = || {
            let Found::Command(command) = table.find(black_box(&request)) else { panic!("every command is known") };
            let mut slots = command.number as usize;
            command.keys(&request, &mut |key, _| slots += usize::from(Slot::of(key).number()));
            slots
        };
        (0..PIPELINE).map(|_| route()).sum()
    })
}
