//! What a run asks and what must come back, as bytes, laid out before the clock starts.
//!
//! The driver shares a small machine with what it measures, so a command has to cost it next to nothing. Requests and
//! the replies they must get lie back to back in two buffers, cut into batches of one pipeline each: asking is one
//! `write` of a slice, and checking a whole read of replies is one comparison with a slice. A value is a function of
//! its key, so a run also proves that every reply was the right one, which a count of replies would not.

use std::ops::Range;

/// How many requests a tape holds, unless values are large. Enough that a run does not replay one short pattern.
const TAPE_REQUESTS: usize = 1 << 16;

/// What requests and replies of a tape may take together: large values make it shorter.
const TAPE_BYTES: usize = 256 << 20;

/// Which commands are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// GET of keys that exist, drawn uniformly.
    Hit,
    /// GET of keys that do not exist, one after the other. A proxy that caches absence sees a miss each time only
    /// if the keys are more than it can hold.
    Miss,
    /// SET, to the value that the key has already, drawn uniformly.
    Set,
    /// GET in this many of a hundred commands, SET in the rest.
    Reads(u8),
}

/// What a run asks for.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Which commands.
    pub mix: Mix,
    /// Over how many keys.
    pub keys: u32,
    /// Bytes of each value.
    pub value_len: usize,
    /// Commands in a pipeline: all are sent, then all must be answered.
    pub depth: usize,
}

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
    depth: usize,
}

impl Tape {
    /// Lays out `workload`. The same workload gives the same tape.
    ///
    /// # Panics
    /// If the workload has no keys or a pipeline of no commands.
    pub fn new(workload: &Workload) -> Self {
        assert!(workload.keys > 0 && workload.depth > 0, "a workload asks for something");
        let mut tape = Self { requests: Vec::new(), replies: Vec::new(), batches: Vec::new(), depth: workload.depth };
        let mut draw = Draw::new();
        let wanted = match workload.mix {
            Mix::Miss => (workload.keys as usize).max(TAPE_REQUESTS),
            Mix::Hit | Mix::Set | Mix::Reads(_) => TAPE_REQUESTS,
        };
        let mut asked = 0;
        while tape.batches.is_empty() || (asked < wanted && tape.requests.len() + tape.replies.len() < TAPE_BYTES) {
            let starts = (tape.requests.len(), tape.replies.len());
            for _ in 0..workload.depth {
                tape.push(workload, asked, &mut draw);
                asked += 1;
            }
            tape.batches.push(Batch { requests: starts.0..tape.requests.len(), replies: starts.1..tape.replies.len() });
        }
        tape
    }

    fn push(&mut self, workload: &Workload, asked: usize, draw: &mut Draw) {
        let keys = workload.keys;
        let get = match workload.mix {
            Mix::Miss => {
                let number = u32::try_from(asked % keys as usize).expect("a remainder by a u32");
                encode_get_key(&mut self.requests, &absent_key(number));
                self.replies.extend_from_slice(b"$-1\r\n");
                return;
            }
            Mix::Hit => true,
            Mix::Set => false,
            Mix::Reads(percent) => draw.below(100) < u32::from(percent),
        };
        let number = draw.below(keys);
        if get {
            encode_get(&mut self.requests, number);
            encode_hit(&mut self.replies, number, workload.value_len);
        } else {
            encode_set(&mut self.requests, number, workload.value_len);
            self.replies.extend_from_slice(b"+OK\r\n");
        }
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
    pub fn depth(&self) -> usize {
        self.depth
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

/// Appends the SET that gives key `number` its value.
pub fn encode_set(out: &mut Vec<u8>, number: u32, value_len: usize) {
    out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
    encode_bulk(out, &key(number));
    encode_bulk(out, &value(number, value_len));
}

/// Appends the GET of key `number`.
pub fn encode_get(out: &mut Vec<u8>, number: u32) {
    encode_get_key(out, &key(number));
}

/// Appends the reply to a GET of key `number`, once it has its value.
pub fn encode_hit(out: &mut Vec<u8>, number: u32, value_len: usize) {
    encode_bulk(out, &value(number, value_len));
}

fn encode_get_key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
    encode_bulk(out, key);
}

fn encode_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// As long as the keys of `redis-benchmark -r`, so that the two can be compared.
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

/// Key numbers that look random and are the same in every run (SplitMix64).
struct Draw(u64);

impl Draw {
    fn new() -> Self {
        Self(0x6e65_6172_7369_6465)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u32::try_from((u128::from(mixed) * u128::from(bound)) >> 64).expect("below a u32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(mix: Mix) -> Workload {
        Workload { mix, keys: 1000, value_len: 16, depth: 7 }
    }

    #[test]
    fn a_batch_is_one_pipeline_of_whole_commands_and_whole_replies() {
        let tape = Tape::new(&workload(Mix::Reads(70)));
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
    fn a_get_expects_the_value_that_a_set_of_that_key_stores() {
        let mut set = Vec::new();
        encode_set(&mut set, 42, 16);
        assert_eq!(set, b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$16\r\n2400000000240000\r\n");

        let tape = Tape::new(&Workload { mix: Mix::Hit, keys: 1, value_len: 3, depth: 2 });
        let batch = tape.batch(0);
        assert_eq!(&tape.requests()[batch.requests], b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n".repeat(2));
        assert_eq!(&tape.replies()[batch.replies], b"$3\r\n000\r\n".repeat(2));
    }

    #[test]
    fn a_mix_has_as_many_reads_as_it_says() {
        let tape = Tape::new(&workload(Mix::Reads(70)));
        let commands = tape.batches() * tape.depth();
        let reads = tape.replies().iter().filter(|byte| **byte == b'$').count();
        let percent = reads as f64 * 100.0 / commands as f64;
        assert!((69.0..71.0).contains(&percent), "{percent} % of {commands}");
    }

    #[test]
    fn misses_ask_for_every_key_before_any_comes_again() {
        let tape = Tape::new(&Workload { mix: Mix::Miss, keys: 100_000, value_len: 16, depth: 1 });
        let asked: std::collections::HashSet<&[u8]> =
            (0..100_000).map(|index| &tape.requests()[tape.batch(index).requests]).collect();
        assert_eq!(asked.len(), 100_000);
        assert!(tape.batches() >= 100_000);
    }

    #[test]
    fn values_too_large_for_a_long_tape_make_a_short_one() {
        let tape = Tape::new(&Workload { mix: Mix::Hit, keys: 10, value_len: 8 << 20, depth: 4 });
        assert!(tape.replies().len() < TAPE_BYTES + 4 * (9 << 20));
        assert!(tape.batches() >= 1);
    }
}
