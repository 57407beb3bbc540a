//! What a run asks and what must come back, as bytes, laid out before the clock starts.
//!
//! The driver shares a small machine with what it measures, so a command has to cost it next to nothing. Requests and
//! the replies they must get lie back to back in two buffers, cut into batches of one pipeline each: asking is one
//! `write` of a slice, and checking a whole read of replies is one comparison with a slice. A value is a function of
//! its key, so a run also proves that every reply was the right one, which a count of replies would not.

use std::ops::Range;

use crate::load::keys::{Draw, KeyDraw, Spread};
use crate::load::workload::{Ask, Protocol, Workload};

/// How many requests a tape holds at least, unless values are large. Enough that a run does not replay one short pattern.
const TAPE_REQUESTS: usize = 1 << 16;

/// How often a tape asks for each key, unless it does so evenly and in one way. As it is repeated, a key that it happens to
/// read and never to write would never be written; and of keys that are asked for rarely, only few would ever be.
const REQUESTS_PER_KEY: usize = 32;

/// What requests and replies of a tape may take together: large values make it shorter.
const TAPE_BYTES: usize = 256 << 20;

/// Where the bytes of one pipeline lie in a [`Tape`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its commands, in [`Tape::requests`].
    pub requests: Range<usize>,
    /// What they must be answered with, in [`Tape::replies`].
    pub replies: Range<usize>,
}

/// Pipelines of a workload, encoded.
#[derive(Debug)]
pub struct Tape {
    requests: Vec<u8>,
    replies: Vec<u8>,
    batches: Vec<Batch>,
    /// Commands in each batch.
    batch_len: usize,
}

impl Tape {
    /// Lays out `workload` in pipelines of its depth, for a closed loop. The same workload gives the same tape.
    ///
    /// # Panics
    /// If the workload has no keys or a pipeline of no commands.
    pub fn of_pipelines(workload: &Workload) -> Self {
        Self::new(workload, workload.depth)
    }

    /// Lays out `workload` command by command, for an open loop.
    ///
    /// # Panics
    /// If the workload has no keys.
    pub fn of_commands(workload: &Workload) -> Self {
        Self::new(workload, 1)
    }

    fn new(workload: &Workload, batch_len: usize) -> Self {
        assert!(workload.keys > 0 && batch_len > 0, "a workload asks for something");
        let mut tape = Self { requests: Vec::new(), replies: Vec::new(), batches: Vec::new(), batch_len };
        let mut writer = Writer::new(workload);
        // Of as many commands as keys, so that few come again before most have come once.
        let is_even = workload.mix.single().is_some() && workload.spread == Spread::Uniform;
        let per_key = if is_even { 1 } else { REQUESTS_PER_KEY };
        let wanted = (workload.keys as usize * per_key).max(TAPE_REQUESTS);
        let mut asked = 0;
        while tape.batches.is_empty() || (asked < wanted && tape.requests.len() + tape.replies.len() < TAPE_BYTES) {
            let starts = (tape.requests.len(), tape.replies.len());
            for _ in 0..batch_len {
                writer.push(&mut tape);
            }
            asked += batch_len;
            tape.batches.push(Batch { requests: starts.0..tape.requests.len(), replies: starts.1..tape.replies.len() });
        }
        tape
    }

    /// Its begin.
    #[cfg(test)]
    pub(crate) fn shortened(mut self, batches: usize) -> Self {
        self.batches.truncate(batches);
        self
    }

    /// How many batches there are, at least one.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The bytes of batch `index`.
    pub fn batch(&self, index: usize) -> Batch {
        self.batches[index].clone()
    }

    /// Commands in each batch.
    pub fn batch_len(&self) -> usize {
        self.batch_len
    }

    /// The commands of all batches.
    pub fn requests(&self) -> &[u8] {
        &self.requests
    }

    /// The replies to all batches.
    pub fn replies(&self) -> &[u8] {
        &self.replies
    }
}

