//! What a session asks of its feeds, and what it hears from them.
//!
//! One command at a time, and within it one step at a time: the client's next commands wait until it is confirmed, so that
//! `PUBLISH; SUBSCRIBE; PUBLISH` keep their order. A step's confirmations are made here, once all nodes that were asked have
//! given theirs; what a node tells behind its own is held back until then.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use nearside_nearcache::Time;
use nearside_resp::{Protocol, encode};

use super::Session;
use super::state::State;
use super::subscriptions::{Kind, Monitor, Request, Step, Subscriptions, Target, Verb};
use crate::commands::place;
use crate::lanes::feed::{Feed, Heard};
use crate::metrics::CutOff;
use crate::topology::Node;
use crate::topology::redirect::{self, MOST_REDIRECTIONS, PAUSE_FROM, Redirect};

const OTHER_LOGIN: &str =
    "ERR what this connection has subscribed to, it has with another password: unsubscribe from all of it before";

/// Begins or ends subscriptions. Only when nothing is in flight; nothing else runs until it is done. Without names: ends
/// nothing, and says so.
pub(crate) fn subscribe(session: &Rc<Session>, state: &mut State, verb: Verb, names: Vec<Bytes>) {
    let mut subscriptions = take(state);
    let steps = subscriptions.steps(verb, names.into_iter());
    let request = Request {
        verb,
        steps,
        step: Step::new(Vec::new(), Target::Nowhere),
        node: 0,
        error: None,
        redirections: 0,
        held: Vec::new(),
        since: state.now,
        is_silent: state.reply_mode.is_silent(),
    };
    proceed(session, state, &mut subscriptions, request);
    put_back(session, state, subscriptions);
}

/// Has a node show all that its clients do. Only when nothing is in flight; nothing else runs until it has agreed.
pub(crate) fn monitor(session: &Rc<Session>, state: &mut State, node: &Arc<Node>) {
    let mut subscriptions = take(state);
    let feed = Feed::open(node, &state.user, session);
    feed.ask(b"*1\r\n$7\r\nMONITOR\r\n");
    subscriptions.monitor = Some(Monitor { feed, asked: Some(state.now), is_silent: state.reply_mode.is_silent() });
    put_back(session, state, subscriptions);
}

fn take(state: &mut State) -> Box<Subscriptions> {
    state.subscriptions.take().unwrap_or_else(|| Box::new(Subscriptions::new(&state.topology)))
}

/// Keeps them, unless nothing is left of them. The session waits for a node that was asked, and goes on once that has answered.
fn put_back(session: &Rc<Session>, state: &mut State, mut subscriptions: Box<Subscriptions>) {
    subscriptions.close_unneeded();
    subscriptions.show(&state.client);
    let is_asking = subscriptions.is_asking();
    if is_asking != subscriptions.is_waited_for {
        // Not otherwise: it may be a SELECT that the session waits for.
        subscriptions.is_waited_for = is_asking;
        state.moving = is_asking;
        session.wake();
    }
    if !subscriptions.is_over() {
        state.subscriptions = Some(subscriptions);
    }
    state.restrict();
}

/// Takes the steps that are left, as far as that goes without waiting.
fn proceed(session: &Rc<Session>, state: &mut State, subscriptions: &mut Subscriptions, mut request: Request) {
    while let Some(step) = request.steps.pop_front() {
        request.step = step;
        request.redirections = 0;
        match nodes(session, state, subscriptions, &request) {
            Ok(nodes) if nodes.is_empty() => confirm(state, subscriptions, &request),
            Ok(nodes) => return ask(session, state, subscriptions, request, &nodes),
            Err(text) => {
                refuse(state, &request, text);
                request.steps.clear();
            }
        }
    }
    session.worker.metrics().served_forward(session.worker.now(), request.since);
}

