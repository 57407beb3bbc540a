//! Feeds: upstream connections over which a server tells one session what that has subscribed to, or what all its clients do
//! (MONITOR). They exist beside the session's other traffic, from its first subscription there to its last.
//!
//! A feed speaks RESP3 whatever the client speaks: what comes by itself is a push then, what answers something is not. How
//! many frames answer a subscription depends on what is subscribed to already, and a server may end some of its own accord.
//! So nothing is counted: behind each request a HELLO is sent, and what came before its answer belongs to the request. HELLO
//! is what a server lets every user say, and answers with a map, which nothing else here is answered with.
//!
//! A connection that is silent is asked with the same HELLO whether it still lives: a gap in what is heard must not pass for
//! silence. One that is lost is not made again, since what was published meanwhile is gone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use nearside_nearcache::Time;
use nearside_resp::{Protocol, ReplyKind, ReplyScanner};

use super::connect::{self, Opened, Setup};
use super::link::{self, LinkError};
use crate::metrics::CutOff;
use crate::net::clock;
use crate::net::socket::Socket;
use crate::output::Output;
use crate::session::Session;
use crate::topology::Node;
use crate::users::User;
use crate::worker::Worker;

/// Spelled as nobody else spells it, so that it can be left out of what MONITOR shows.
const HELLO: &[u8] = b"*1\r\n$5\r\nHello\r\n";
const HELLO_IN_MONITOR: &[u8] = b"] \"Hello\"\r\n";

/// One session's connection to a node, for what that says of its own accord.
pub(crate) struct Feed {
    node: Arc<Node>,
    user: User,
    worker: Rc<Worker>,
    state: RefCell<State>,
    waker: Cell<Option<Waker>>,
}

struct State {
    /// None: it has ended.
    owner: Option<Rc<Session>>,
    is_up: bool,
    /// The server it leads to, as [`Node::server`] counts them.
    server: u64,
    output: Output,
    /// What the HELLOs that are not answered are for, oldest first: at most one probe, and one for each request.
    asked: VecDeque<Asked>,
    /// When the server last showed life, or was asked to.
    progress: Time,
    /// The beginning of a frame.
    partial: Vec<u8>,
    condemned: Option<LinkError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Does it still live?
    Probe,
    /// Is the request before it answered?
    Fence,
}

/// A whole frame of the server.
pub(crate) enum Heard<'a> {
    Borrowed(&'a [u8]),
    /// A long one, which nobody else has.
    Owned(Vec<u8>),
}

impl Heard<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Heard::Borrowed(bytes) => bytes,
            Heard::Owned(bytes) => bytes,
        }
    }
}

impl Feed {
    /// Connects; what is asked meanwhile waits.
    pub(crate) fn open(node: &Arc<Node>, user: &User, owner: &Rc<Session>) -> Rc<Self> {
        let feed = Rc::new(Feed {
            node: Arc::clone(node),
            user: user.clone(),
            worker: Rc::clone(owner.worker()),
            state: RefCell::new(State {
                owner: Some(Rc::clone(owner)),
                is_up: false,
                server: 0,
                output: Output::default(),
                asked: VecDeque::new(),
                progress: clock::now(),
                partial: Vec::new(),
                condemned: None,
            }),
            waker: Cell::new(None),
        });
        tokio::task::spawn_local(Rc::clone(&feed).run());
        feed
    }