/// Draws the commands of a workload one after the other.
struct Writer<'w> {
    workload: &'w Workload,
    asks: Draw,
    keys: KeyDraw,
    absent: u32,
}

impl<'w> Writer<'w> {
    fn new(workload: &'w Workload) -> Self {
        let keys = KeyDraw::new(workload.keys, workload.spread);
        Self { workload, asks: Draw::new(0x6173_6b73), keys, absent: 0 }
    }

    fn push(&mut self, Tape { requests, replies, .. }: &mut Tape) {
        let value_len = self.workload.value_len;
        match self.workload.mix.draw(&mut self.asks) {
            Ask::Get => {
                let number = self.keys.draw();
                encode_get(requests, number);
                encode_hit(replies, number, value_len);
            }
            Ask::Absent => {
                encode_command(requests, &[b"GET", &absent_key(self.absent)]);
                self.absent = self.absent.wrapping_add(1);
                replies.extend_from_slice(match self.workload.protocol {
                    Protocol::Resp2 => b"$-1\r\n",
                    Protocol::Resp3 => b"_\r\n",
                });
            }
            Ask::Set => {
                encode_set(requests, self.keys.draw(), value_len);
                replies.extend_from_slice(b"+OK\r\n");
            }
            Ask::MGet(count) => {
                requests.extend_from_slice(format!("*{}\r\n$4\r\nMGET\r\n", count + 1).as_bytes());
                replies.extend_from_slice(format!("*{count}\r\n").as_bytes());
                for _ in 0..count {
                    let number = self.keys.draw();
                    encode_bulk(requests, &key(number));
                    encode_hit(replies, number, value_len);
                }
            }
            Ask::Ping => {
                encode_command(requests, &[b"PING"]);
                replies.extend_from_slice(b"+PONG\r\n");
            }
        }
    }
}

/// Appends the SET that gives key `number` its value.
pub fn encode_set(out: &mut Vec<u8>, number: u32, value_len: usize) {
    encode_command(out, &[b"SET", &key(number), &value(number, value_len)]);
}

/// Appends the GET of key `number`.
pub fn encode_get(out: &mut Vec<u8>, number: u32) {
    encode_command(out, &[b"GET", &key(number)]);
}

/// Appends the reply to a GET of key `number`, once it has its value.
pub fn encode_hit(out: &mut Vec<u8>, number: u32, value_len: usize) {
    encode_bulk(out, &value(number, value_len));
}

fn encode_command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        encode_bulk(out, argument);
    }
}

fn encode_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Bytes of a key.
pub const KEY_LEN: usize = 16;

/// As `redis-benchmark -r` has them, so that the two can ask for the same.
fn key(number: u32) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

fn absent_key(number: u32) -> Vec<u8> {
    format!("nil:{number:012}").into_bytes()
}

