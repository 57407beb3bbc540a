//! Forward lanes: clients' commands as they came, on one pipelined connection per worker, node, user, db and protocol version.
//!
//! Commands are appended to one output buffer and their senders to one queue; the lane's task writes the buffer once
//! all sessions of the turn have run, and hands the replies of one read to their sessions, each of which then flushes
//! once. Nothing is sent twice: when the connection is lost, every command on it is answered with an error.

mod connection;
mod redirected;
mod replies;
mod sent;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use nearside_nearcache::Time;
use nearside_resp::Protocol;

use self::sent::SentFrames;
use super::link::{Link, LinkError, Patience};
use super::written::{Effect, WrittenKeys};
use crate::net::clock;
use crate::output::{Output, SHARE_FROM};
use crate::session::Session;
use crate::topology::{Node, Slot};
use crate::users::User;
use crate::worker::Worker;

/// Unwritten bytes past which sessions wait before adding more: a few batches of the largest common commands. One
/// command may overshoot it by its own length.
const OUTPUT_LIMIT: usize = 16 << 20;
/// Commands in flight past which sessions wait.
const DEPTH_LIMIT: usize = 1 << 16;
/// Bytes of commands in flight past which sessions wait, where they are kept until they are answered: in a cluster.
const KEPT_LIMIT: usize = 64 << 20;
/// A connection that carried nothing for this long is closed; the next command opens another.
const IDLE_AFTER: Duration = Duration::from_secs(300);
/// A lane to a node that is no part of the topology ends when it has carried nothing for this long. One that was made
/// because of a redirection is ahead of the topology for a moment.
const UNWANTED_AFTER: Duration = Duration::from_secs(5);
/// A lane of a user of a session's own ends when no session has it and it has carried nothing for this long.
const LEFT_AFTER: Duration = Duration::from_secs(10);

/// Looks at the clients' sockets before a write.
const PUT_OFF_AT_MOST: u8 = 3;
/// Bytes that are worth a write.
const OUTPUT_ENOUGH: usize = 16 * 1024;

/// What distinguishes the forward lanes of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    /// [`Node::id`].
    pub(crate) node: u64,
    /// [`User::id`].
    pub(crate) user: u16,
    /// The database its commands run in.
    pub(crate) db: u16,
    /// The protocol version of its replies.
    pub(crate) protocol: Protocol,
}

/// A command's bytes.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    /// In a buffer that will be reused: copied.
    Borrowed(&'a [u8]),
    /// Owned, worth sharing.
    Shared(Bytes),
}

impl Frame<'_> {
    fn len(&self) -> usize {
        match self {
            Frame::Borrowed(bytes) => bytes.len(),
            Frame::Shared(bytes) => bytes.len(),
        }
    }
}

/// Whose a command is, and where it belongs.
#[derive(Clone)]
pub(crate) struct Errand {
    pub(crate) session: Rc<Session>,
    /// The number of the reply, in its session.
    pub(crate) sequence: u64,
    /// When the command came.
    pub(crate) since: Time,
    /// Of its keys; `None`: none were found, and no node's word is followed that another one has them.
    pub(crate) slot: Option<Slot>,
    /// A program at the server makes its errors, and may say what it likes: a script's, a module's.
    pub(crate) is_program: bool,
    /// How often it was sent on from one node to another.
    redirections: u8,
    /// It was sent with ASKING before it.
    asking: bool,
}

impl Errand {
    /// One that has not been sent yet.
    #[inline]
    pub(crate) fn new(session: &Rc<Session>, sequence: u64, since: Time, slot: Option<Slot>, is_program: bool) -> Self {
        let session = Rc::clone(session);
        Errand { session, sequence, since, slot, is_program, redirections: 0, asking: false }
    }
}

/// A command whose reply is owed.
struct Awaiting {
    /// None of ASKING, whose reply concerns nobody.
    errand: Option<Errand>,
    effect: Effect,
    /// Where its bytes begin, counted from the lane's first byte.
    offset: u64,
    /// How many they are.
    len: usize,
}

/// One connection to a node, shared by all sessions of a worker that have its user, db and protocol version.
pub(crate) struct ForwardLane {
    key: LaneKey,
    node: Arc<Node>,
    user: User,
    worker: Rc<Worker>,
    state: RefCell<State>,
    waker: Cell<Option<Waker>>,
}

