//! One reply made of several: of those of the nodes that a command was sent to, or of those to its parts.

use std::collections::HashSet;
use std::ops::Range;

use nearside_nearcache::Time;
use nearside_resp::{ReplyScanner, encode};

use super::table::Join;

/// What is known beforehand of the reply to make.
#[derive(Debug)]
pub(crate) struct How {
    pub(crate) join: Join,
    /// For [`Join::Values`]: the elements of all parts, one after the other, belong in these places.
    pub(crate) places: Vec<u32>,
    /// What a part has done stays done if another fails: the client is told.
    pub(crate) changes: bool,
    /// For [`Join::Random`].
    pub(crate) seed: Time,
    /// The parts are the keys of an MGET, read one by one; this is the command itself.
    pub(crate) each: Option<Box<[u8]>>,
}

const DIFFERENT: &str = "UPSTREAM the nodes of the cluster gave answers that do not go together";
const PARTLY: &[u8] = b"; the command was carried out in part";
const PERHAPS: &[u8] = b"; the command may have been carried out in part";

impl How {
    /// The reply, made of those to all parts, in the order of the parts.
    pub(crate) fn join(&self, parts: &[&[u8]]) -> Vec<u8> {
        if self.join == Join::OneSucceeded {
            return one_succeeded(parts).to_vec();
        }
        if let Some(error) = parts.iter().find(|part| is_error(part)) {
            return match self.changes {
                true if !parts.iter().all(|part| is_error(part)) => with_note(error, PARTLY),
                // What is said of the first part does not hold for one that was lost on its way.
                true if !is_unsure(error) && parts.iter().any(|part| is_unsure(part)) => with_note(error, PERHAPS),
                _ => error.to_vec(),
            };
        }
        self.join_answers(parts).unwrap_or_else(|| {
            let mut out = Vec::new();
            encode::error(&mut out, DIFFERENT.as_bytes());
            out
        })
    }

    /// `None`: they are not what such a command answers.
    fn join_answers(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        match self.join {
            Join::Sum => numbers(parts, |one, other| one.saturating_add(other)),
            Join::Min => numbers(parts, Ord::min),
            Join::Max => numbers(parts, Ord::max),
            Join::And => place_by_place(parts, |one, other| i64::from(one != 0 && other != 0)),
            Join::Or => place_by_place(parts, |one, other| i64::from(one != 0 || other != 0)),
            Join::Succeeded => parts.first().map(|first| first.to_vec()),
            Join::Concat => concat(parts),
            Join::Union => union(parts),
            Join::Counts => counts(parts),
            Join::Values => values(parts, &self.places),
            Join::Random => random(parts, self.seed),
            Join::OneSucceeded | Join::Unknown => None,
        }
    }
}

pub(super) fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// A lane's own words for a command of which nobody knows whether it was carried out.
fn is_unsure(reply: &[u8]) -> bool {
    reply.starts_with(b"-UPSTREAM ") && reply.ends_with(b"may have been executed\r\n")
}

/// A success; else the error that says most: of nodes that have nothing to end (NOTBUSY) and one that cannot
/// (UNKILLABLE), the latter's.
fn one_succeeded<'a>(parts: &[&'a [u8]]) -> &'a [u8] {
    let says_more = |part: &&&[u8]| !part.starts_with(b"-NOTBUSY ");
    let success = parts.iter().find(|part| !is_error(part));
    success.or_else(|| parts.iter().find(says_more)).or(parts.first()).copied().unwrap_or_default()
}

/// An error line, with a note on the other parts.
fn with_note(error: &[u8], note: &[u8]) -> Vec<u8> {
    match error.strip_suffix(b"\r\n") {
        Some(line) if error[0] == b'-' => [line, note, b"\r\n"].concat(),
        _ => error.to_vec(),
    }
}

fn integer(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?.parse().ok()
}

fn numbers(parts: &[&[u8]], fold: fn(i64, i64) -> i64) -> Option<Vec<u8>> {
    let numbers: Option<Vec<i64>> = parts.iter().map(|part| integer(part)).collect();
    let mut out = Vec::new();
    encode::integer(&mut out, numbers?.into_iter().reduce(fold)?);
    Some(out)
}

