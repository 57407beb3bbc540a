//! What happens to each command. [`run`] holds the one `match` that routes; each file beside it is one behaviour.
//!
//! | file | serves |
//! |---|---|
//! | `cached` | GET and other reads of one key: near-cache, else a fetch, else upstream |
//! | `forward` | whatever goes upstream as it came; `place` says to which node |
//! | `mget` | MGET: key by key from where GET gets its replies, or as a whole upstream |
//! | `split` | before a cluster, MGET and its like: divided by slot |
//! | `every_node` | before a cluster, what concerns all primaries |
//! | `kill_script` | SCRIPT KILL, FUNCTION KILL: on connections made for them |
//! | `scan` | before a cluster, SCAN: node by node |
//! | `fan_out`, `join` | how one command is sent as several, and their replies made one |
//! | `transaction` | MULTI, EXEC, WATCH and theirs |
//! | `blocking` | what may wait at the server: BLPOP, XREAD BLOCK; `wait` for replicas |
//! | `pubsub` | SUBSCRIBE and its like, MONITOR |
//! | `pinned` | everything, while the session has an upstream connection of its own |
//! | `session` | what a session answers itself, by name: `hello`, `auth`, `select`, `client`, `connection` |
//! | `info` | INFO, to which the proxy adds a section |
//! | `cluster_face` | CLUSTER, as the cluster of one node that clients see |
//! | `sentinel_face` | SENTINEL, as the Sentinel of one primary that clients may be shown |
//! | `nearside` | NEARSIDE: what people ask the proxy itself |
//! | `unknown` | commands that are not in the table |
//! | `table` | what is known of each command |

mod auth;
mod blocking;
pub(crate) mod cached;
pub(crate) mod client;
mod cluster_face;
mod connection;
mod every_node;
mod fan_out;
mod forward;
mod hello;
pub(crate) mod info;
pub(crate) mod join;
mod kill_script;
pub(crate) mod mget;
mod nearside;
mod pinned;
pub(crate) mod place;
mod pubsub;
pub(crate) mod scan;
pub(crate) mod select;
mod sentinel_face;
mod session;
mod split;
pub(crate) mod table;
pub(crate) mod transaction;
mod unknown;
pub(crate) mod wait;

use std::rc::Rc;

use bytes::Bytes;
use nearside_resp::Request;

use self::table::{Command, Found, Join, Route};
use crate::lanes::forward::Frame;
use crate::session::Session;
use crate::session::own::Own;
use crate::session::replies::Shape;
use crate::session::state::State;

/// All buffers of all sessions are past the limit.
pub(crate) const OVERLOAD: &[u8] =
    b"OVERLOAD the buffers of all clients together are past buffer-memory; the command was not executed";
const NOAUTH: &str = "NOAUTH Authentication required.";

/// A command to run.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    /// Its arguments and bytes.
    pub(crate) request: Request<'a>,
    /// The same bytes, if they are worth sharing with a lane instead of being copied.
    pub(crate) owned: Option<Bytes>,
    /// What came after them, as far as that is at hand.
    pub(crate) rest: &'a [u8],
}

impl<'a> Call<'a> {
    /// The bytes to send upstream. What the decoder has rewritten, because servers may differ in how they read it, is not
    /// what came.
    fn frame(&self) -> Frame<'a> {
        match &self.owned {
            Some(bytes) if std::ptr::eq(bytes.as_ptr(), self.request.frame().as_ptr()) => Frame::Shared(bytes.clone()),
            _ => Frame::Borrowed(self.request.frame()),
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It is answered, or its reply is owed.
    Done,
    /// As `Done`, and so is what came after it, up to this length.
    DoneWith(usize),
    /// It has to wait for something in flight; the session gives it again.
    Wait,
    /// As `Done`, and the client wants to leave.
    Close,
}

/// Runs one command for `session`.
pub(crate) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>) -> Flow {
    let table = session.worker().table();
    let found = table.find(&call.request);
    state.last_command = found.number();
    let command = match found {
        // An unknown subcommand is treated as its container says; whoever gets it answers in Redis's words.
        Found::Command(command) | Found::UnknownSubcommand(command) => command,
        Found::UnknownCommand => return unknown::run(session, state, call),
    };
    admit(session, state, call, command)
}

