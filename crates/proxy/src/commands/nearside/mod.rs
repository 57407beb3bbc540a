//! NEARSIDE: what people ask the proxy itself. Servers do not know the command.

mod explain;
mod flush;
mod help;

use std::rc::Rc;

use nearside_resp::{Request, encode};

use super::{Flow, client, info, wrong_arity};
use crate::session::Session;
use crate::session::state::State;

/// Whether this is for [`run`].
pub(super) fn is_meant(state: &State, request: &Request<'_>) -> bool {
    // Not in a transaction, nor where only replies to few commands can be told from messages.
    request.arg(0).eq_ignore_ascii_case(b"nearside") && !state.is_restricted && !state.own.is_in_transaction()
}

/// Runs a subcommand.
pub(super) fn run(session: &Rc<Session>, state: &mut State, request: &Request<'_>) -> Flow {
    let subcommand = request.get(1).unwrap_or_default().to_ascii_lowercase();
    let takes = match &*subcommand {
        b"" if request.len() < 2 => return wrong_arity(state, "nearside"),
        b"explain" => 3..=3,
        b"flush" => 2..=3,
        b"stats" | b"help" => 2..=2,
        _ => return client::unknown_subcommand(state, request),
    };
    if !takes.contains(&request.len()) {
        return wrong_arity(state, &format!("nearside|{}", String::from_utf8_lossy(&subcommand)));
    }
    match &*subcommand {
        b"explain" => explain::run(session, state, request.arg(2)),
        b"flush" => return flush::run(session, state, request.get(2)),
        b"stats" => stats(session, state),
        _ => help::run(state),
    }
    state.turn.own += 1;
    Flow::Done
}

/// The fields of INFO's section of the proxy, as a map.
fn stats(session: &Rc<Session>, state: &mut State) {
    state.count_turn(session.worker(), session.worker().now());
    let section = info::section(session.worker().shared());
    let fields: Vec<(&str, &str)> = section
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.strip_prefix("nearside_").unwrap_or(name), value))
        .collect();
    state.answer(|out, protocol| {
        encode::map_header(out, protocol, fields.len());
        for (name, value) in fields {
            encode::bulk(out, name.as_bytes());
            match value.parse() {
                Ok(number) => encode::integer(out, number),
                Err(_) => encode::bulk(out, value.as_bytes()),
            }
        }
    });
}