/// The nodes that the request's step concerns; the first of them stands for all.
fn nodes(
    session: &Rc<Session>,
    state: &mut State,
    subscriptions: &mut Subscriptions,
    request: &Request,
) -> Result<Vec<Arc<Node>>, &'static str> {
    // AUTH as another is refused meanwhile; one with a new password of the same user is not.
    let is_other_user = |feed: &Rc<Feed>| *feed.user() != state.user;
    if request.verb.begins && subscriptions.sources.iter().any(|source| is_other_user(&source.feed)) {
        return Err(OTHER_LOGIN);
    }
    let heard = |subscriptions: &Subscriptions| -> Vec<_> {
        subscriptions.sources.iter().map(|source| Arc::clone(source.feed.node())).collect()
    };
    match request.step.target {
        Target::Everywhere if request.verb.begins => {
            let home = home(session, state, subscriptions)?;
            let others = state.topology.nodes().iter().filter(|node| node.id() != home.id());
            Ok([&home].into_iter().chain(others).cloned().collect())
        }
        Target::Home if request.verb.begins => Ok(vec![home(session, state, subscriptions)?]),
        Target::Slot(slot) => {
            let position = state.topology.position(slot).ok_or_else(|| place::not_served(session))?;
            Ok(vec![Arc::clone(&state.topology.nodes()[position])])
        }
        Target::Node(id, _) => Ok(heard(subscriptions).into_iter().filter(|node| node.id() == id).collect()),
        Target::Home => {
            let id = subscriptions.home;
            Ok(heard(subscriptions).into_iter().filter(|node| Some(node.id()) == id).collect())
        }
        Target::Everywhere | Target::Nowhere => Ok(heard(subscriptions)),
    }
}

/// The node that stands for all, chosen anew if it is not heard.
fn home(
    session: &Rc<Session>,
    state: &mut State,
    subscriptions: &mut Subscriptions,
) -> Result<Arc<Node>, &'static str> {
    let known = subscriptions.home.and_then(|id| subscriptions.source(id)).map(|source| Arc::clone(source.feed.node()));
    if let Some(node) = known {
        return Ok(node);
    }
    // Where its PUBLISHes go, so that it hears what it publishes from here on, and nothing from before.
    let count = state.topology.nodes().len();
    if count == 0 {
        return Err(place::not_served(session));
    }
    let node = Arc::clone(&state.topology.nodes()[state.lanes.any(session.id(), count)]);
    subscriptions.home = Some(node.id());
    Ok(node)
}

/// Asks the nodes to take the step.
fn ask(
    session: &Rc<Session>,
    state: &State,
    subscriptions: &mut Subscriptions,
    mut request: Request,
    nodes: &[Arc<Node>],
) {
    let mut frame = Vec::new();
    // What no node needs to know is told to the client behind what they had to tell before.
    if request.step.target != Target::Nowhere {
        let mut arguments = vec![request.verb.name().as_bytes()];
        arguments.extend(request.step.names.iter().map(|name| &name[..]));
        encode::command(&mut frame, &arguments);
    }
    for node in nodes {
        if subscriptions.source(node.id()).is_none() {
            subscriptions.add(Feed::open(node, &state.user, session));
        }
        let source = subscriptions.source(node.id()).expect("just added");
        source.is_asked = true;
        source.has_begun = false;
        source.feed.ask(&frame);
    }
    request.node = nodes.first().map_or(0, |node| node.id());
    subscriptions.request = Some(request);
}

/// Tells the client that the request's step has been taken.
fn confirm(state: &mut State, subscriptions: &mut Subscriptions, request: &Request) {
    if request.step.names.is_empty() {
        let frame = subscriptions.confirmation(request.verb, None, state.protocol);
        state.replies.push(&frame, &mut state.output);
    }
    for name in &request.step.names {
        match request.verb {
            Verb { kind, begins: true } => subscriptions.begin(kind, name, request.node),
            Verb { kind, begins: false } => subscriptions.end(kind, name),
        }
        let frame = subscriptions.confirmation(request.verb, Some(name), state.protocol);
        state.replies.push(&frame, &mut state.output);
    }
}

fn refuse(state: &mut State, request: &Request, text: &str) {
    let mut line = Vec::new();
    encode::error(&mut line, text.as_bytes());
    if !request.is_silent {
        state.replies.push(&line, &mut state.output);
    }
}

