//! SENTINEL HELP: Redis's words for what there is here.

use nearside_resp::encode;

use crate::session::state::State;

const LINES: &[&str] = &[
    "SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CKQUORUM <master-name>",
    "    Check if the current Sentinel configuration is able to reach the quorum",
    "    needed to failover a master and the majority needed to authorize the",
    "    failover.",
    "GET-MASTER-ADDR-BY-NAME <master-name>",
    "    Return the ip and port number of the master with that name.",
    "MASTER <master-name>",
    "    Show the state and info of the specified master.",
    "MASTERS",
    "    Show a list of monitored masters and their state.",
    "MYID",
    "    Return the ID of the Sentinel instance.",
    "REPLICAS <master-name>",
    "    Show a list of replicas for this master and their state.",
    "SENTINELS <master-name>",
    "    Show a list of Sentinel instances for this master and their state.",
    "HELP",
    "    Prints this help.",
];

pub(super) fn run(state: &mut State) {
    state.answer(|out, _| {
        encode::array_header(out, LINES.len());
        LINES.iter().for_each(|line| encode::simple(out, line.as_bytes()));
    });
}
