//! CLIENT: what a client says of itself, and what it may know of and do to the others.
//! <https://redis.io/docs/latest/commands/client/>
//!
//! Clients are the proxy's own here: the upstream sees lanes, and is not asked. Texts and the order of checks are those of
//! Redis's `networking.c`.

mod help;
mod identity;
mod kill;
mod list;
pub(super) mod options;
pub(crate) mod pause;
pub(crate) mod tracking;
mod unblock;

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nearside_resp::{Request, encode};

pub(super) use self::identity::{check_name, set_name};
use super::table::Command;
use super::{Call, Flow};
use crate::session::Session;
use crate::session::state::{ReplyMode, State};

const SYNTAX_ERROR: &str = "ERR syntax error";

/// Runs a subcommand whose number of arguments is right.
pub(super) fn run(
    session: &Rc<Session>,
    state: &mut State,
    call: &Call<'_>,
    command: &Command,
    subcommand: &str,
) -> Flow {
    let request = &call.request;
    match subcommand {
        "id" => state.answer(|out, _| encode::integer(out, session.id().cast_signed())),
        "getname" => identity::get_name(state),
        "setname" => answer_result(state, |state| set_name(state, request.arg(2))),
        "setinfo" => answer_result(state, |state| identity::set_info(state, request.arg(2), request.arg(3))),
        "info" => list::own(session, state),
        "list" => list::run(session, state, request),
        "kill" => return kill::run(session, state, request),
        "reply" => reply(state, request.arg(2)),
        "no-evict" => answer_result(state, |state| switch(&state.client.no_evict, request.arg(2))),
        "no-touch" => answer_result(state, |state| switch(&state.client.no_touch, request.arg(2))),
        "tracking" | "caching" | "trackinginfo" | "getredir" => {
            return tracking::run(session, state, call, command, subcommand);
        }
        "pause" => answer_result(state, |_| pause::pause(session, request)),
        "unpause" => pause::unpause(session, state),
        "unblock" => return unblock::run(session, state, request),
        // Capabilities only ever add to what a server may send; none of them is used.
        "capa" => state.answer_ok(),
        "import-source" => {
            state.answer_error(unsupported(&subcommand.to_uppercase()));
        }
        "help" => help::run(state),
        // An upstream newer than this program may have taught the table more of them.
        _ => return unknown_subcommand(state, request),
    }
    Flow::Done
}

/// Answers `+OK`, or with the error.
fn answer_result<E: AsRef<[u8]>>(state: &mut State, run: impl FnOnce(&mut State) -> Result<(), E>) {
    match run(state) {
        Ok(()) => state.answer_ok(),
        Err(text) => state.answer_error(text),
    }
}

/// CLIENT REPLY. Neither OFF nor SKIP has a reply of its own.
fn reply(state: &mut State, wanted: &[u8]) {
    if wanted.eq_ignore_ascii_case(b"on") {
        state.reply_mode = ReplyMode::default(); // a SKIP just before it is forgotten too, as in Redis
        state.answer_ok();
    } else if wanted.eq_ignore_ascii_case(b"off") {
        state.reply_mode.off = true;
    } else if wanted.eq_ignore_ascii_case(b"skip") {
        state.reply_mode.skip_next = !state.reply_mode.off;
    } else {
        state.answer_error(SYNTAX_ERROR);
    }
}

/// CLIENT NO-EVICT and NO-TOUCH. Clients are not evicted here, nor does a lane's upstream know whose command it is:
/// both are remembered, and shown by CLIENT LIST.
fn switch(flag: &AtomicBool, wanted: &[u8]) -> Result<(), &'static str> {
    let on = options::on_or_off(wanted).ok_or(SYNTAX_ERROR)?;
    flag.store(on, Relaxed);
    Ok(())
}

fn unsupported(what: &str) -> String {
    format!("ERR CLIENT {what} is not supported by this version of Nearside")
}

/// Redis's words, for a subcommand of whatever container.
pub(super) fn unknown_subcommand(state: &mut State, request: &Request<'_>) -> Flow {
    let subcommand = options::as_text(request.get(1).unwrap_or_default());
    let subcommand = &subcommand[..subcommand.len().min(128)];
    let container = request.arg(0).to_ascii_uppercase();
    state.answer_error([b"ERR unknown subcommand '", subcommand, b"'. Try ", &container, b" HELP."].concat());
    Flow::Done
}
