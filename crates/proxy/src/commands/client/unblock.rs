//! CLIENT UNBLOCK: a client of the proxy that waits at a server waits no more.

use std::rc::Rc;

use nearside_resp::{Request, encode};

use super::options;
use crate::commands::{Flow, forward};
use crate::session::Session;
use crate::session::registry::Unblocked;
use crate::session::state::State;

const BAD_REASON: &str = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
const TOO_MANY: &str = "ERR unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.";
const NO_INTEGER: &str = "ERR value is not an integer or out of range";

/// Asks the server at which the client waits, by the number that the server knows it by.
pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    if request.len() > 4 {
        state.answer_error(TOO_MANY);
        return Flow::Done;
    }
    let reason = request.get(3).unwrap_or(b"TIMEOUT").to_ascii_uppercase();
    if !matches!(&*reason, b"TIMEOUT" | b"ERROR") {
        state.answer_error(BAD_REASON);
        return Flow::Done;
    }
    let Some(id) = options::integer(request.arg(2)) else {
        state.answer_error(NO_INTEGER);
        return Flow::Done;
    };
    let registry = &session.worker().shared().registry;
    let client = u64::try_from(id).ok().and_then(|id| registry.get(id));
    let how = if *reason == *b"ERROR" { Unblocked::ByError } else { Unblocked::ByTimeout };
    let is_unblocked = client.as_ref().is_some_and(|client| client.unblock_here(how));
    let Some((node, number)) = client.and_then(|client| client.seek()) else {
        state.answer(|out, _| encode::integer(out, is_unblocked.into()));
        return Flow::Done;
    };
    let number = number.to_string();
    forward::to_node(session, state, &node, &[b"CLIENT", b"UNBLOCK", number.as_bytes(), &reason])
}
