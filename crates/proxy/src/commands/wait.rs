//! WAIT and WAITAOF: how many replicas have what this client has written. <https://redis.io/docs/latest/commands/wait/>
//!
//! A server answers for what came on the same connection, and a session's writes went by a lane that is not its own.
//!
//! - Before one server it is asked on a connection of the session's own, behind something that is replicated and changes
//!   nothing: its place in the stream is behind everything that was written before. A publication to nobody (a sharded one
//!   disturbs no pattern), or a db that is swapped with itself. Only that goes into the append-only file too; and who may not
//!   publish, or not swap, may often do the other.
//! - In a cluster a publication leaves no trace in the stream. There every primary is asked (ROLE) how far it has written
//!   and how far its replicas have acknowledged, until enough of them have what there was at first. They say so by themselves
//!   once a second, so it may take longer than at the server itself; it never tells of more replicas than have it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::Time;
use nearside_resp::encode;
use nearside_resp::frame::{self, Value};
use tokio_util::task::AbortOnDropHandle;

use super::pinned::{self, Sending};
use super::place::{self, Place};
use super::table::Command;
use super::{Call, Flow, client, refuse};
use crate::lanes::forward::{Errand, Frame};
use crate::lanes::written::Effect;
use crate::net::clock;
use crate::session::Session;
use crate::session::gather::{self, Purpose};
use crate::session::own::Own;
use crate::session::registry::{Client, Unblocked};
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::topology::Topology;

const ROLE: &[u8] = b"*1\r\n$4\r\nROLE\r\n";
const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
/// Between two questions to the primaries of a cluster.
const PAUSE: Duration = Duration::from_millis(20);
/// Past its timeout, how long those are waited for who have been asked and are about to answer.
const GRACE: Duration = Duration::from_millis(100);

/// Runs one; nothing of the session's is in flight.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    match (state.topology.is_cluster(), &*command.name) {
        (false, _) => at_one_server(session, state, call, command),
        (true, "wait") => in_cluster(session, state, call),
        (true, _) => refuse(state, "ERR WAITAOF is refused before a cluster: what was written is on several servers"),
    }
}

fn at_one_server(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    if matches!(state.own, Own::None) {
        match place::primary(session, state) {
            Ok(node) => pinned::pin(session, state, Place { node, slot: None }),
            Err(flow) => return flow,
        }
    }
    let version = session.worker().shared().upstream_version.load();
    let is_sharded = version.split('.').next().and_then(|major| major.parse().ok()).is_none_or(|major: u32| major >= 7);
    // If the command itself is not sent, nothing is asked for its sake.
    if let Some(lane) = state.own.lane().filter(|lane| lane.has_room() && !session.worker().is_overloaded()) {
        let publish: &[&[u8]] = if is_sharded { &[b"SPUBLISH", b"", b""] } else { &[b"PUBLISH", b"", b""] };
        let db = state.db.to_string();
        let swap: &[&[u8]] = &[b"SWAPDB", db.as_bytes(), db.as_bytes()];
        let marks = [publish, swap];
        lane.say_first(if &*command.name == "wait" { &marks } else { &marks[1..] });
    }
    pinned::submit(session, state, call, command, Sending { blocks: true, ..Sending::default() }).into()
}

/// A WAIT that is being answered, in a cluster.
#[derive(Debug)]
pub(crate) struct Waiting {
    replicas: i64,
    /// `None`: for as long as it takes.
    deadline: Option<Time>,
    topology: Arc<Topology>,
    /// By primary how far it had written when it was asked first.
    written: Vec<i64>,
    known: Rc<Known>,
    /// Ends it in time. `None`: there is no deadline.
    _timer: Option<AbortOnDropHandle<()>>,
}

/// What is known while some primary has not answered yet.
#[derive(Debug, Default)]
struct Known {
    /// Replicas that had everything when all primaries had last said how far they are.
    replicas: Cell<i64>,
    is_answered: Cell<bool>,
}

fn in_cluster(session: &Rc<Session>, state: &mut State, call: &Call<'_>) -> Flow {
    let integer = client::options::integer;
    let (replicas, timeout) = match (integer(call.request.arg(1)), integer(call.request.arg(2))) {
        (None, _) => return refuse(state, "ERR value is not an integer or out of range"),
        (_, None) => return refuse(state, "ERR timeout is not an integer or out of range"),
        (_, Some(..0)) => return refuse(state, "ERR timeout is negative"),
        (Some(replicas), Some(timeout)) => (replicas, timeout.unsigned_abs()),
    };
    if !place::may_go_on(session, state) {
        return Flow::Wait;
    }
    let topology = Arc::clone(&state.topology);
    if topology.nodes().is_empty() {
        return refuse(state, place::not_served(session));
    }
    let deadline = (timeout > 0).then(|| clock::now() + Duration::from_millis(timeout));
    let sequence = state.replies.expect(Source::Forward, Shape::Plain, state.reply_mode.is_silent());
    state.waits = true;
    session.client().waits_here();
    let known = Rc::new(Known::default());
    let timer =
        deadline.map(|deadline| end_in_time(session, sequence, deadline - clock::now() + GRACE, Rc::clone(&known)));
    let waiting = Waiting { replicas, deadline, topology, written: Vec::new(), known, _timer: timer };
    ask(session, state, sequence, waiting);
    Flow::Done
}

