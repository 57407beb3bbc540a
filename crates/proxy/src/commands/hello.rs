//! HELLO: protocol version, and on the way user and name. <https://redis.io/docs/latest/commands/hello/>

use std::rc::Rc;

use nearside_resp::{Protocol, Request, encode};

use super::auth::Outcome;
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
    let options = match Options::parse(state, request) {
        Ok(options) => options,
        Err(text) => {
            state.answer_error(text);
            return Flow::Done;
        }
    };
    match agree(session, state, &options) {
        Ok(true) => {
            let (protocol, db) = (options.protocol, state.db);
            if let (true, Own::Pinned(pinned)) = (protocol != state.protocol, &mut state.own) {
                pinned.lane.say(&[b"HELLO", if protocol == Protocol::Resp3 { b"3" } else { b"2" }]);
                pinned.is_spent = true;
            }
            state.set_connection(protocol, db);
            greet(session, state);
        }
        Ok(false) => return Flow::Wait,
        Err(text) => state.answer_error(text),
    }
    Flow::Done
}

/// What HELLO asks for. Of an option that is given twice, the last counts.
struct Options<'a> {
    protocol: Protocol,
    /// User and password.
    auth: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(state: &State, request: &Request<'a>) -> Result<Self, Vec<u8>> {
        let protocol = match request.get(1) {
            None => state.protocol,
            Some(version) => parse_version(version)?,
        };
        let mut options = Options { protocol, auth: None, name: None };
        let mut at = 2;
        while let Some(option) = request.get(at) {
            let left = request.len() - at - 1;
            if option.eq_ignore_ascii_case(b"AUTH") && left >= 2 {
                options.auth = Some((request.arg(at + 1), request.arg(at + 2)));
                at += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && left >= 1 {
                client::check_name(request.arg(at + 1))?;
                options.name = Some(request.arg(at + 1));
                at += 2;
            } else {
                return Err([b"ERR Syntax error in HELLO option '", option, b"'"].concat());
            }
        }
        Ok(options)
    }
}

/// Carries the options out: first the login, then the name, as Redis since 7.2. False: the upstream is being asked about the
/// login.
fn agree(session: &Rc<Session>, state: &mut State, options: &Options<'_>) -> Result<bool, Vec<u8>> {
    if let Some((user, password)) = options.auth {
        match auth::log_in(session, state, user, password) {
            Outcome::LoggedIn => {}
            Outcome::Refused(line) => return Err(line),
            Outcome::Asked => return Ok(false),
        }
    }
    if !state.authenticated {
        return Err(NOAUTH.into());
    }
    if let Some(name) = options.name {
        client::set_name(state, name)?;
    }
    Ok(true)
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
