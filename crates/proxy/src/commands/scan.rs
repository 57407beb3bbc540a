//! SCAN before a cluster: one node after the other, in the order of their first slots. The cursor says where the walk is.
//!
//! | bits of the cursor | |
//! |---|---|
//! | 0–13 | a slot: the walk is at the node that serves it |
//! | 14–23 | the mark of the server behind that node, or 0 |
//! | 24–63 | the server's own cursor |
//!
//! A server's cursor means nothing to another server, nor to the same one after a restart, as each orders its keys in its
//! own way. So when the slot's server bears another mark than the cursor (a failover, a restart, the slot has moved), the walk
//! of that node begins again: keys may come twice, as SCAN allows, and none is left out because of that. What can be left
//! out, as with any client that walks a cluster, are keys whose slot moves during the walk to a node that is done.
//!
//! A slot that nobody serves is not passed over: SCAN says so until somebody does.

use std::rc::Rc;

use nearside_resp::encode;

use super::table::Command;
use super::{Call, Flow, OVERLOAD, forward, place, refuse};
use crate::lanes::forward::{Errand, Frame};
use crate::lanes::written::Effect;
use crate::session::Session;
use crate::session::replies::{Shape, Source};
use crate::session::state::State;
use crate::topology::server::MARK_BITS;
use crate::topology::{SLOTS, Slot, Topology};

const SLOT_BITS: u32 = 14;
const OWN_BITS: u32 = u64::BITS - SLOT_BITS - MARK_BITS;
const INVALID: &str = "ERR invalid cursor";
const TOO_LARGE: &str = "UPSTREAM the cursor of the node is too large to be passed on; the keys are not complete";

/// A cursor as clients have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Where the walk is.
    slot: u16,
    /// Of the server that gave `own`; 0 if it is not known, or `own` is 0.
    mark: u16,
    /// The server's cursor; 0: the node's walk is to begin.
    own: u64,
}

/// Sends SCAN to the node that the cursor says.
pub(super) fn run(session: &Rc<Session>, state: &mut State, call: &Call<'_>, command: &Command) -> Flow {
    // One that the server refuses for its form goes anywhere.
    if !state.topology.is_cluster() || !command.arity_ok(call.request.len()) {
        return forward::run(session, state, call, command, Shape::Plain);
    }
    let Some(asked) = Cursor::parse(call.request.arg(1)) else { return refuse(state, INVALID) };
    if !place::may_go_on(session, state) {
        return Flow::Wait;
    }
    let Some(node) = Slot::new(asked.slot).and_then(|slot| state.topology.position(slot)) else {
        return refuse(state, place::not_served(session));
    };
    let lane = match forward::lane(session, state, node) {
        Ok(lane) => lane,
        Err(reason) => return refuse(state, super::unsent(&reason)),
    };
    if !lane.has_room(session) {
        return Flow::Wait;
    }
    if session.worker().turns_away() {
        return refuse(state, OVERLOAD);
    }
    let sent = asked.at(state.topology.nodes()[node].server().mark());
    let own = sent.own.to_string();
    let arguments: Vec<&[u8]> =
        call.request.args().enumerate().map(|(at, arg)| if at == 1 { own.as_bytes() } else { arg }).collect();
    let mut frame = Vec::new();
    encode::command(&mut frame, &arguments);
    let sequence = state.replies.expect(Source::Forward, Shape::Walk, state.reply_mode.is_silent());
    let errand = Errand::new(session, sequence, state.now, None, false);
    if let Err(reason) = lane.submit(errand, Frame::Borrowed(&frame), |_| Effect::None) {
        forward::not_sent(state, node, &reason);
    } else {
        state.walks.push((sequence, sent));
    }
    Flow::Done
}

