//! NEARSIDE FLUSH: what is cached is forgotten; the upstream keeps its data.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Release};

use crate::commands::Flow;
use crate::glob::Glob;
use crate::net::clock;
use crate::session::Session;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;

const UNDER_WAY: &str = "BUSY another NEARSIDE FLUSH with a pattern is under way";

pub(super) fn run(session: &Rc<Session>, state: &mut State, pattern: Option<&[u8]>) -> Flow {
    match pattern {
        None => {
            session.worker().cache().inspect(|cache| cache.flush());
            state.turn.own += 1;
            state.answer_ok();
        }
        Some(pattern) => match Glob::new(pattern) {
            Some(glob) => matching(session, state, glob),
            None => state.answer_error("ERR the pattern is too long"),
        },
    }
    Flow::Done
}

/// Every entry is looked at, which may take a second: on a thread that serves nobody, and once at a time.
fn matching(session: &Rc<Session>, state: &mut State, glob: Glob) {
    let Some(cache) = session.worker().cache().map(Arc::clone) else {
        return state.answer(|out, _| nearside_resp::encode::integer(out, 0));
    };
    let shared = Arc::clone(session.worker().shared());
    if shared.flushing.swap(true, AcqRel) {
        return state.answer_error(UNDER_WAY);
    }
    let sequence = state.replies.expect(Source::Forward, Shape::Plain, state.reply_mode.is_silent());
    let flush = tokio::task::spawn_blocking(move || {
        let count = cache.flush_matching(|key| glob.matches(key), clock::now());
        shared.flushing.store(false, Release);
        count
    });
    let session = Rc::clone(session);
    tokio::task::spawn_local(async move {
        let line = match flush.await {
            Ok(count) => format!(":{count}\r\n"),
            Err(error) => format!("-ERR the flush failed: {error}\r\n"),
        };
        session.deliver(sequence, line.as_bytes(), true);
        session.worker().flush_later(&session);
    });
}