/// All nodes that were asked have answered, or are lost.
fn answered(session: &Rc<Session>, state: &mut State, subscriptions: &mut Subscriptions, mut request: Request) {
    let held = std::mem::take(&mut request.held);
    let error = request.error.take();
    let redirect = error.as_ref().and_then(|line| redirected(subscriptions, &request, line));
    match error {
        None => confirm(state, subscriptions, &request),
        // The slot has left the node, and the subscription with it.
        Some(_) if redirect.is_some() && !request.verb.begins => confirm(state, subscriptions, &request),
        Some(_) if matches!(redirect, Some(Redirect::Moved(..))) && request.redirections < MOST_REDIRECTIONS => {
            state.replies.push(&held, &mut state.output);
            return send_on(session, state, subscriptions, request, redirect);
        }
        Some(line) => {
            if !request.is_silent {
                state.replies.push(&line, &mut state.output);
            }
            take_back(subscriptions, &request);
            request.steps.clear();
        }
    }
    state.replies.push(&held, &mut state.output);
    proceed(session, state, subscriptions, request);
}

/// What a node of a cluster says of a shard channel that is not its own.
fn redirected(subscriptions: &mut Subscriptions, request: &Request, line: &[u8]) -> Option<Redirect> {
    let asked = Arc::clone(subscriptions.source(request.node)?.feed.node());
    Redirect::parse(line, asked.address()).filter(|_| request.verb.kind == Kind::Shard)
}

/// Of several nodes one has not taken the step: the others shall not have taken it either.
fn take_back(subscriptions: &Subscriptions, request: &Request) {
    if request.step.target != Target::Everywhere || !request.verb.begins {
        return;
    }
    let verb = Verb { begins: false, ..request.verb };
    let mut arguments = vec![verb.name().as_bytes()];
    arguments
        .extend(request.step.names.iter().map(|name| &name[..]).filter(|name| !subscriptions.has(verb.kind, name)));
    if arguments.len() > 1 {
        let mut frame = Vec::new();
        encode::command(&mut frame, &arguments);
        subscriptions.sources.iter().for_each(|source| source.feed.say(&frame));
    }
}

/// The slot is at another node: the step is taken there.
fn send_on(
    session: &Rc<Session>,
    state: &State,
    subscriptions: &mut Subscriptions,
    mut request: Request,
    redirection: Option<Redirect>,
) {
    session.worker.shared().topology_doubted.notify_one();
    request.redirections += 1;
    let node = match redirection {
        Some(Redirect::Moved(_, address)) => session.worker().shared().member(&address),
        _ => None,
    };
    if let Some(node) = node.filter(|_| request.redirections < PAUSE_FROM) {
        return ask(session, state, subscriptions, request, &[node]);
    }
    let pause = redirect::pause(request.redirections);
    subscriptions.request = Some(request);
    let session = Rc::clone(session);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(pause).await;
        session.ask_again();
    });
}

impl Session {
    /// After a pause: by now the topology may say where the slot is.
    fn ask_again(self: &Rc<Self>) {
        let state = &mut *self.state.borrow_mut();
        let Some(mut subscriptions) = state.subscriptions.take() else { return };
        let Some(mut request) = subscriptions.request.take() else { return put_back(self, state, subscriptions) };
        place::take_up_topology(self, state);
        match nodes(self, state, &mut subscriptions, &request) {
            Ok(nodes) => ask(self, state, &mut subscriptions, request, &nodes),
            Err(text) => {
                refuse(state, &request, text);
                request.steps.clear();
                proceed(self, state, &mut subscriptions, request);
            }
        }
        self.worker.flush_later(self);
        put_back(self, state, subscriptions);
    }

    /// A server has said something of its own accord, or confirmed a subscription.
    pub(crate) fn feed_pushed(self: &Rc<Self>, feed: &Feed, frame: Heard<'_>) {
        let state = &mut *self.state.borrow_mut();
        let Some(subscriptions) = &mut state.subscriptions else { return };
        if state.ending.is_some() {
            return; // it would never end, if enough is published
        }
        let node = feed.node().id();
        let [kind, name, second] = words(frame.bytes());
        let channel = if kind == b"pmessage" { second } else { name };
        let is_wanted = match kind {
            b"message" | b"pmessage" => subscriptions.is_wanted(node, channel),
            b"smessage" => true,
            _ => {
                let verb = Verb::named(kind);
                if let Some(source) = subscriptions.source(node).filter(|source| source.is_asked) {
                    source.has_begun = true;
                }
                if verb == Some(Verb { kind: Kind::Shard, begins: false }) {
                    self.server_ended(state, node, name);
                }
                return;
            }
        };
        if !is_wanted {
            return;
        }
        let is_held = subscriptions.source(node).is_some_and(|source| source.is_asked && source.has_begun);
        match &mut subscriptions.request {
            Some(request) if is_held => {
                request.held.push(first_byte(state.protocol));
                request.held.extend_from_slice(&frame.bytes()[1..]);
                if request.held.len() > self.worker.config().output_limits.hard {
                    state.cut_off(CutOff::Output, &self.worker);
                    self.wake();
                }
            }
            _ => tell(state, frame),
        }
    }