/// Integers, or arrays of integers of one length.
fn place_by_place(parts: &[&[u8]], fold: fn(i64, i64) -> i64) -> Option<Vec<u8>> {
    if parts.first().is_some_and(|first| first.starts_with(b":")) {
        return numbers(parts, fold);
    }
    let mut joined: Option<Vec<i64>> = None;
    for part in parts {
        let found = elements(part)?.into_iter().map(|range| integer(&part[range])).collect::<Option<Vec<i64>>>()?;
        joined = Some(match joined {
            None => found,
            Some(so_far) if so_far.len() == found.len() => {
                so_far.into_iter().zip(found).map(|(one, other)| fold(one, other)).collect()
            }
            Some(_) => return None,
        });
    }
    let joined = joined?;
    let mut out = Vec::new();
    encode::array_header(&mut out, joined.len());
    joined.into_iter().for_each(|number| encode::integer(&mut out, number));
    Some(out)
}

/// Without looking at the elements. What are no arrays must all be the same.
fn concat(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let Some(arrays) = parts.iter().map(|part| array(part)).collect::<Option<Vec<_>>>() else {
        let first = *parts.first()?;
        return parts.iter().all(|part| *part == first).then(|| first.to_vec());
    };
    let mut out = Vec::with_capacity(arrays.iter().map(|(_, elements)| elements.len()).sum::<usize>() + 16);
    encode::array_header(&mut out, arrays.iter().map(|(count, _)| count).sum());
    arrays.iter().for_each(|(_, elements)| out.extend_from_slice(elements));
    Some(out)
}

fn union(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    for part in parts {
        all.extend(elements(part)?.into_iter().map(|range| &part[range]).filter(|element| seen.insert(*element)));
    }
    Some(array_of(&all))
}

/// The names are those of the first reply: all were asked about the same.
fn counts(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut names, mut sums): (Vec<&[u8]>, Vec<i64>) = Default::default();
    for (number, part) in parts.iter().enumerate() {
        let elements = elements(part)?;
        let (pairs, []) = elements.as_chunks::<2>() else { return None };
        if number == 0 {
            names = pairs.iter().map(|[name, _]| &part[name.clone()]).collect();
            sums = vec![0; names.len()];
        }
        if pairs.len() != names.len() {
            return None;
        }
        for ([_, count], sum) in pairs.iter().zip(&mut sums) {
            *sum += integer(&part[count.clone()])?;
        }
    }
    let mut out = Vec::new();
    encode::array_header(&mut out, names.len() * 2);
    for (name, sum) in names.iter().zip(sums) {
        out.extend_from_slice(name);
        encode::integer(&mut out, sum);
    }
    Some(out)
}

fn values(parts: &[&[u8]], places: &[u32]) -> Option<Vec<u8>> {
    let mut ordered: Vec<&[u8]> = vec![b""; places.len()];
    let mut places = places.iter();
    for part in parts {
        for element in elements(part)? {
            *ordered.get_mut(*places.next()? as usize)? = &part[element];
        }
    }
    places.next().is_none().then(|| array_of(&ordered))
}

/// The first half of `parts` are keys, or nil; the second half the number of keys that each stands for.
fn random(parts: &[&[u8]], seed: Time) -> Option<Vec<u8>> {
    let (keys, weights) = parts.split_at(parts.len() / 2);
    let weights: Vec<i64> = weights.iter().map(|weight| integer(weight)).collect::<Option<_>>()?;
    let is_nil = |key: &[u8]| matches!(key, b"$-1\r\n" | b"_\r\n");
    // A node that has just given a key has one, whatever it has counted then.
    let choices: Vec<(&[u8], u64)> = keys
        .iter()
        .zip(weights)
        .filter(|(key, _)| !is_nil(key))
        .map(|(key, weight)| (*key, weight.max(1).unsigned_abs()))
        .collect();
    let total: u64 = choices.iter().map(|(_, weight)| weight).sum();
    let Some(mut at) = scattered(seed).checked_rem(total) else { return keys.first().map(|nil| nil.to_vec()) };
    let chosen = choices.iter().find(|(_, weight)| {
        let is_it = at < *weight;
        at = at.saturating_sub(*weight);
        is_it
    });
    chosen.map(|(key, _)| key.to_vec())
}

