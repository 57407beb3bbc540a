//! What a session's commands see and change.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nearside_nearcache::{CachedReply, Time};
use nearside_resp::{Limits, Protocol, ProtocolError};

use super::Ending;
use super::fences::Fences;
use super::gather::Gathers;
use super::lanes::Lanes;
use super::order::Order;
use super::own::Own;
use super::registry::Client;
use super::replies::Replies;
use super::subscriptions::Subscriptions;
use crate::commands::scan::Cursor;
use crate::config::OutputLimits;
use crate::metrics::{CutOff, Route};
use crate::output::Output;
use crate::topology::Topology;
use crate::users::{User, Verdict};
use crate::worker::Worker;

/// Changes of a session's memory below this are not reported: most sessions never reach it.
const ACCOUNT_STEP: usize = 16 * 1024;

/// Which replies the client wants, by `CLIENT REPLY`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplyMode {
    /// `OFF`: none, until `ON`.
    pub(crate) off: bool,
    /// The command being run is the one to skip.
    skip: bool,
    /// `SKIP`: the next one is.
    pub(crate) skip_next: bool,
}

impl ReplyMode {
    /// The reply of the command being run is not wanted.
    #[inline]
    pub(crate) fn is_silent(self) -> bool {
        self.off || self.skip
    }

    /// RESET: all replies from the next command on. The reply of RESET itself may be the one to skip.
    fn reset(&mut self) {
        self.off = false;
        self.skip_next = false;
    }

    /// The command is done; `SKIP` holds for one.
    #[inline]
    pub(crate) fn command_done(&mut self) {
        self.skip = std::mem::take(&mut self.skip_next);
    }
}

/// Commands of one turn, counted before they are added to the worker's metrics.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) hits: u64,
    pub(crate) own: u64,
    pub(crate) refused: u64,
}

/// A command that was not in the table, which the upstream is asked about.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) name: Vec<u8>,
    pub(crate) answer: Option<Learned>,
}

/// What came of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Learned {
    /// The upstream has no such command.
    Absent,
    /// It may have: if it does, the table holds it now.
    Answered,
    /// It has it under another name, which the table knows: that of `rename-command`.
    Renamed(Box<str>),
}

/// A login that the upstream judges.
#[derive(Debug)]
pub(crate) enum LoggingIn {
    /// It has been asked.
    Asked,
    /// It has answered.
    Answered(Verdict),
}

/// See the module.
pub(crate) struct State {
    pub(crate) client: Arc<Client>,
    pub(crate) output: Output,
    pub(crate) replies: Replies,
    /// Those of the replies that are put together of parts.
    pub(crate) gathers: Gathers,
    /// Those of the replies that wait for what the upstream has to say.
    pub(crate) fences: Fences,
    pub(crate) order: Order,
    pub(crate) protocol: Protocol,
    /// Whose rights its commands have upstream.
    pub(crate) user: User,
    pub(crate) db: u16,
    /// A password is not needed, or was given.
    pub(crate) authenticated: bool,
    /// Not every command may run: a password is missing, or what is subscribed to forbids it.
    pub(crate) is_restricted: bool,
    pub(crate) limits: Limits,
    pub(crate) reply_mode: ReplyMode,
    /// The topology that the session goes by; it takes up a newer one when nothing of its own is in flight.
    pub(crate) topology: Arc<Topology>,
    /// By the nodes of that, the forward lanes for the session's user, db and protocol that it has used.
    pub(crate) lanes: Lanes,
    /// The connection that it has to itself, if it needs one.
    pub(crate) own: Own,
    /// What it has subscribed to, if anything.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// Of an EXEC that is being answered: where SELECTs are among its commands, and the db each asks for.
    pub(crate) exec_selects: Vec<(usize, u16)>,
    /// The cursors of SCANs that are being answered, by the numbers of their replies. Not with the replies: every command has
    /// one of those, and it is to be small.
    pub(crate) walks: Vec<(u64, Cursor)>,
    /// Taken after the read that brought the commands being run: a hit is judged by it.
    pub(crate) now: Time,
    /// When it was last found not to be idle by who looks every second.
    pub(super) busy: Time,
    /// The number of the command run last; 0 for one that does not exist.
    pub(crate) last_command: u32,
    /// A command waits for something in flight.
    pub(crate) waiting: bool,
    /// CLIENT PAUSE is what it waits for.
    pub(crate) is_held_back: bool,
    /// The client takes no more bytes for now; the session's task waits for it.
    pub(crate) blocked: bool,
    /// A SELECT, CLIENT TRACKING or EXEC is being answered: which db or lane the next command is for is not known.
    pub(crate) moving: bool,
    /// A WAIT is being answered in a cluster, which may take as long as the client likes.
    pub(crate) waits: bool,
    pub(crate) question: Option<Question>,
    pub(crate) logging_in: Option<LoggingIn>,
    pub(crate) ending: Option<Ending>,
    pub(crate) closed: bool,
    /// Memory of the session's input.
    pub(crate) input_held: usize,
    pub(crate) turn: Turn,
    /// Since when the output has been past the soft limit.
    soft_since: Option<Time>,
    /// Memory last reported to the process's total.
    accounted: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("client", &self.client.id).field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(worker: &Worker, client: Arc<Client>) -> Self {
        let mut state = State {
            client,
            output: Output::default(),
            replies: Replies::default(),
            gathers: Gathers::default(),
            fences: Fences::default(),
            order: Order::default(),
            protocol: Protocol::Resp2,
            user: User::own(),
            db: 0,
            authenticated: false,
            is_restricted: true,
            limits: Limits::UNAUTHENTICATED,
            reply_mode: ReplyMode::default(),
            topology: Arc::clone(&worker.topology()),
            lanes: Lanes::default(),
            own: Own::None,
            subscriptions: None,
            exec_selects: Vec::new(),
            walks: Vec::new(),
            now: worker.now(),
            busy: worker.now(),
            last_command: 0,
            waiting: false,
            is_held_back: false,
            blocked: false,
            moving: false,
            waits: false,
            question: None,
            logging_in: None,
            ending: None,
            closed: false,
            input_held: 0,
            turn: Turn::default(),
            soft_since: None,
            accounted: 0,
        };
        state.reset(worker);
        state
    }

