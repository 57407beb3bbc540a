//! CLIENT SETNAME, GETNAME, SETINFO: what a client calls itself and its library.

use nearside_resp::encode;

use super::options::as_text;
use crate::session::state::State;

/// CLIENT SETNAME, and HELLO's SETNAME. An empty name is none.
pub(in crate::commands) fn set_name(state: &mut State, name: &[u8]) -> Result<(), Vec<u8>> {
    check_name(name)?;
    state.client.set_name(name);
    Ok(())
}

/// Whether a client may be called that. The error is Redis's.
pub(in crate::commands) fn check_name(name: &[u8]) -> Result<(), Vec<u8>> {
    check(b"Client names", name)
}

pub(super) fn get_name(state: &mut State) {
    let name = state.client.texts().name.clone();
    state.answer(|out, protocol| if name.is_empty() { encode::null(out, protocol) } else { encode::bulk(out, &name) });
}

/// CLIENT SETINFO, which Redis has since 7.2.
pub(super) fn set_info(state: &mut State, attribute: &[u8], value: &[u8]) -> Result<(), Vec<u8>> {
    let mut texts = state.client.texts();
    let text = if attribute.eq_ignore_ascii_case(b"lib-name") {
        &mut texts.library
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        &mut texts.library_version
    } else {
        return Err([b"ERR Unrecognized option '", as_text(attribute), b"'"].concat());
    };
    check(attribute, value)?;
    *text = value.to_vec();
    Ok(())
}

/// A space or a line break would make another field, or another client, of a line of CLIENT LIST.
fn check(what: &[u8], value: &[u8]) -> Result<(), Vec<u8>> {
    if value.iter().all(u8::is_ascii_graphic) {
        return Ok(());
    }
    Err([b"ERR ", what, b" cannot contain spaces, newlines or special characters."].concat())
}