/// Runs a command, if the session may run it now.
#[inline(always)]
fn admit(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if state.is_restricted
        && let Some(flow) = pubsub::restricted(state, call, command)
    {
        return flow;
    }
    if session.worker().is_paused() && session.worker().shared().paused().holds(command, &state.own) {
        state.is_held_back = true;
        return Flow::Wait;
    }
    proceed(session, state, call, command)
}

/// Runs a command that the session may run, on the session's own connection if it has one.
#[inline(always)] // with `route` a part of `run`: nearly every command goes straight through the three
fn proceed(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match state.own {
        Own::None => route(session, state, call, command),
        _ => pinned::run(session, state, call, command),
    }
}

/// As [`route`], for commands that come another way.
#[inline(never)]
fn dispatch(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    route(session, state, call, command)
}

#[inline(always)]
fn route(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match command.route {
        Route::Cached => cached::run(session, state, call, command),
        Route::Split(_) if command.cached.is_some() && call.request.len() == 2 => {
            cached::run_single(session, state, call, command)
        }
        Route::All(join) => every_node::run(session, state, call, command, join),
        Route::Split(Join::Values) => mget::run(session, state, call, command),
        Route::Walk => scan::run(session, state, call, command),
        Route::Forward | Route::Split(_) => forward::run(session, state, call, command, Shape::Plain),
        Route::Cluster => cluster_face::run(session, state, call, command),
        Route::About if &*command.name == "info" => info::run(session, state, call, command),
        Route::About => forward::run(session, state, call, command, Shape::Plain),
        Route::Session => session::run(session, state, call, command),
        Route::BlockingIf if !command.blocks(&call.request) => {
            forward::run(session, state, call, command, Shape::Plain)
        }
        Route::Transaction => transaction::run(session, state, call, command),
        Route::Blocking | Route::BlockingIf => blocking::run(session, state, call, command),
        Route::PubSub => pubsub::run(session, state, call, command),
        Route::Monitor => pubsub::monitor(session, state, call, command),
        Route::Replication => refuse(state, format!("ERR {} is not for clients of a proxy", shown(command))),
        Route::Refused => guarded(session, state, call, command),
    }
}

/// Commands that would change the upstream under the proxy's feet: only if the operator allows them.
fn guarded(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if is_allowed(session, command) {
        return forward::run(session, state, call, command, Shape::Plain);
    }
    refuse(state, refusal(command))
}

fn is_allowed(session: &Rc<Session>, command: &Command) -> bool {
    let allowed = &session.worker().config().allow_commands;
    let container = command.name.split('|').next().unwrap_or_default();
    allowed.iter().any(|name| **name == *command.name || name == container)
}

fn refusal(command: &Command) -> String {
    format!("ERR {} is refused by the proxy; the setting allow-commands permits it", shown(command))
}

/// What is answered to a command that cannot be sent, with the reason.
pub(crate) fn unsent(reason: &str) -> String {
    format!("UPSTREAM {reason}; the command was not sent")
}

fn refuse(state: &mut State, text: impl AsRef<[u8]>) -> Flow {
    state.turn.refused += 1;
    state.answer_error(text);
    Flow::Done
}

/// A command's name as people write it.
fn shown(command: &Command) -> String {
    command.name.replace('|', " ").to_uppercase()
}

/// Redis's words for a request with too many or too few arguments.
fn wrong_arity(state: &mut State, name: &str) -> Flow {
    state.turn.own += 1;
    state.answer_error(format!("ERR wrong number of arguments for '{name}' command"));
    Flow::Done
}
