//! AUTH, and HELLO's AUTH: who the session's commands run as.
//!
//! `default` is checked here, against `requirepass`, and runs as the proxy's own user upstream. Any other is a user of the
//! upstream's ACL: the upstream is asked whether it lets that user in, and from then on the session's commands go on lanes
//! that are logged in as that user. While the upstream is asked, the session runs nothing else.

use std::rc::Rc;

use nearside_resp::Request;

use super::Flow;
use crate::session::Session;
use crate::session::state::{LoggingIn, State};
use crate::users::{Attempt, LONGEST, Login, User, Verdict};

const DEFAULT: &[u8] = b"default";
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD_SET: &str = "ERR AUTH <password> called without any password configured for the default user. \
                               Are you sure your configuration is correct?";
const TIED: &str = "ERR AUTH as another user is not supported by the proxy while keys are watched, reads are tracked or \
                    channels are subscribed to";
const TOO_MANY: &str = "OVERLOAD too many logins wait for the upstream already; the login was not carried out";

/// What became of a login.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The session has logged in.
    LoggedIn,
    /// It has not: the error line, without the leading `-`.
    Refused(Vec<u8>),
    /// The upstream is being asked; the command is run again when it has answered.
    Asked,
}

pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    if state.replies.open() > 0 {
        return Flow::Wait; // what came before runs as the user before
    }
    let outcome = match (request.len(), request.get(1), request.get(2)) {
        (2, Some(_), _) if session.worker().config().requirepass.is_none() => refused(NO_PASSWORD_SET),
        (2, Some(password), _) => log_in(session, state, DEFAULT, password),
        (3, Some(user), Some(password)) => log_in(session, state, user, password),
        _ => refused("ERR syntax error"),
    };
    match outcome {
        Outcome::LoggedIn => state.answer_ok(),
        Outcome::Refused(line) => state.answer_error(line),
        Outcome::Asked => return Flow::Wait,
    }
    Flow::Done
}

/// Logs the session in, if nothing of it is in flight. The errors are Redis's, or the upstream's own. A session that is not
/// let in stays who it was.
pub(super) fn log_in(session: &Rc<Session>, state: &mut State, user: &[u8], password: &[u8]) -> Outcome {
    if (state.own.is_held() || state.subscriptions.is_some()) && !state.client.is_user(user) {
        return refused(TIED); // connections of its own are logged in as whom the session is now
    }
    let config = session.worker().config();
    if user == DEFAULT {
        // Without `requirepass` the default user takes any password, as Redis's `nopass` does.
        if !config.requirepass.as_ref().is_none_or(|secret| secret.matches(password)) {
            return refused(WRONGPASS);
        }
        state.set_user(User::own(), DEFAULT, config.max_bulk_len);
        return Outcome::LoggedIn;
    }
    if !config.acl_users || user.len() > LONGEST || password.len() > LONGEST {
        return refused(WRONGPASS);
    }
    match state.logging_in.take() {
        None => ask(session, state, Login::new(user, password)),
        Some(LoggingIn::Asked) => {
            state.logging_in = Some(LoggingIn::Asked);
            Outcome::Asked
        }
        Some(LoggingIn::Answered(Verdict::LetIn(upstream))) => {
            state.set_user(upstream, user, config.max_bulk_len);
            Outcome::LoggedIn
        }
        Some(LoggingIn::Answered(Verdict::Refused(line))) => Outcome::Refused(line),
        Some(LoggingIn::Answered(Verdict::NotAsked(line))) => refused(line),
    }
}

fn ask(session: &Rc<Session>, state: &mut State, login: Login) -> Outcome {
    let worker = session.worker();
    let attempt = Attempt { login, since: worker.now(), worker: worker.index(), session: session.id() };
    if worker.shared().logins.try_send(attempt).is_err() {
        return refused(TOO_MANY);
    }
    state.logging_in = Some(LoggingIn::Asked);
    Outcome::Asked
}

fn refused(line: impl Into<Vec<u8>>) -> Outcome {
    Outcome::Refused(line.into())
}