    /// A server has ended the subscription to a shard channel, whose slot it has lost: the client may subscribe anew.
    fn server_ended(self: &Rc<Self>, state: &mut State, node: u64, channel: &[u8]) {
        let Some(mut subscriptions) = state.subscriptions.take() else { return };
        let is_asked_for = |request: &Request| !request.verb.begins && request.step.has(channel);
        let is_confirmation = subscriptions.request.as_ref().is_some_and(is_asked_for);
        if !is_confirmation && subscriptions.shard_node(channel) == Some(node) {
            subscriptions.end(Kind::Shard, channel);
            let verb = Verb { kind: Kind::Shard, begins: false };
            let frame = subscriptions.confirmation(verb, Some(channel), state.protocol);
            state.replies.push(&frame, &mut state.output);
        }
        put_back(self, state, subscriptions);
    }

    /// A server has refused what it was asked.
    pub(crate) fn feed_refused(self: &Rc<Self>, feed: &Feed, line: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        let Some(subscriptions) = &mut state.subscriptions else { return };
        if let Some(monitor) = subscriptions.monitor.as_ref().filter(|monitor| monitor.is_from(feed)) {
            if !monitor.is_silent {
                state.replies.push(line, &mut state.output);
            }
            return;
        }
        if let Some(source) = subscriptions.source(feed.node().id()) {
            source.has_begun = true;
        }
        if let Some(request) = &mut subscriptions.request {
            request.error.get_or_insert_with(|| line.to_vec());
        }
    }

    /// All that answers what a server was asked has come.
    pub(crate) fn feed_answered(self: &Rc<Self>, feed: &Feed) {
        let state = &mut *self.state.borrow_mut();
        let Some(mut subscriptions) = state.subscriptions.take() else { return };
        if let Some(monitor) = subscriptions.monitor.take() {
            if monitor.is_from(feed) {
                self.monitor_answered(monitor, &mut subscriptions);
                return put_back(self, state, subscriptions);
            }
            subscriptions.monitor = Some(monitor);
        }
        if let Some(source) = subscriptions.source(feed.node().id()) {
            source.is_asked = false;
        }
        self.count_answers(state, &mut subscriptions);
        put_back(self, state, subscriptions);
    }

    /// Goes on if no node has yet to answer.
    fn count_answers(self: &Rc<Self>, state: &mut State, subscriptions: &mut Subscriptions) {
        if subscriptions.sources.iter().any(|source| source.is_asked) {
            return;
        }
        if let Some(request) = subscriptions.request.take() {
            answered(self, state, subscriptions, request);
            self.worker.flush_later(self);
        }
    }

    /// One that the server has agreed to is kept.
    fn monitor_answered(&self, monitor: Monitor, subscriptions: &mut Subscriptions) {
        match monitor.asked {
            None => subscriptions.monitor = Some(monitor),
            Some(_) => monitor.feed.end(),
        }
    }

    /// A server has answered with something that is neither a map nor an error: MONITOR, and what that shows.
    pub(crate) fn feed_told(self: &Rc<Self>, feed: &Feed, frame: Heard<'_>) {
        let state = &mut *self.state.borrow_mut();
        let Some(subscriptions) = &mut state.subscriptions else { return };
        let Some(monitor) = subscriptions.monitor.as_mut().filter(|monitor| monitor.is_from(feed)) else { return };
        if state.ending.is_some() {
            return;
        }
        let (asked, is_silent) = (monitor.asked.take(), monitor.is_silent);
        if let Some(since) = asked {
            self.worker.metrics().served_forward(self.worker.now(), since);
        }
        if asked.is_none() || !is_silent {
            push(state, frame);
        }
    }