/// The digits of the key, over and over: no two keys have the same value, unless it is too short to tell them apart.
fn value(number: u32, len: usize) -> Vec<u8> {
    let digits: Vec<u8> = format!("{number:010}").into_bytes().into_iter().rev().collect();
    digits.into_iter().cycle().take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(mix: &str) -> Workload {
        let mix = mix.parse().expect("a mix");
        let protocol = Protocol::Resp2;
        Workload { mix, keys: 1000, spread: Spread::Uniform, value_len: 16, depth: 7, protocol }
    }

    #[test]
    fn a_batch_is_one_pipeline_of_whole_commands_and_whole_replies() {
        let tape = Tape::of_pipelines(&workload("get=70,set=30"));
        let mut ends = (0, 0);
        for index in 0..tape.batches() {
            let batch = tape.batch(index);
            assert_eq!((batch.requests.start, batch.replies.start), ends, "batches lie back to back");
            ends = (batch.requests.end, batch.replies.end);
            let commands = tape.requests()[batch.requests].split(|byte| *byte == b'*').count() - 1;
            assert_eq!(commands, 7);
            let replies = &tape.replies()[batch.replies];
            assert_eq!(replies.iter().filter(|byte| matches!(byte, b'$' | b'+')).count(), 7);
        }
        assert_eq!(ends, (tape.requests().len(), tape.replies().len()));
    }

    #[test]
    fn in_a_mix_the_share_of_each_command_is_that_of_each_key_too() {
        let tape = Tape::of_pipelines(&Workload { keys: 10_000, depth: 1, ..workload("get=50,set=50") });
        let mut asked: std::collections::HashMap<&[u8], [u32; 2]> = std::collections::HashMap::new();
        for request in (0..tape.batches()).map(|index| &tape.requests()[tape.batch(index).requests]) {
            let key = request.windows(16).find(|bytes| bytes.starts_with(b"key:")).expect("every request has one");
            asked.entry(key).or_default()[usize::from(request.starts_with(b"*3"))] += 1;
        }
        let few = asked.values().filter(|[reads, writes]| reads.min(writes) * 5 < reads + writes).count();
        assert!(few * 200 < asked.len(), "{few} keys have four times as many of one");
    }

    #[test]
    fn an_open_loop_asks_command_by_command() {
        let tape = Tape::of_commands(&workload("get"));
        assert_eq!(tape.batch_len(), 1);
        assert!(tape.requests()[tape.batch(0).requests].starts_with(b"*2\r\n$3\r\nGET\r\n$16\r\nkey:"));
    }

    #[test]
    fn a_get_expects_the_value_that_a_set_of_that_key_stores() {
        let mut set = Vec::new();
        encode_set(&mut set, 42, 16);
        assert_eq!(set, b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$16\r\n2400000000240000\r\n");

        let tape = Tape::of_pipelines(&Workload { keys: 1, value_len: 3, depth: 2, ..workload("get") });
        let batch = tape.batch(0);
        assert_eq!(&tape.requests()[batch.requests], b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n".repeat(2));
        assert_eq!(&tape.replies()[batch.replies], b"$3\r\n000\r\n".repeat(2));
    }

    #[test]
    fn an_mget_expects_the_values_of_its_keys_in_order() {
        let tape = Tape::of_pipelines(&Workload { keys: 1, value_len: 3, depth: 1, ..workload("mget:2") });
        let batch = tape.batch(0);
        let expected = b"*3\r\n$4\r\nMGET\r\n$16\r\nkey:000000000000\r\n$16\r\nkey:000000000000\r\n";
        assert_eq!(&tape.requests()[batch.requests], expected);
        assert_eq!(&tape.replies()[batch.replies], b"*2\r\n$3\r\n000\r\n$3\r\n000\r\n");
    }

    #[test]
    fn what_is_absent_is_null_in_the_protocol_that_was_asked_for() {
        for (protocol, null) in [(Protocol::Resp2, b"$-1\r\n".as_slice()), (Protocol::Resp3, b"_\r\n")] {
            let tape = Tape::of_pipelines(&Workload { depth: 1, protocol, ..workload("absent") });
            assert_eq!(&tape.replies()[tape.batch(0).replies], null);
        }
    }

    #[test]
    fn absent_keys_are_all_asked_for_before_any_comes_again() {
        let tape = Tape::of_pipelines(&Workload { keys: 100_000, depth: 1, ..workload("absent") });
        let asked: std::collections::HashSet<&[u8]> =
            (0..100_000).map(|index| &tape.requests()[tape.batch(index).requests]).collect();
        assert_eq!(asked.len(), 100_000);
    }

    #[test]
    fn values_too_large_for_a_long_tape_make_a_short_one() {
        let tape = Tape::of_pipelines(&Workload { keys: 10, value_len: 8 << 20, depth: 4, ..workload("get") });
        assert!(tape.replies().len() < TAPE_BYTES + 4 * (9 << 20));
        assert!(tape.batches() >= 1);
    }
}