    /// Ends the connection at once; its session hears nothing more of it.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.owner = None;
        state.condemned = Some(LinkError::Closed);
        drop(state);
        self.wake();
    }

    /// The node it leads to.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// As whom it is logged in.
    pub(crate) fn user(&self) -> &User {
        &self.user
    }

    /// Sends a request. The session is told when all that answers it has come.
    pub(crate) fn ask(&self, request: &[u8]) {
        self.send(request, Asked::Fence);
    }

    /// Sends a request of the proxy's own, whose answer concerns nobody.
    pub(crate) fn say(&self, request: &[u8]) {
        self.send(request, Asked::Probe);
    }

    fn send(&self, request: &[u8], asked: Asked) {
        let mut state = self.state.borrow_mut();
        state.output.copy(request);
        state.output.copy(HELLO);
        state.asked.push_back(asked);
        state.progress = clock::now();
        drop(state);
        self.node.counters(self.worker.index()).commands.add(1);
        self.wake();
    }

    /// Asks a server that has been silent for the upstream timeout whether it is there, and ends the connection if it does
    /// not say so for as long again; or if the server is the right one no longer.
    pub(crate) fn check(&self, now: Time) {
        let limit = self.worker.config().upstream_timeout;
        let state = self.state.borrow();
        if !state.is_up {
            return; // connecting has a limit of its own
        }
        let is_replaced = state.server != self.node.server().epoch() || !self.worker.topology().has(&self.node);
        let (is_silent, is_asked) = (now >= state.progress + limit, !state.asked.is_empty());
        drop(state);
        let condemned = match (is_replaced, is_silent, is_asked) {
            (true, ..) => LinkError::Replaced,
            (false, true, true) => LinkError::Silent(limit),
            (false, true, false) => return self.say(&[]),
            (false, false, _) => return,
        };
        self.state.borrow_mut().condemned = Some(condemned);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn owner(&self) -> Option<Rc<Session>> {
        self.state.borrow().owner.clone()
    }

    async fn run(self: Rc<Self>) {
        let setup = Setup {
            user: &self.user,
            protocol: Protocol::Resp3,
            db: self.worker.first_db(),
            tracking: false,
            asks_id: false,
            name: "nearside-feed",
        };
        let upstream = self.node.address();
        let text = match connect::open(self.worker.shared(), &self.node, setup).await {
            Ok(Opened { socket, server, .. }) => {
                self.came_up(server);
                let mut scanner = ReplyScanner::new();
                let error = poll_fn(|cx| self.poll_serve(cx, &socket, &mut scanner)).await;
                drop(socket);
                if self.owner().is_some() {
                    tracing::warn!("lost a client's subscriptions at upstream {upstream}: {error}");
                }
                format!("UPSTREAM lost the connection to {upstream}: {error}; the command may have been executed")
            }
            Err(error) => format!("UPSTREAM {upstream} is down: {error}; the command was not sent"),
        };
        self.forget_partial();
        let owner = self.state.borrow_mut().owner.take();
        if let Some(owner) = owner {
            self.node.counters(self.worker.index()).errors.add(1);
            self.worker.shared().doubt(&self.node);
            owner.feed_lost(&self, &text);
        }
    }

    fn came_up(&self, server: u64) {
        let mut state = self.state.borrow_mut();
        state.is_up = true;
        state.server = server;
        state.progress = clock::now();
    }

    /// Moves bytes both ways until the connection ends.
    fn poll_serve(&self, cx: &mut Context<'_>, socket: &Socket, scanner: &mut ReplyScanner) -> Poll<LinkError> {
        self.waker.set(Some(cx.waker().clone()));
        // What one read brings may end the feed.
        let read = |cx: &mut Context<'_>| {
            let condemned = self.state.borrow_mut().condemned.take();
            condemned.map_or_else(|| self.poll_frames(cx, socket, scanner), |error| Poll::Ready(Err(error)))
        };
        if let Err(error) = link::poll_reads(cx, read) {
            return Poll::Ready(error);
        }
        link::poll_write(cx, socket, &mut self.state.borrow_mut().output)
    }

    /// One read, and all that is in it.
    fn poll_frames(
        &self,
        cx: &mut Context<'_>,
        socket: &Socket,
        scanner: &mut ReplyScanner,
    ) -> Poll<Result<(), LinkError>> {
        let mut buffer = self.worker.scratch();
        let count = ready!(link::poll_read(cx, socket, &mut buffer))?;
        self.state.borrow_mut().progress = clock::now();
        let result = self.distribute(&buffer[..count], scanner);
        drop(buffer);
        if let Some(owner) = self.owner() {
            self.worker.flush_later(&owner);
        }
        Poll::Ready(result)
    }

    fn distribute(&self, mut bytes: &[u8], scanner: &mut ReplyScanner) -> Result<(), LinkError> {
        while let Some((piece, complete)) = link::next_piece(scanner, &mut bytes)? {
            let is_begun = !self.state.borrow().partial.is_empty();
            if complete && !is_begun {
                self.heard(Heard::Borrowed(piece), scanner.kind());
                continue;
            }
            let mut frame = std::mem::take(&mut self.state.borrow_mut().partial);
            frame.extend_from_slice(piece);
            if complete {
                self.worker.account_buffers(frame.len() - piece.len(), 0);
                self.heard(Heard::Owned(frame), scanner.kind());
            } else {
                self.keep(frame, piece.len());
            }
        }
        Ok(())
    }

    /// Keeps the beginning of a frame, which has grown. One that the client could not be given anyway ends it.
    fn keep(&self, frame: Vec<u8>, grown: usize) {
        self.worker.account_buffers(0, grown);
        let is_too_long = frame.len() > self.worker.config().output_limits.hard;
        self.state.borrow_mut().partial = frame;
        if let (true, Some(owner)) = (is_too_long, self.owner()) {
            owner.end(CutOff::Output);
            self.end();
        }
    }

    fn forget_partial(&self) {
        let partial = std::mem::take(&mut self.state.borrow_mut().partial);
        self.worker.account_buffers(partial.len(), 0);
    }

    /// A whole frame has come.
    fn heard(&self, frame: Heard<'_>, kind: Option<ReplyKind>) {
        let Some(owner) = self.owner() else { return };
        match kind {
            Some(ReplyKind::Push) => owner.feed_pushed(self, frame),
            Some(ReplyKind::Map) => {
                let asked = self.state.borrow_mut().asked.pop_front();
                if asked == Some(Asked::Fence) {
                    owner.feed_answered(self);
                }
            }
            Some(ReplyKind::Error | ReplyKind::BlobError) => {
                // What the proxy says for itself may be refused; a client's request is the next to be answered.
                let is_asked = self.state.borrow().asked.front() == Some(&Asked::Fence);
                if is_asked {
                    owner.feed_refused(self, frame.bytes());
                }
            }
            _ if frame.bytes().ends_with(HELLO_IN_MONITOR) => {}
            _ => owner.feed_told(self, frame),
        }
    }
}