/// Answers with what is known then, if a primary is silent.
fn end_in_time(session: &Rc<Session>, sequence: u64, time: Duration, known: Rc<Known>) -> AbortOnDropHandle<()> {
    let session = Rc::clone(session);
    AbortOnDropHandle::new(tokio::task::spawn_local(async move {
        tokio::time::sleep(time).await;
        if known.is_answered.replace(true) {
            return;
        }
        let mut reply = UNBLOCKED.to_vec();
        if session.client().unblocked() != Some(Unblocked::ByError) {
            reply.clear();
            encode::integer(&mut reply, known.replicas.get());
        }
        session.with_state(|session, state| {
            state.waits = false;
            session.client().waits_no_more();
        });
        session.answer_without_parts(sequence, &reply);
    }))
}

/// Asks every primary how far it is.
fn ask(session: &Rc<Session>, state: &mut State, sequence: u64, waiting: Waiting) {
    let topology = Arc::clone(&waiting.topology);
    let nodes = topology.nodes();
    let first = state.gathers.begin(sequence, state.now, Purpose::Wait(Box::new(waiting)), nodes.len());
    for (number, node) in (first..).zip(nodes) {
        let lane = session.worker().lane(node, &state.user, state.db, state.protocol);
        let errand = Errand::new(session, number, clock::now(), None, false);
        let sent = lane.and_then(|lane| lane.submit(errand, Frame::Borrowed(ROLE), |_| Effect::None).map(drop));
        if let Err(reason) = sent {
            gather::not_sent(session, state, number, &reason);
        }
    }
}

impl Waiting {
    /// All primaries have said how far they are. Gives the reply; `None`: they are asked again.
    pub(crate) fn answer(
        mut self,
        session: &Rc<Session>,
        state: &mut State,
        sequence: u64,
        replies: &[&[u8]],
    ) -> Option<Vec<u8>> {
        let reply = self.judge(session.client(), replies);
        if reply.is_some() {
            self.known.is_answered.set(true);
            state.waits = false;
            session.client().waits_no_more();
            return reply;
        }
        let session = Rc::clone(session);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(PAUSE).await;
            if !self.known.is_answered.get() {
                session.with_state(|session, state| ask(session, state, sequence, self));
            }
        });
        None
    }

    /// The reply, if the waiting is over.
    fn judge(&mut self, client: &Client, replies: &[&[u8]]) -> Option<Vec<u8>> {
        if let Some(error) = replies.iter().find(|reply| reply.starts_with(b"-")) {
            return Some(error.to_vec());
        }
        let progress: Option<Vec<Progress>> = replies.iter().map(|reply| Progress::parse(reply)).collect();
        let Some(progress) = progress else {
            return Some(b"-UPSTREAM a primary is one no longer; what its replicas have is not known\r\n".to_vec());
        };
        if self.written.is_empty() {
            self.written = progress.iter().map(|progress| progress.written).collect();
        }
        let counts = progress.iter().zip(&self.written).map(|(progress, written)| progress.count(*written));
        let count = counts.min().unwrap_or(0);
        self.known.replicas.set(count);
        let unblocked = client.unblocked();
        if unblocked == Some(Unblocked::ByError) {
            return Some(UNBLOCKED.to_vec());
        }
        let is_late = unblocked.is_some() || self.deadline.is_some_and(|deadline| clock::now() >= deadline);
        (is_late || count >= self.replicas).then(|| {
            let mut reply = Vec::new();
            encode::integer(&mut reply, count);
            reply
        })
    }
}

/// What a primary says of its stream.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    /// How far it has written.
    written: i64,
    /// How far each of its replicas has acknowledged.
    acknowledged: Vec<i64>,
}

impl Progress {
    /// Reads an answer to ROLE: <https://redis.io/docs/latest/commands/role/>. `None`: not a primary's.
    fn parse(reply: &[u8]) -> Option<Self> {
        let role = frame::parse(reply).ok()?;
        let [name, written, replicas] = role.as_items()? else { return None };
        if name.as_bytes() != Some(b"master") {
            return None;
        }
        let offset = |replica: &Value| std::str::from_utf8(replica.as_items()?.get(2)?.as_bytes()?).ok()?.parse().ok();
        let acknowledged = replicas.as_items()?.iter().map(offset).collect::<Option<_>>()?;
        Some(Progress { written: written.as_integer()?, acknowledged })
    }

    /// Replicas that have what had been written then.
    fn count(&self, written: i64) -> i64 {
        self.acknowledged.iter().filter(|offset| **offset >= written).count() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_says_how_far_its_replicas_are() {
        let reply = b"*3\r\n$6\r\nmaster\r\n:100\r\n*2\r\n*3\r\n$1\r\na\r\n$4\r\n6379\r\n$3\r\n100\r\n*3\r\n$1\r\nb\r\n$4\r\n6379\r\n$2\r\n99\r\n";
        let progress = Progress::parse(reply).expect("a primary's");
        assert_eq!(progress, Progress { written: 100, acknowledged: vec![100, 99] });
        assert_eq!([99, 100, 101].map(|written| progress.count(written)), [2, 1, 0]);
        assert_eq!(Progress::parse(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n").map(|progress| progress.count(0)), Some(0));
    }

    #[test]
    fn a_replica_says_nothing_of_others() {
        let reply = b"*5\r\n$5\r\nslave\r\n$1\r\na\r\n:6379\r\n$9\r\nconnected\r\n:100\r\n";
        assert_eq!(Progress::parse(reply), None);
        assert_eq!(Progress::parse(b"+OK\r\n"), None);
    }
}
