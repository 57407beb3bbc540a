//! CLIENT PAUSE and UNPAUSE: the proxy's clients wait; those of the upstream that came another way do not.

use std::rc::Rc;
use std::time::Duration;

use nearside_nearcache::Time;
use nearside_resp::Request;

use super::options;
use crate::commands::table::{Command, Effect};
use crate::net::clock;
use crate::session::Session;
use crate::session::own::Own;
use crate::session::state::State;

/// Whose commands wait, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) until: Time,
    /// All commands, not only those that write.
    pub(crate) all: bool,
}

impl Pause {
    /// Whether this command has to wait, of a session with this connection.
    #[cold]
    pub(crate) fn holds(self, command: &Command, own: &Own) -> bool {
        let may_write = || if &*command.name == "exec" { own.exec_may_write() } else { may_write(command) };
        clock::now() < self.until && (self.all || may_write())
    }
}

/// As Redis judges it: what may have to be replicated.
pub(crate) fn may_write(command: &Command) -> bool {
    matches!(command.effect, Effect::Write | Effect::Script | Effect::Opaque | Effect::Flush)
        || matches!(
            &*command.name,
            "publish" | "spublish" | "function|load" | "function|delete" | "function|flush" | "function|restore"
        )
}

/// PAUSE. A pause that is under way is never made shorter or weaker.
pub(super) fn pause(session: &Rc<Session>, request: &Request<'_>) -> Result<(), &'static str> {
    let all = match request.get(3).map(<[u8]>::to_ascii_uppercase).as_deref() {
        None | Some(b"ALL") => true,
        Some(b"WRITE") => false,
        Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL"),
    };
    let timeout = match options::integer(request.arg(2)) {
        Some(timeout @ 0..) => timeout.unsigned_abs(),
        Some(_) => return Err("ERR timeout is negative"),
        None => return Err("ERR timeout is not an integer or out of range"),
    };
    let now = clock::now();
    let until = now + Duration::from_millis(timeout.min(LONGEST_MS));
    session.worker().shared().pause(|pause| {
        if pause.until <= now {
            Pause { until, all }
        } else {
            Pause { until: pause.until.max(until), all: pause.all || all }
        }
    });
    Ok(())
}

/// UNPAUSE.
pub(super) fn unpause(session: &Rc<Session>, state: &mut State) {
    session.worker().shared().pause(|_| Pause::default());
    state.answer_ok();
}

/// A century: sums of times do not overflow.
const LONGEST_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
