//! NEARSIDE HELP.

use nearside_resp::encode;

use crate::session::state::State;

const LINES: &[&str] = &[
    "NEARSIDE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "EXPLAIN <key>",
    "    What the near-cache has of a key, for how long, and whether a GET by this",
    "    client would be answered from there now; if not, why.",
    "FLUSH",
    "    Forget all that is cached. The upstream keeps its data.",
    "FLUSH <pattern>",
    "    Forget the keys that match, and return how many they were.",
    "STATS",
    "    Counters of the whole process, as in INFO NEARSIDE.",
    "HELP",
    "    Print this help.",
];

pub(super) fn run(state: &mut State) {
    state.answer(|out, _| {
        encode::array_header(out, LINES.len());
        LINES.iter().for_each(|line| encode::simple(out, line.as_bytes()));
    });
}