/// A node has answered: gives the reply for the client, in which the cursor is the client's own.
pub(crate) fn complete(state: &mut State, sequence: u64, reply: Vec<u8>) -> Vec<u8> {
    let Some(at) = state.walks.iter().position(|(number, _)| *number == sequence) else { return reply };
    let (_, sent) = state.walks.swap_remove(at);
    let Some((own, keys)) = parse(&reply) else { return reply }; // an error
    let mut out = Vec::with_capacity(reply.len() + 16);
    let topology = &state.topology;
    let node = Slot::new(sent.slot).and_then(|slot| topology.position(slot));
    let mark = node.map_or(0, |node| topology.nodes()[node].server().mark());
    match sent.next(own, mark, |slot| next_start(topology, slot)) {
        Some(next) => {
            encode::array_header(&mut out, 2);
            encode::bulk(&mut out, next.number().to_string().as_bytes());
            out.extend_from_slice(keys);
        }
        None => encode::error(&mut out, TOO_LARGE.as_bytes()),
    }
    out
}

/// The server's cursor in a reply to SCAN, and the keys as they came.
fn parse(reply: &[u8]) -> Option<(u64, &[u8])> {
    let rest = reply.strip_prefix(b"*2\r\n$")?;
    let length = rest.iter().position(|byte| *byte == b'\r')?;
    let digits: usize = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    let (cursor, rest) = rest.get(length + 2..)?.split_at_checked(digits)?;
    Some((std::str::from_utf8(cursor).ok()?.parse().ok()?, rest.strip_prefix(b"\r\n")?))
}

/// The slot at which the walk goes on when the node that serves `slot` is done: the next one that is served by nobody, or by
/// a node which serves none before it.
fn next_start(topology: &Topology, slot: u16) -> Option<u16> {
    let mut seen = vec![false; topology.nodes().len()];
    for number in 0..SLOTS as u16 {
        let owner = Slot::new(number).and_then(|slot| topology.position(slot));
        let is_new = owner.is_none_or(|owner| !std::mem::replace(&mut seen[owner], true));
        if is_new && number > slot {
            return Some(number);
        }
    }
    None
}

impl Cursor {
    /// Where a walk begins, and ends.
    const START: Cursor = Cursor { slot: 0, mark: 0, own: 0 };

    /// A number in decimal digits.
    fn parse(text: &[u8]) -> Option<Self> {
        let number: u64 =
            std::str::from_utf8(text).ok().filter(|_| text.iter().all(u8::is_ascii_digit))?.parse().ok()?;
        Some(Cursor {
            slot: (number & ((1 << SLOT_BITS) - 1)) as u16,
            mark: (number >> SLOT_BITS & ((1 << MARK_BITS) - 1)) as u16,
            own: number >> (SLOT_BITS + MARK_BITS),
        })
    }

    fn number(self) -> u64 {
        self.own << (SLOT_BITS + MARK_BITS) | u64::from(self.mark) << SLOT_BITS | u64::from(self.slot)
    }

    /// The cursor to send to the server with this mark: of one that another has given, only the slot counts.
    fn at(self, mark: u16) -> Self {
        Cursor { mark, own: if self.mark == mark { self.own } else { 0 }, ..self }
    }