struct State {
    link: Link,
    /// The server it leads to, as [`Node::server`] counts them.
    server: u64,
    /// It has been connected once.
    was_up: bool,
    output: Output,
    /// Bytes ever queued in `output`.
    queued: u64,
    awaiting: VecDeque<Awaiting>,
    written: WrittenKeys,
    /// The commands' bytes, in a cluster.
    sent: Option<SentFrames>,
    /// The beginning of an error that may be a redirection.
    error: Vec<u8>,
    /// The oldest command's reply has begun: its effect is applied, part of it may be with the client.
    begun: bool,
    /// When the upstream last showed life, or the first command was queued.
    progress: Time,
    /// The upstream takes no more bytes for now.
    blocked: bool,
    /// How often the write has been put off, and what was to be written then.
    put_off: (u8, usize),
    /// Sessions that wait for room.
    parked: Vec<Rc<Session>>,
    /// Set by the tick: the reason to end the connection.
    condemned: Option<LinkError>,
    /// Its place was given to another one.
    is_over: bool,
    /// Another server has taken the address: what is owed is still taken, and nothing more is sent.
    is_left: bool,
    patience: Patience,
}

impl State {
    #[inline]
    fn queue(&mut self, errand: Option<Errand>, frame: Frame<'_>, effect: Effect) {
        let len = frame.len();
        self.awaiting.push_back(Awaiting { errand, effect, offset: self.queued, len });
        self.queued += len as u64;
        match frame {
            Frame::Borrowed(bytes) if len < SHARE_FROM => {
                self.output.copy(bytes);
                if let Some(sent) = &mut self.sent {
                    sent.push(bytes);
                }
            }
            Frame::Borrowed(bytes) => self.share(Bytes::copy_from_slice(bytes)),
            Frame::Shared(bytes) => self.share(bytes),
        }
    }

    /// Whether less than a `part`th of what may be is queued, in flight and kept.
    #[inline]
    fn has_room(&self, part: usize) -> bool {
        self.output.len() < OUTPUT_LIMIT / part
            && self.awaiting.len() < DEPTH_LIMIT / part
            && (self.sent.is_none() || self.kept() < KEPT_LIMIT / part)
    }

    /// Bytes of the commands in flight.
    fn kept(&self) -> usize {
        self.awaiting.front().map_or(0, |front| (self.queued - front.offset) as usize)
    }

    /// Whether more is to be expected before the write: while every look at the clients' sockets brings more commands, one
    /// write for all of them costs less.
    fn puts_off(&mut self) -> bool {
        let (times, seen) = self.put_off;
        let len = self.output.len();
        if self.blocked || times == PUT_OFF_AT_MOST || len == seen || len >= OUTPUT_ENOUGH {
            return false;
        }
        self.put_off = (times + 1, len);
        true
    }

    fn share(&mut self, frame: Bytes) {
        if let Some(sent) = &mut self.sent {
            sent.push_shared(frame.clone());
        }
        self.output.append(frame);
    }

    /// The oldest command has been answered.
    #[inline]
    fn pop_front(&mut self) -> Awaiting {
        let front = self.awaiting.pop_front().expect("begin_reply found one");
        if let Some(sent) = &mut self.sent {
            sent.drop_front(front.len);
        }
        front
    }

    fn came_up(&mut self, server: u64) {
        self.link = Link::Up;
        self.server = server;
        self.is_left = false;
        self.was_up = true;
        self.progress = clock::now();
    }
}

impl ForwardLane {
    /// A lane that connects when it gets its first command.
    pub(crate) fn spawn(worker: &Rc<Worker>, node: &Arc<Node>, user: &User, key: LaneKey) -> Rc<Self> {
        let is_cluster = worker.topology().is_cluster();
        let lane = Rc::new(ForwardLane {
            key,
            node: Arc::clone(node),
            user: user.clone(),
            worker: Rc::clone(worker),
            state: RefCell::new(State {
                link: Link::Idle,
                server: 0,
                was_up: false,
                output: Output::default(),
                queued: 0,
                awaiting: VecDeque::new(),
                written: WrittenKeys::default(),
                sent: is_cluster.then(SentFrames::default),
                error: Vec::new(),
                begun: false,
                progress: clock::now(),
                blocked: false,
                put_off: (0, 0),
                parked: Vec::new(),
                condemned: None,
                is_over: false,
                is_left: false,
                patience: Patience::default(),
            }),
            waker: Cell::new(None),
        });
        tokio::task::spawn_local(Rc::clone(&lane).run());
        lane
    }