/// The nanoseconds of a time are as good as random, once they are spread over all bits (Stafford's variant 13 of the
/// finaliser of MurmurHash3, as in SplitMix64).
fn scattered(seed: Time) -> u64 {
    let mixed = (seed.0 ^ (seed.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

pub(super) fn array_of(elements: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(elements.iter().map(|element| element.len()).sum::<usize>() + 16);
    encode::array_header(&mut out, elements.len());
    elements.iter().for_each(|element| out.extend_from_slice(element));
    out
}

/// How many elements an array, or a set, has, and what follows its header.
fn array(reply: &[u8]) -> Option<(usize, &[u8])> {
    let rest = reply.strip_prefix(b"*").or_else(|| reply.strip_prefix(b"~"))?;
    let line = rest.iter().position(|byte| *byte == b'\r')?;
    let count = std::str::from_utf8(&rest[..line]).ok()?.parse().ok()?;
    Some((count, rest.get(line + 2..)?))
}

/// Where in an array's bytes its elements are.
fn elements(reply: &[u8]) -> Option<Vec<Range<usize>>> {
    let (count, rest) = array(reply)?;
    let mut start = reply.len() - rest.len();
    let mut scanner = ReplyScanner::new();
    let mut found = Vec::with_capacity(count.min(reply.len()));
    for _ in 0..count {
        let scanned = scanner.scan(&reply[start..]).ok().filter(|scanned| scanned.complete)?;
        found.push(start..start + scanned.consumed);
        start += scanned.consumed;
    }
    Some(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn joined(join: Join, places: &[u32], changes: bool, parts: &[&str]) -> String {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let how = How { join, places: places.to_vec(), changes, seed: Time(7), each: None };
        String::from_utf8(how.join(&parts)).unwrap()
    }

    fn of(join: Join, parts: &[&str]) -> String {
        joined(join, &[], false, parts)
    }

    #[test]
    fn integers_are_added_or_compared() {
        assert_eq!(of(Join::Sum, &[":1\r\n", ":0\r\n", ":41\r\n"]), ":42\r\n");
        assert_eq!(of(Join::Min, &[":3\r\n", ":-2\r\n", ":4\r\n"]), ":-2\r\n");
        assert_eq!(of(Join::Max, &[":3\r\n", ":-2\r\n", ":4\r\n"]), ":4\r\n");
        assert!(of(Join::Sum, &[":1\r\n", "+OK\r\n"]).starts_with("-UPSTREAM "));
    }

    #[test]
    fn truths_are_joined_alone_or_place_by_place() {
        assert_eq!(of(Join::And, &["*2\r\n:1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"]), "*2\r\n:0\r\n:1\r\n");
        assert_eq!(of(Join::Or, &["*2\r\n:1\r\n:0\r\n", "*2\r\n:0\r\n:0\r\n"]), "*2\r\n:1\r\n:0\r\n");
        assert_eq!(of(Join::And, &[":1\r\n", ":0\r\n"]), ":0\r\n");
        assert!(of(Join::And, &["*1\r\n:1\r\n", "*2\r\n:0\r\n:1\r\n"]).starts_with("-UPSTREAM "));
    }

    #[test]
    fn the_first_error_is_the_whole_commands_and_says_if_something_was_done() {
        let parts = ["+OK\r\n", "-OOM no\r\n", "-ERR other\r\n"];
        assert_eq!(of(Join::Succeeded, &parts), "-OOM no\r\n");
        let noted = "-OOM no; the command was carried out in part\r\n";
        assert_eq!(joined(Join::Succeeded, &[], true, &parts), noted);
        assert_eq!(joined(Join::Succeeded, &[], true, &parts[1..]), "-OOM no\r\n", "nothing was done");
        assert_eq!(joined(Join::Sum, &[], true, &["!6\r\nERR no\r\n", ":1\r\n"]), "!6\r\nERR no\r\n");
        assert_eq!(of(Join::Succeeded, &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
    }

    #[test]
    fn an_error_that_nothing_was_sent_is_not_said_of_a_part_that_was_lost() {
        let unsent = "-UPSTREAM h:1 is down: x; the command was not sent\r\n";
        let lost = "-UPSTREAM lost the connection to h:2: x; the command may have been executed\r\n";
        let noted =
            "-UPSTREAM h:1 is down: x; the command was not sent; the command may have been carried out in part\r\n";
        assert_eq!(joined(Join::Succeeded, &[], true, &[unsent, lost]), noted);
        assert_eq!(joined(Join::Succeeded, &[], true, &[lost, unsent]), lost, "it says so itself");
        assert_eq!(joined(Join::Sum, &[], true, &[unsent, unsent]), unsent);
        assert_eq!(joined(Join::Values, &[], false, &[unsent, lost]), unsent, "a read may be repeated");
    }

    #[test]
    fn one_success_is_enough_where_one_node_can_have_it() {
        let not_busy = "-NOTBUSY No scripts in execution right now.\r\n";
        assert_eq!(of(Join::OneSucceeded, &[not_busy, "+OK\r\n", not_busy]), "+OK\r\n");
        assert_eq!(of(Join::OneSucceeded, &[not_busy, not_busy]), not_busy);
        assert_eq!(of(Join::OneSucceeded, &[not_busy, "-UNKILLABLE x\r\n"]), "-UNKILLABLE x\r\n");
    }

    #[test]
    fn arrays_are_put_behind_each_other() {
        let parts = ["*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*0\r\n", "*1\r\n$1\r\na\r\n"];
        assert_eq!(of(Join::Concat, &parts), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\na\r\n");
        assert_eq!(of(Join::Union, &parts), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert_eq!(of(Join::Concat, &["*0\r\n", "*0\r\n"]), "*0\r\n");
        assert_eq!(of(Join::Concat, &["+same\r\n", "+same\r\n"]), "+same\r\n");
        assert!(of(Join::Concat, &["+one\r\n", "+other\r\n"]).starts_with("-UPSTREAM "));
        assert!(of(Join::Union, &["*2\r\n$1\r\na\r\n"]).starts_with("-UPSTREAM "));
    }

    #[test]
    fn counts_are_added_by_name() {
        let parts = ["*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n", "*4\r\n$1\r\na\r\n:2\r\n$1\r\nb\r\n:5\r\n"];
        assert_eq!(of(Join::Counts, &parts), "*4\r\n$1\r\na\r\n:3\r\n$1\r\nb\r\n:5\r\n");
        assert_eq!(of(Join::Counts, &["*0\r\n", "*0\r\n"]), "*0\r\n");
    }

    #[test]
    fn values_come_in_the_order_of_the_keys() {
        let parts = ["*2\r\n$1\r\na\r\n$-1\r\n", "*1\r\n$2\r\n\r\n\r\n", "*1\r\n_\r\n"];
        let ordered = "*4\r\n_\r\n$1\r\na\r\n$2\r\n\r\n\r\n$-1\r\n";
        assert_eq!(joined(Join::Values, &[1, 3, 2, 0], false, &parts), ordered);
        assert!(joined(Join::Values, &[0, 1, 2], false, &parts).starts_with("-UPSTREAM "), "one too many");
        assert!(joined(Join::Values, &[0, 1, 2, 3, 4], false, &parts).starts_with("-UPSTREAM "), "one too few");
    }

    #[test]
    fn a_random_key_is_drawn_by_how_many_there_are() {
        let parts: [&[u8]; 6] = [b"$1\r\na\r\n", b"$-1\r\n", b"$1\r\nc\r\n", b":30\r\n", b":0\r\n", b":10\r\n"];
        let mut drawn = [0; 2];
        for nanoseconds in 0..4000 {
            let how = How {
                join: Join::Random,
                places: Vec::new(),
                changes: false,
                seed: Time(nanoseconds * 1000),
                each: None,
            };
            match &*how.join(&parts) {
                b"$1\r\na\r\n" => drawn[0] += 1,
                b"$1\r\nc\r\n" => drawn[1] += 1,
                other => panic!("{}", other.escape_ascii()),
            }
        }
        assert!((2850..3150).contains(&drawn[0]), "{drawn:?}");
        assert_eq!(of(Join::Random, &["_\r\n", "_\r\n", ":0\r\n", ":0\r\n"]), "_\r\n");
        assert_eq!(of(Join::Random, &["_\r\n", "$1\r\nb\r\n", ":0\r\n", ":0\r\n"]), "$1\r\nb\r\n");
    }
}