    /// As a new connection is: RESP2, the first db, no name, no user of its own, and no password given yet.
    pub(crate) fn reset(&mut self, worker: &Worker) {
        let config = worker.config();
        self.protocol = Protocol::Resp2;
        self.user = User::own();
        self.db = worker.first_db();
        self.lanes.clear();
        self.own.end();
        self.subscriptions = None;
        self.reply_mode.reset();
        self.set_authenticated(config.requirepass.is_none(), config.max_bulk_len);
        self.client.reset();
        self.show_connection();
    }

    /// The password was given (or is not needed): the limits of a client that may be trusted hold from here on.
    pub(crate) fn set_authenticated(&mut self, authenticated: bool, max_bulk_len: usize) {
        self.authenticated = authenticated;
        self.restrict();
        self.limits =
            if authenticated { Limits::authenticated(max_bulk_len) } else { Limits::unauthenticated(max_bulk_len) };
    }

    /// The session has logged in as this user, and gave this name. Only when nothing is in flight: the next command goes on a
    /// lane of that user.
    pub(crate) fn set_user(&mut self, user: User, name: &[u8], max_bulk_len: usize) {
        debug_assert!(self.replies.open() == 0, "a lane is changed only when nothing is in flight");
        if user != self.user {
            self.user = user;
            self.lanes.clear();
        }
        self.set_authenticated(true, max_bulk_len);
        self.client.set_user(name);
    }

    /// Notes whether every command may run.
    pub(crate) fn restrict(&mut self) {
        self.is_restricted = !self.authenticated || self.is_confined() || self.is_monitor();
    }

