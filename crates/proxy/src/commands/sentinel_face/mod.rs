//! SENTINEL, as a Sentinel answers it that watches one primary: the proxy, at the address that the client reached.
//! <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#sentinel-api>
//!
//! Clients that are told Sentinels instead of a server find the proxy so. It follows the primary itself: to its clients
//! nothing ever fails over, and there are no replicas and no other Sentinels. Texts and the order of checks are those of
//! Redis's `sentinel.c`.

mod help;

use std::rc::Rc;

use nearside_resp::{Protocol, Request, encode};

use super::{Flow, client, refuse, wrong_arity};
use crate::face::{Endpoint, Face};
use crate::session::Session;
use crate::session::own::Own;
use crate::session::state::State;

const NO_SUCH_MASTER: &str = "ERR No such master with that name";

/// What would change what a Sentinel does.
const REFUSED: [&str; 10] = [
    "config",
    "debug",
    "failover",
    "flushconfig",
    "is-master-down-by-addr",
    "monitor",
    "remove",
    "reset",
    "set",
    "simulate-failure",
];

/// Whether this is for [`run`]: servers do not know the command, and say so.
pub(super) fn is_meant(session: &Rc<Session>, state: &State, request: &Request<'_>) -> bool {
    request.arg(0).eq_ignore_ascii_case(b"sentinel")
        && session.worker().config().sentinel_name().is_some()
        && matches!(state.own, Own::None)
}

/// Runs a subcommand.
pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    let name = session.worker().config().sentinel_name().unwrap_or_default();
    let subcommand = String::from_utf8_lossy(request.get(1).unwrap_or_default()).to_ascii_lowercase();
    if request.len() < 2 {
        return wrong_arity(state, "sentinel");
    }
    if REFUSED.contains(&&*subcommand) {
        return refuse(state, format!("ERR SENTINEL {} is not for clients of a proxy", subcommand.to_uppercase()));
    }
    let takes_name = match &*subcommand {
        "masters" | "myid" | "help" => false,
        "get-master-addr-by-name" | "master" | "sentinels" | "replicas" | "slaves" | "ckquorum" => true,
        _ => return client::unknown_subcommand(state, request),
    };
    if request.len() != 2 + usize::from(takes_name) {
        return wrong_arity(state, &format!("sentinel|{subcommand}"));
    }
    let is_ours = !takes_name || request.arg(2) == name.as_bytes();
    let face = &session.worker().shared().face;
    let shown = Shown { name, face, endpoint: face.endpoint(&state.client.local_address) };
    match &*subcommand {
        "get-master-addr-by-name" => state.answer(|out, protocol| shown.address(out, protocol, is_ours)),
        _ if !is_ours => state.answer_error(NO_SUCH_MASTER),
        "master" => state.answer(|out, protocol| shown.master(out, protocol)),
        "masters" => state.answer(|out, protocol| {
            encode::array_header(out, 1);
            shown.master(out, protocol);
        }),
        "ckquorum" => state.answer(|out, _| {
            encode::simple(out, b"OK 1 usable Sentinels. Quorum and failover authorization can be reached");
        }),
        "myid" => state.answer(|out, _| encode::bulk(out, face.node.as_bytes())),
        "help" => help::run(state),
        _ => state.answer(|out, _| encode::array_header(out, 0)),
    }
    state.turn.own += 1;
    Flow::Done
}

/// The primary that is shown, as one client sees it.
struct Shown<'a> {
    name: &'a str,
    face: &'a Face,
    endpoint: Endpoint,
}

impl Shown<'_> {
    /// Host and port, both as text.
    fn address(&self, out: &mut Vec<u8>, protocol: Protocol, is_ours: bool) {
        if !is_ours || self.endpoint.host().is_empty() {
            return encode::null_array(out, protocol);
        }
        encode::array_header(out, 2);
        encode::bulk(out, self.endpoint.host().as_bytes());
        encode::bulk(out, self.endpoint.port.to_string().as_bytes());
    }

    /// The fields that a Sentinel tells, in its order. It has just been pinged, and answered.
    fn master(&self, out: &mut Vec<u8>, protocol: Protocol) {
        let port = self.endpoint.port.to_string();
        let fields = [
            ("name", self.name),
            ("ip", self.endpoint.host()),
            ("port", &port),
            ("runid", &self.face.node),
            ("flags", "master"),
            ("link-pending-commands", "0"),
            ("link-refcount", "1"),
            ("last-ping-sent", "0"),
            ("last-ok-ping-reply", "0"),
            ("last-ping-reply", "0"),
            ("down-after-milliseconds", "30000"),
            ("info-refresh", "0"),
            ("role-reported", "master"),
            ("role-reported-time", "0"),
            ("config-epoch", "0"),
            ("num-slaves", "0"),
            ("num-other-sentinels", "0"),
            ("quorum", "1"),
            ("failover-timeout", "180000"),
            ("parallel-syncs", "1"),
        ];
        encode::map_header(out, protocol, fields.len());
        for (field, value) in fields {
            encode::bulk(out, field.as_bytes());
            encode::bulk(out, value.as_bytes());
        }
    }
}
