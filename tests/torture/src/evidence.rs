//! What is told of a violation, besides that it happened: what the key went through about that time. A run keeps no history.

use std::fmt::Write as _;
use std::time::Duration;

use crate::check::Violation;
use crate::history::{Content, History, Key, Nanos, Path, Read, nanos};

/// What came so long before the read, and after it, is told.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_millis(500);

/// Some of the lines, by time: of the first violation that a read shows. Empty if none does.
#[must_use]
pub fn of(history: &History, violations: &[Violation]) -> String {
    let Some(read) = violations.iter().find_map(|violation| violation.read) else { return String::new() };
    let (from, until) = (read.began.saturating_sub(nanos(BEFORE)), read.ended + nanos(AFTER));
    let mut lines: Vec<(Nanos, String)> = Vec::new();
    let times = |began, ended| format!("{} to {}", ms(began, read.began), ms(ended, read.began));
    for write in history.writes.iter().filter(|write| write.key == read.key) {
        let ended = write.acknowledged.unwrap_or(write.began);
        if ended >= from && write.began <= until {
            let outcome = if write.acknowledged.is_some() { "" } else { ", not acknowledged" };
            let (content, path) = (write.content, write.path);
            let text = format!("{path:?} wrote {content:?}, life {:?}{outcome}", write.life.map(Duration::from_nanos));
            lines.push((write.began, format!("{}: {text}", times(write.began, ended))));
        }
    }
    for seen in Seen::all(history, read.key, from, until) {
        let text = format!("{:?} read {:?}, {} times", seen.path, seen.content, seen.count);
        lines.push((seen.began, format!("{}: {text}", times(seen.began, seen.ended))));
    }
    for loss in history.losses.iter().filter(|loss| loss.keys.contains(&read.key)) {
        lines.push((loss.from, format!("{}: the control lost writes", times(loss.from, loss.until))));
    }
    lines.sort_unstable();
    let mut text = format!("    key {}, milliseconds from the beginning of {read:?}\n", read.key);
    lines.iter().for_each(|(_, line)| writeln!(text, "      {line}").expect("a text takes it"));
    text
}

fn ms(at: Nanos, zero: Nanos) -> String {
    let sign = if at < zero { "-" } else { "+" };
    format!("{sign}{:.3}", Duration::from_nanos(at.abs_diff(zero)).as_secs_f64() * 1e3)
}

/// Reads one after the other, of one path, that found the same.
struct Seen {
    path: Path,
    content: Content,
    began: Nanos,
    ended: Nanos,
    count: usize,
}

impl Seen {
    fn all(history: &History, key: Key, from: Nanos, until: Nanos) -> Vec<Self> {
        let meets = |read: &&Read| read.key == key && read.ended >= from && read.began <= until;
        let mut reads: Vec<&Read> = history.reads.iter().chain(&history.last_reads).filter(meets).collect();
        reads.sort_unstable_by_key(|read| (read.path, read.began));
        let mut all: Vec<Self> = Vec::new();
        for read in reads {
            match all.last_mut().filter(|last| last.path == read.path && last.content == read.content) {
                Some(last) => {
                    last.ended = last.ended.max(read.ended);
                    last.count += 1;
                }
                None => all.push(Self {
                    path: read.path,
                    content: read.content,
                    began: read.began,
                    ended: read.ended,
                    count: 1,
                }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Promise;
    use crate::history::{Loss, Write};

    const KEY: Key = 7;

    #[test]
    fn the_keys_last_second_is_told_and_nothing_else() {
        let millis = |ms: u64| ms * 1_000_000;
        let write = |key, at, path| Write {
            key,
            content: Content::Value(at),
            life: None,
            began: millis(at),
            acknowledged: Some(millis(at + 1)),
            path,
            names_key: true,
        };
        let read =
            |at, path| Read { key: KEY, content: Content::Value(10), began: millis(at), ended: millis(at + 1), path };
        let stale = read(5000, Path::Proxy(1));
        let history = History {
            writes: vec![
                write(KEY, 10, Path::Direct),
                write(KEY, 4900, Path::Proxy(0)),
                write(KEY + 1, 4900, Path::Proxy(0)),
                Write { acknowledged: None, ..write(KEY, 4950, Path::Direct) },
            ],
            reads: vec![read(4800, Path::Proxy(1)), read(4810, Path::Proxy(1)), read(4805, Path::Direct), stale],
            losses: vec![Loss { keys: vec![KEY], from: millis(4700), until: millis(4705), is_of_all: false }],
            ..History::default()
        };
        let violation = |read| Violation { promise: Promise::BoundedStaleness, what: String::new(), read };
        let told = of(&history, &[violation(None), violation(Some(stale))]);
        let lines: Vec<&str> = told.lines().skip(1).map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "-300.000 to -295.000: the control lost writes",
                "-200.000 to +1.000: Proxy(1) read Value(10), 3 times",
                "-195.000 to -194.000: Direct read Value(10), 1 times",
                "-100.000 to -99.000: Proxy(0) wrote Value(4900), life None",
                "-50.000 to -50.000: Direct wrote Value(4950), life None, not acknowledged",
            ]
        );
        assert_eq!(of(&history, &[violation(None)]), "");
    }
}
