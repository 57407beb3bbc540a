//! HELLO: protocol version, and on the way user and name. <https://redis.io/docs/latest/commands/hello/>

use std::rc::Rc;

use nearside_resp::{Protocol, Request, encode};

use super::{Flow, auth, client};
use crate::session::Session;
use crate::session::own::Own;
use crate::session::state::State;

const NOAUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                      AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                      version at the same time";
/// Said before the upstream was first reached: the oldest version whose answers ours resemble.
const DEFAULT_VERSION: &str = "7.0.0";

pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    if state.replies.open() > 0 {
        return Flow::Wait; // the lane may change
    }
    match agree(session, state, request) {
        Ok(protocol) => {
            let db = state.db;
            if let (true, Own::Pinned(pinned)) = (protocol != state.protocol, &mut state.own) {
                pinned.lane.say(&[b"HELLO", if protocol == Protocol::Resp3 { b"3" } else { b"2" }]);
                pinned.is_spent = true;
            }
            state.set_connection(protocol, db);
            greet(session, state);
        }
        Err(text) => state.answer_error(text),
    }
    Flow::Done
}

/// Carries the options out, in their order; gives the protocol version to speak.
fn agree(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Result<Protocol, Vec<u8>> {
    let protocol = match request.get(1) {
        None => state.protocol,
        Some(version) => parse_version(version)?,
    };
    let mut at = 2;
    while let Some(option) = request.get(at) {
        let left = request.len() - at - 1;
        if option.eq_ignore_ascii_case(b"AUTH") && left >= 2 {
            auth::log_in(session, state, request.arg(at + 1), request.arg(at + 2))?;
            at += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && left >= 1 {
            client::set_name(state, request.arg(at + 1))?;
            at += 2;
        } else {
            return Err([b"ERR Syntax error in HELLO option '", option, b"'"].concat());
        }
    }
    if state.authenticated { Ok(protocol) } else { Err(NOAUTH.into()) }
}

fn parse_version(version: &[u8]) -> Result<Protocol, &'static str> {
    match client::options::integer(version) {
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err("NOPROTO unsupported protocol version"),
        None => Err("ERR Protocol version is not an integer or out of range"),
    }
}

fn greet(session: &Rc<Session>, state: &mut State) {
    let version = session.worker().shared().upstream_version.load();
    let version = if version.is_empty() { DEFAULT_VERSION } else { version.as_str() };
    let mode = if session.worker().config().shows_cluster() { "cluster" } else { "standalone" };
    state.answer(|out, protocol| {
        encode::map_header(out, protocol, 7);
        for (field, value) in [("server", "redis"), ("version", version)] {
            encode::bulk(out, field.as_bytes());
            encode::bulk(out, value.as_bytes());
        }
        encode::bulk(out, b"proto");
        encode::integer(out, if protocol == Protocol::Resp3 { 3 } else { 2 });
        encode::bulk(out, b"id");
        encode::integer(out, session.id().cast_signed());
        for (field, value) in [("mode", mode), ("role", "master")] {
            encode::bulk(out, field.as_bytes());
            encode::bulk(out, value.as_bytes());
        }
        encode::bulk(out, b"modules");
        encode::array_header(out, 0);
    });
}