    /// What distinguishes it.
    pub(crate) fn key(&self) -> LaneKey {
        self.key
    }

    /// True while its connection is made: what its handshake established holds.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().link == Link::Up
    }

    /// False: the session must wait; it is woken when there is room.
    #[inline]
    pub(crate) fn has_room(&self, session: &Rc<Session>) -> bool {
        let mut state = self.state.borrow_mut();
        if state.has_room(1) && !state.is_left {
            return true;
        }
        if state.is_left {
            self.wake(); // to end, if nothing is owed
        }
        if session.park() {
            state.parked.push(Rc::clone(session));
        }
        false
    }

    /// Why its node cannot be reached, if that is known.
    pub(crate) fn down(&self) -> Option<String> {
        match &self.state.borrow().link {
            Link::Down { reason } => Some(reason.clone()),
            Link::Idle | Link::Connecting | Link::Up => None,
        }
    }

    /// Queues a command; its reply comes to the session of the errand. `note_keys` queues the keys that the command
    /// writes, and says what its reply makes true. The error: why the node can't be reached; nothing was queued.
    #[inline]
    pub(crate) fn submit(
        &self,
        errand: Errand,
        frame: Frame<'_>,
        note_keys: impl FnOnce(&mut WrittenKeys) -> Effect,
    ) -> Result<Effect, String> {
        let mut state = self.state.borrow_mut();
        match &state.link {
            Link::Up | Link::Connecting => {}
            Link::Idle => state.link = Link::Connecting,
            Link::Down { reason } => return Err(reason.clone()),
        }
        if state.awaiting.is_empty() {
            state.progress = clock::now(); // the session's own time may lie back
        }
        let effect = note_keys(&mut state.written);
        let was_empty = state.output.is_empty();
        state.queue(Some(errand), frame, effect);
        drop(state);
        if was_empty {
            self.wake();
        }
        self.node.counters(self.worker.index()).commands.add(1);
        Ok(effect)
    }

    /// Ends the connection if it owes a reply and nothing has moved for the upstream timeout, or for a moment where another
    /// node has taken over; or if nothing is in flight, and it has not been used for long, or leads to a server that another
    /// has taken the place of.
    pub(crate) fn check(&self, now: Time) {
        let mut state = self.state.borrow_mut();
        let limit = self.worker.config().upstream_timeout;
        if state.condemned.is_some() {
            return;
        }
        let is_up = state.link == Link::Up;
        state.is_left = is_up && state.server != self.node.server().epoch();
        let is_spent = is_up && state.awaiting.is_empty() && (state.is_left || now >= state.progress + IDLE_AFTER);
        let is_primary = || self.worker.topology().has(&self.node);
        state.patience.look(is_primary);
        let owes = is_up && !state.awaiting.is_empty();
        let given_up = if owes { state.patience.end(now, state.progress, limit, is_primary) } else { None };
        if given_up.is_some() {
            state.condemned = given_up;
        } else if is_spent || (is_up || state.link == Link::Idle) && self.is_unwanted(&state, now) {
            state.condemned = Some(LinkError::Closed);
        } else {
            state.sent.iter_mut().for_each(SentFrames::shrink);
            return;
        }
        drop(state);
        self.wake();
    }

    /// Nothing is to be expected of it any more: its node is no part of the topology, and nobody uses it.
    fn is_unwanted(&self, state: &State, now: Time) -> bool {
        let is_left = now >= state.progress + UNWANTED_AFTER && !self.worker.topology().has(&self.node);
        state.awaiting.is_empty() && (state.is_over || is_left)
    }

    /// Ends the lane, if no session holds it: only the worker and the lane's own task do.
    pub(crate) fn end_if_unused(self: &Rc<Self>) -> bool {
        let mut state = self.state.borrow_mut();
        if Rc::strong_count(self) > 2 || !state.awaiting.is_empty() {
            return false;
        }
        state.is_over = true;
        state.condemned = Some(LinkError::Closed);
        drop(state);
        self.wake();
        true
    }

    /// As [`ForwardLane::end_if_unused`], once nothing has moved for a while. A user's password is forgotten with the last
    /// lane that may have to log in anew.
    pub(crate) fn end_if_left(self: &Rc<Self>, now: Time) -> bool {
        let progress = self.state.borrow().progress;
        now >= progress + LEFT_AFTER && self.end_if_unused()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
