//! Commands that are not in the table: the upstream is asked once where their keys are.

use std::rc::Rc;

use nearside_resp::Request;

use super::table::{Command, Found};
use super::{Call, Flow, NOAUTH, admit, nearside, pinned, proceed, refuse, sentinel_face};
use crate::session::Session;
use crate::session::own::Own;
use crate::session::state::{Learned, Question, State};
use crate::shared::Unknown;

/// The longest name the upstream is asked about; Redis's own are below 30 bytes.
const LONGEST_NAME: usize = 128;

/// What an HTTP request made by a web page begins with: Redis closes such a connection without a reply.
const CROSS_PROTOCOL: [&[u8]; 2] = [b"POST", b"Host:"];

pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>) -> Flow {
    if CROSS_PROTOCOL.iter().any(|name| name.eq_ignore_ascii_case(call.request.arg(0))) {
        tracing::warn!("client {} speaks HTTP: closed, it may be a browser misled by a web page", session.id());
        return Flow::Close;
    }
    if !state.authenticated {
        return refuse(state, NOAUTH);
    }
    if nearside::is_meant(state, &call.request) {
        return nearside::run(session, state, &call.request);
    }
    if sentinel_face::is_meant(session, state, &call.request) {
        return sentinel_face::run(session, state, &call.request);
    }
    match state.question.take() {
        Some(question) if question.name == call.request.arg(0) => {
            let flow = match &question.answer {
                Some(learned) => send(session, state, call, learned),
                None => Flow::Wait,
            };
            if flow == Flow::Wait {
                state.question = Some(question);
            }
            flow
        }
        _ => ask(session, state, call),
    }
}

fn ask(session: &Rc<Session>, state: &mut State, call: &Call<'_>) -> Flow {
    let name = call.request.arg(0).to_vec();
    let unknown = Unknown { name: name.clone(), worker: session.worker().index(), session: session.id() };
    if name.len() > LONGEST_NAME || !name.iter().all(u8::is_ascii_graphic) {
        return send(session, state, call, &Learned::Absent); // no command is called that
    }
    if session.worker().shared().unknown_commands.try_send(unknown).is_err() {
        return send(session, state, call, &Learned::Answered);
    }
    state.question = Some(Question { name, answer: None });
    Flow::Wait
}

/// The table still does not have it. The upstream gives its own error; should it take the command all the same, anything
/// may have changed.
fn send(session: &Rc<Session>, state: &mut State, call: &Call<'_>, learned: &Learned) -> Flow {
    match learned {
        Learned::Absent => proceed(session, state, call, Command::absent()),
        Learned::Answered => alone(session, state, call),
        Learned::Renamed(name) => {
            let table = session.worker().table();
            match table.find_as(name.as_bytes(), &call.request) {
                Found::Command(command) | Found::UnknownSubcommand(command) => admit(session, state, call, command),
                Found::UnknownCommand => alone(session, state, call),
            }
        }
    }
}

/// On a connection of the session's own, which nobody has afterwards: the command might make anything of it.
fn alone(session: &Rc<Session>, state: &mut State, call: &Call<'_>) -> Flow {
    let command = Command::opaque();
    let is_held = match &state.own {
        Own::None => false,
        Own::Pinned(pinned) => pinned.is_held(),
        Own::Unplaced(_) => true,
    };
    let flow =
        if is_held { proceed(session, state, call, command) } else { pinned::alone(session, state, call, command) };
    if let Own::Pinned(pinned) = &mut state.own
        && flow != Flow::Wait
    {
        pinned.is_spent = true;
    }
    flow
}

/// Redis's words for a command that does not exist, where nobody is asked.
pub(super) fn text(request: &Request<'_>) -> Vec<u8> {
    const SHOWN: usize = 128;
    let mut args = Vec::new();
    for arg in request.args().skip(1) {
        if args.len() >= SHOWN {
            break;
        }
        let shown = &arg[..arg.len().min(SHOWN - args.len())];
        args.extend_from_slice(&[b"'", shown, b"' "].concat());
    }
    let name = &request.arg(0)[..request.arg(0).len().min(SHOWN)];
    [b"ERR unknown command '", name, b"', with args beginning with: ", &args].concat()
}
