//! AUTH, against `requirepass`. Users of the upstream's ACL are not passed through yet: there is the `default` user.

use std::rc::Rc;

use nearside_resp::Request;

use super::Flow;
use crate::session::Session;
use crate::session::state::State;

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD_SET: &str = "ERR AUTH <password> called without any password configured for the default user. \
                               Are you sure your configuration is correct?";

pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    let result = match (request.len(), request.get(1), request.get(2)) {
        (2, Some(_), _) if session.worker().config().requirepass.is_none() => Err(NO_PASSWORD_SET),
        (2, Some(password), _) => log_in(session, state, b"default", password),
        (3, Some(user), Some(password)) => log_in(session, state, user, password),
        _ => Err("ERR syntax error"),
    };
    match result {
        Ok(()) => state.answer_ok(),
        Err(text) => state.answer_error(text),
    }
    Flow::Done
}

/// Checks a user and password, and remembers success. Without `requirepass` the default user takes any password, as
/// Redis's `nopass` does. The error is Redis's.
pub(super) fn log_in(
    session: &Rc<Session>,
    state: &mut State,
    user: &[u8],
    password: &[u8],
) -> Result<(), &'static str> {
    let config = session.worker().config();
    let right = config.requirepass.as_ref().is_none_or(|secret| secret.matches(password));
    if user != b"default" || !right {
        return Err(WRONGPASS);
    }
    state.set_authenticated(true, config.max_bulk_len);
    Ok(())
}