    /// Something is subscribed to.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscriptions.as_ref().is_some_and(|subscriptions| subscriptions.any())
    }

    /// A client of RESP2 could not tell replies from messages: while it is subscribed to something, few commands may run.
    pub(crate) fn is_confined(&self) -> bool {
        self.protocol == Protocol::Resp2 && self.is_subscribed()
    }

    /// MONITOR is on.
    pub(crate) fn is_monitor(&self) -> bool {
        self.subscriptions.as_ref().is_some_and(|subscriptions| subscriptions.is_monitor())
    }

    /// What the session does now may take as long as its client likes, and is for nobody else.
    pub(crate) fn is_waiting_upstream(&self) -> bool {
        self.waits || self.own.is_blocked()
    }

    /// Lets CLIENT LIST see db and protocol.
    pub(crate) fn show_connection(&self) {
        self.client.db.store(u32::from(self.db), Relaxed);
        self.client.resp3.store(self.protocol == Protocol::Resp3, Relaxed);
    }

    /// Lets CLIENT LIST see what the client did last.
    #[inline]
    pub(crate) fn show_turn(&self) {
        self.client.show(self.now, self.last_command);
    }

    /// The session's lane changes with the next command. Only when nothing is in flight.
    pub(crate) fn set_connection(&mut self, protocol: Protocol, db: u16) {
        debug_assert!(self.replies.open() == 0, "a lane is changed only when nothing is in flight");
        if (protocol, db) != (self.protocol, self.db) {
            self.protocol = protocol;
            self.db = db;
            self.lanes.clear();
            self.restrict();
            self.show_connection();
        }
    }

    /// Answers the command being run: `encode` appends the reply, in the session's protocol version.
    #[inline]
    pub(crate) fn answer(&mut self, encode: impl FnOnce(&mut Vec<u8>, Protocol)) {
        if self.reply_mode.is_silent() {
            return;
        }
        if self.replies.is_empty() {
            encode(self.output.tail(), self.protocol);
        } else {
            let mut reply = Vec::new();
            encode(&mut reply, self.protocol);
            self.replies.queue(reply);
        }
    }

    /// As [`State::answer`], with these bytes; they are not copied if they are many.
    pub(crate) fn answer_cached(&mut self, reply: CachedReply) {
        if self.reply_mode.is_silent() {
            return;
        }
        if self.replies.is_empty() {
            self.output.append(reply);
        } else {
            self.replies.queue_cached(reply);
        }
    }

    /// Answers with an error; its first word is its code.
    pub(crate) fn answer_error(&mut self, text: impl AsRef<[u8]>) {
        self.answer(|out, _| nearside_resp::encode::error(out, text.as_ref()));
    }

    /// Answers `+OK`.
    pub(crate) fn answer_ok(&mut self) {
        self.answer(|out, _| nearside_resp::encode::simple(out, b"OK"));
    }

    /// The client broke the protocol: Redis's error, and the end once what is owed has been delivered.
    pub(super) fn break_off(&mut self, error: &ProtocolError, worker: &Worker) {
        self.reply_mode = ReplyMode::default();
        self.answer(|out, _| error.append_reply(out));
        self.note_cut_off(CutOff::Protocol, worker);
        self.ending = Some(Ending::AfterReplies);
    }

    /// The session ends now, for a reason that is counted and logged.
    pub(crate) fn cut_off(&mut self, reason: CutOff, worker: &Worker) {
        if self.closed || self.ending == Some(Ending::Now) {
            return;
        }
        self.note_cut_off(reason, worker);
        self.ending = Some(Ending::Now);
    }

    /// Counts and logs that the session ends, or is about to.
    pub(crate) fn note_cut_off(&self, reason: CutOff, worker: &Worker) {
        worker.metrics().cut_off(reason);
        tracing::info!("client {} ({}) was cut off: {}", self.client.id, self.client.address, reason.label());
    }

    /// Adds the turn's commands to the worker's metrics; all of them were ready when the turn ended.
    #[inline]
    pub(crate) fn count_turn(&mut self, worker: &Worker, now: Time) {
        let Turn { hits, own, refused } = std::mem::take(&mut self.turn);
        if hits + own + refused == 0 {
            return;
        }
        let ns = now.0.saturating_sub(self.now.0);
        for (route, count) in [(Route::Hit, hits), (Route::Own, own), (Route::Refused, refused)] {
            if count > 0 {
                worker.metrics().served(route, ns, count);
            }
        }
    }

    /// When the fetch that the reply `sequence` waits for was asked for.
    pub(super) fn fetch_began(&self, sequence: u64) -> Time {
        self.order.fetch_since(sequence).unwrap_or(self.now)
    }

    /// Reports the session's memory to the total of the process, if it has changed much.
    pub(super) fn account(&mut self, worker: &Worker) {
        let output = self.output.len() + self.replies.held();
        self.client.hold(self.input_held, output);
        let subscribed = self.subscriptions.as_ref().map_or(0, |subscriptions| subscriptions.memory());
        let memory = self.input_held + output + self.own.queued() + subscribed;
        if memory.abs_diff(self.accounted) >= ACCOUNT_STEP {
            worker.account_buffers(self.accounted, memory);
            self.accounted = memory;
        }
    }

    /// True once the output has been past the soft limit for as long as that is allowed.
    pub(super) fn output_over_soft_limit(&mut self, now: Time, limits: &OutputLimits) -> bool {
        if self.output.len() + self.replies.held() <= limits.soft {
            self.soft_since = None;
            return false;
        }
        let since = *self.soft_since.get_or_insert(now);
        now >= since + limits.soft_time
    }

    /// The client has been told all that it asked for, and does not listen for more.
    pub(super) fn is_idle(&self) -> bool {
        let is_told = self.replies.is_empty() && self.output.is_empty();
        is_told && !self.waiting && self.logging_in.is_none() && self.subscriptions.is_none()
    }

    /// Gives back what the session held.
    pub(super) fn close(&mut self, worker: &Worker) {
        self.closed = true;
        self.output.clear();
        self.replies = Replies::default();
        self.gathers = Gathers::default();
        self.fences = Fences::default();
        self.order = Order::default();
        self.lanes.clear();
        self.logging_in = None;
        self.user = User::own();
        self.own.end();
        self.subscriptions = None;
        self.input_held = 0;
        worker.account_buffers(self.accounted, 0);
        self.accounted = 0;
    }
}
