//! CLIENT TRACKING and what belongs to it. Invalidations come to the proxy; they are not passed on to clients, so a
//! client's own tracking is always off, and one that asks for it is told so.

use nearside_resp::{Request, encode};

use super::{SYNTAX_ERROR, options, unsupported};
use crate::session::state::State;

/// CLIENT TRACKING: OFF is how it is.
pub(super) fn switch(request: &Request<'_>) -> Result<(), String> {
    match options::on_or_off(request.arg(2)) {
        Some(false) if request.len() == 3 => Ok(()),
        Some(_) => Err(unsupported("TRACKING")),
        None => Err(SYNTAX_ERROR.to_owned()),
    }
}

pub(super) fn info(state: &mut State) {
    state.answer(|out, protocol| {
        encode::map_header(out, protocol, 3);
        encode::bulk(out, b"flags");
        encode::set_header(out, protocol, 1);
        encode::bulk(out, b"off");
        encode::bulk(out, b"redirect");
        encode::integer(out, -1);
        encode::bulk(out, b"prefixes");
        encode::array_header(out, 0);
    });
}

/// CLIENT GETREDIR: -1 says that tracking is off.
pub(super) fn redirection(state: &mut State) {
    state.answer(|out, _| encode::integer(out, -1));
}