    /// What follows this cursor, which was sent, when `own` came back and the server that is there now bears `mark`. `None`:
    /// it does not fit.
    fn next(self, own: u64, mark: u16, next_start: impl Fn(u16) -> Option<u16>) -> Option<Self> {
        // Before a connection was made the mark was not known; a walk that begins is right with any server.
        let is_same = self.mark == mark || self.mark == 0 && self.own == 0;
        if !is_same {
            return Some(Cursor { mark, own: 0, ..self });
        }
        match own {
            0 => Some(next_start(self.slot).map_or(Self::START, |slot| Cursor { slot, ..Self::START })),
            _ if own >> OWN_BITS != 0 => None,
            _ => Some(Cursor { mark, own, ..self }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::UpstreamAddress;
    use crate::topology::Nodes;

    fn cursor(slot: u16, mark: u16, own: u64) -> Cursor {
        Cursor { slot, mark, own }
    }

    #[test]
    fn a_cursor_is_a_number_of_64_bits() {
        for cursor in [Cursor::START, cursor(16383, 1023, (1 << OWN_BITS) - 1), cursor(5, 7, 9), cursor(0, 1, 0)] {
            assert_eq!(Cursor::parse(cursor.number().to_string().as_bytes()), Some(cursor));
        }
        assert_eq!(cursor(16383, 1023, (1 << OWN_BITS) - 1).number(), u64::MAX);
        for text in ["", "x", "-1", "+1", "1x", " 1", "1.5", "18446744073709551616", "99999999999999999999"] {
            assert_eq!(Cursor::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_walk_goes_on_at_its_node_until_that_is_done() {
        let next = |slot: u16| (slot < 100).then_some(100);
        assert_eq!(cursor(0, 3, 0).next(17, 3, next), Some(cursor(0, 3, 17)));
        assert_eq!(cursor(0, 3, 17).at(3), cursor(0, 3, 17));
        assert_eq!(cursor(0, 3, 17).next(0, 3, next), Some(cursor(100, 0, 0)));
        assert_eq!(cursor(100, 4, 17).next(0, 4, next), Some(Cursor::START));
    }

    #[test]
    fn the_walk_of_a_node_begins_again_when_another_server_is_there() {
        assert_eq!(cursor(100, 3, 17).at(4), cursor(100, 4, 0));
        assert_eq!(cursor(100, 0, 17).at(0), cursor(100, 0, 17), "of servers that do not say who they are");
        // It was replaced while the command was under way.
        assert_eq!(cursor(0, 3, 17).next(5, 4, |_| None), Some(cursor(0, 4, 0)));
        assert_eq!(cursor(0, 3, 17).next(0, 4, |_| None), Some(cursor(0, 4, 0)), "which is not the end");
        assert_eq!(cursor(0, 0, 0).next(5, 4, |_| None), Some(cursor(0, 4, 5)), "it was only not known yet");
    }

    #[test]
    fn a_cursor_that_does_not_fit_is_an_error() {
        assert_eq!(cursor(0, 3, 0).next((1 << OWN_BITS) - 1, 3, |_| None), Some(cursor(0, 3, (1 << OWN_BITS) - 1)));
        assert_eq!(cursor(0, 3, 0).next(1 << OWN_BITS, 3, |_| None), None);
    }

    #[test]
    fn nodes_follow_each_other_by_their_first_slots() {
        let nodes = Nodes::new(1);
        let node = |port| nodes.at(&UpstreamAddress::Tcp { host: "h".into(), port }).unwrap();
        let owner = |slot: usize| match slot {
            0..10 | 30..40 => Some(1),
            10..20 => Some(0),
            20..25 => None,
            _ => Some(2),
        };
        let topology = Topology::cluster(1, vec![node(1), node(2), node(3)], (0..SLOTS).map(owner));
        let mut starts = vec![0];
        while let Some(next) = next_start(&topology, *starts.last().unwrap()) {
            starts.push(next);
        }
        assert_eq!(starts, [0, 10, 20, 21, 22, 23, 24, 25]);
        assert_eq!(next_start(&topology, 35), None, "a slot that has moved to a node which is done");
    }

    #[test]
    fn the_servers_cursor_is_found_in_its_reply() {
        assert_eq!(parse(b"*2\r\n$1\r\n0\r\n*0\r\n"), Some((0, &b"*0\r\n"[..])));
        let most = b"*2\r\n$20\r\n18446744073709551615\r\n*1\r\n$1\r\nk\r\n";
        assert_eq!(parse(most), Some((u64::MAX, &b"*1\r\n$1\r\nk\r\n"[..])));
        for other in
            [&b"-ERR syntax error\r\n"[..], b"*2\r\n$1\r\nx\r\n*0\r\n", b"*2\r\n$9\r\n0\r\n", b"*2\r\n:0\r\n*0\r\n"]
        {
            assert_eq!(parse(other), None);
        }
    }
}