    /// A feed has ended. If something was subscribed to there, the client would miss what is published from here on, and
    /// not know it: so its connection ends too.
    pub(crate) fn feed_lost(self: &Rc<Self>, feed: &Feed, text: &str) {
        let state = &mut *self.state.borrow_mut();
        let Some(mut subscriptions) = state.subscriptions.take() else { return };
        self.worker.flush_later(self);
        let monitor = subscriptions.monitor.take_if(|monitor| monitor.is_from(feed));
        let is_missed = match &monitor {
            Some(monitor) => monitor.asked.is_none(),
            None => subscriptions.is_needed(feed),
        };
        if is_missed {
            state.subscriptions = Some(subscriptions);
            return self.miss_messages(state);
        }
        if let Some(monitor) = monitor {
            if !monitor.is_silent {
                let mut line = Vec::new();
                encode::error(&mut line, text.as_bytes());
                state.replies.push(&line, &mut state.output);
            }
            return put_back(self, state, subscriptions);
        }
        subscriptions.sources.retain(|source| !std::ptr::eq(&raw const *source.feed, feed));
        if let Some(position) = state.topology.nodes().iter().position(|node| node.id() == feed.node().id()) {
            state.lanes.forget(position); // the next try may find another node
        }
        if let Some(request) = &mut subscriptions.request {
            request.error.get_or_insert_with(|| [b"-", text.as_bytes(), b"\r\n"].concat());
        }
        self.count_answers(state, &mut subscriptions);
        put_back(self, state, subscriptions);
    }

    fn miss_messages(&self, state: &mut State) {
        if state.ending.is_none() {
            state.note_cut_off(CutOff::UpstreamLost, &self.worker);
            state.ending = Some(Self::end_of_input(state));
        }
        self.wake();
    }

    /// A second has passed: are all servers there, and are they all there are?
    pub(super) fn check_feeds(&self, state: &mut State, now: Time) {
        let Some(subscriptions) = &state.subscriptions else { return };
        subscriptions.feeds().for_each(|feed| feed.check(now));
        if subscriptions.misses(&self.worker.topology()) {
            self.miss_messages(state);
        }
    }
}

/// Gives the client a frame of a server, in its own version of the protocol.
fn tell(state: &mut State, frame: Heard<'_>) {
    match frame {
        Heard::Borrowed(frame) => {
            state.replies.push(&[first_byte(state.protocol)], &mut state.output);
            state.replies.push(&frame[1..], &mut state.output);
        }
        Heard::Owned(mut frame) => {
            frame[0] = first_byte(state.protocol);
            state.replies.push_long(frame, &mut state.output);
        }
    }
}

/// Gives the client a frame as it is.
fn push(state: &mut State, frame: Heard<'_>) {
    match frame {
        Heard::Borrowed(frame) => state.replies.push(frame, &mut state.output),
        Heard::Owned(frame) => state.replies.push_long(frame, &mut state.output),
    }
}

/// How what a server says of its own accord begins.
fn first_byte(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => b'>',
    }
}

/// The strings that a push begins with; empty where there is none.
fn words(frame: &[u8]) -> [&[u8]; 3] {
    let mut rest = &frame[line_end(frame)..];
    std::array::from_fn(|_| {
        let (word, after) = word(rest).unwrap_or_default();
        rest = after;
        word
    })
}

/// The bulk string at the start of `bytes`, and what follows.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, content) = bytes.split_at(line_end(bytes));
    let length: usize = std::str::from_utf8(header.strip_prefix(b"$")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()?;
    Some((content.get(..length)?, content.get(length + 2..)?))
}

fn line_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_push_are_found() {
        let frame = b">4\r\n$8\r\npmessage\r\n$2\r\n*\n\r\n$0\r\n\r\n$1\r\nx\r\n";
        assert_eq!(words(frame), [&b"pmessage"[..], b"*\n", b""]);
        assert_eq!(words(b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"), [&b"unsubscribe"[..], b"", b""]);
        assert_eq!(words(b">2\r\n$5\r\nabc"), [b""; 3]);
    }
}
