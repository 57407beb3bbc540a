//! What is known of one key: when it can have come to hold what, and by when that had been replaced for sure.

use std::collections::HashMap;
use std::time::Duration;

use crate::history::{Content, History, Key, Loss, Nanos, Path, Read, Write, nanos};

const NEVER: Nanos = Nanos::MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Those who can have written a content, by when they began.
    sources: HashMap<Content, Vec<Source>>,
    /// Of whomever: all, and those that Redis has not lost.
    overwrites: [Overwrites; 2],
    /// The same, acknowledged by each proxy, of commands that name the key.
    own: [Vec<Overwrites>; 2],
    /// What each proxy has shown: when a read of it had ended, and when the newest write began that had been seen by then.
    shown: Vec<Vec<(Nanos, Nanos)>>,
    /// Something was written of which nobody knows what it was.
    has_unknown: bool,
}

/// A write, as the origin of a content.
#[derive(Clone, Copy, Debug)]
struct Source {
    began: Nanos,
    /// The latest that it, or one that began before it, can have been executed.
    latest_end: Nanos,
    /// The latest that its content, or that of one before it, can be there.
    latest_death: Nanos,
}

/// Which writes count as having replaced what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overwriters {
    /// All.
    All,
    /// Those that Redis has not lost for all that is known.
    Kept,
}

/// Writes by when they began, each with the earliest end of those that did not begin before it.
#[derive(Debug, Default)]
struct Overwrites(Vec<(Nanos, Nanos)>);

impl Overwrites {
    fn of(mut all: Vec<(Nanos, Nanos)>) -> Self {
        all.sort_unstable();
        let mut earliest = NEVER;
        for (_, end) in all.iter_mut().rev() {
            earliest = earliest.min(*end);
            *end = earliest;
        }
        Self(all)
    }

    /// When the first write had ended that began after this time.
    fn first_end_after(&self, time: Nanos) -> Option<Nanos> {
        let at = self.0.partition_point(|&(began, _)| began <= time);
        self.0.get(at).map(|&(_, end)| end).filter(|&end| end < NEVER)
    }
}

impl Timeline {
    pub(super) fn all(history: &History, proxies: usize, expiry_slack: Duration) -> HashMap<Key, Timeline> {
        let mut keys: HashMap<Key, (Vec<&Write>, Vec<&Read>)> = HashMap::new();
        history.writes.iter().for_each(|write| keys.entry(write.key).or_default().0.push(write));
        history.reads.iter().for_each(|read| keys.entry(read.key).or_default().1.push(read));
        let slack = nanos(expiry_slack);
        let of_key = |(key, (writes, reads)): (Key, (Vec<_>, Vec<_>))| {
            let losses: Vec<&Loss> = history.losses.iter().filter(|loss| loss.keys.contains(&key)).collect();
            (key, Timeline::of(&writes, &reads, &losses, proxies, slack))
        };
        keys.into_iter().map(of_key).collect()
    }

    fn of(writes: &[&Write], reads: &[&Read], losses: &[&Loss], proxies: usize, slack: Nanos) -> Self {
        let seen = first_seen(writes, reads);
        let end = |write: &Write| {
            let seen = seen.get(&write.content).copied().unwrap_or(NEVER);
            write.acknowledged.unwrap_or(NEVER).min(seen)
        };
        let mut sources: HashMap<Content, Vec<Source>> = HashMap::new();
        // Before anything was written there was nothing.
        let nothing = sources.entry(Content::Nothing).or_default();
        nothing.push(Source { began: 0, latest_end: 0, latest_death: NEVER });
        let emptied = || losses.iter().filter(|loss| loss.is_of_all);
        let empty = |loss: &&Loss| Source { began: loss.from, latest_end: loss.until, latest_death: NEVER };
        nothing.extend(emptied().map(empty));
        for write in writes {
            let death = write.life.map_or(NEVER, |life| end(write).saturating_add(life + slack));
            let source = Source { began: write.began, latest_end: end(write), latest_death: death };
            sources.entry(write.content).or_default().push(source);
            if let Some(life) = write.life {
                let source = Source { began: write.began + life, latest_end: death, latest_death: NEVER };
                sources.entry(Content::Nothing).or_default().push(source);
            }
        }
        for of_content in sources.values_mut() {
            of_content.sort_unstable_by_key(|source| source.began);
            let (mut latest_end, mut latest_death) = (0, 0);
            for source in of_content {
                latest_end = latest_end.max(source.latest_end);
                latest_death = latest_death.max(source.latest_death);
                (source.latest_end, source.latest_death) = (latest_end, latest_death);
            }
        }
        // A write that was not acknowledged, or whose acknowledgement was worth nothing, may be lost though it was seen.
        let is_kept = |write: &Write| {
            let lost = |end: Nanos| losses.iter().any(|loss| loss.from <= end && write.began <= loss.until);
            !lost(write.acknowledged.unwrap_or(NEVER).min(end(write)))
        };
        let counts = |write: &Write, which| which == Overwriters::All || is_kept(write);
        let overwrites = |which| {
            let ends = writes.iter().filter(|write| counts(write, which)).map(|write| (write.began, end(write)));
            Overwrites::of(ends.chain(emptied().map(|loss| (loss.from, loss.until))).collect())
        };
        let own = |which| {
            let of_proxy = |proxy: usize| {
                let is_own =
                    |write: &&&Write| write.path == Path::Proxy(proxy) && write.names_key && counts(write, which);
                let ends = writes.iter().filter(is_own).filter_map(|write| Some((write.began, write.acknowledged?)));
                Overwrites::of(ends.collect())
            };
            (0..proxies).map(of_proxy).collect()
        };
        Self {
            overwrites: [overwrites(Overwriters::All), overwrites(Overwriters::Kept)],
            own: [own(Overwriters::All), own(Overwriters::Kept)],
            shown: (0..proxies).map(|proxy| shown(writes, reads, proxy)).collect(),
            has_unknown: writes.iter().any(|write| write.content == Content::Unknown),
            sources,
        }
    }

    /// What may have been read: where a client only asked whether anything is there, each value that anybody had tried to
    /// write by then.
    pub(super) fn readings(&self, read: &Read) -> Vec<Read> {
        if read.content != Content::Unknown {
            return vec![*read];
        }
        let values = self.sources.keys().filter(|content| **content != Content::Nothing);
        let readings = values.map(|&content| Read { content, ..*read });
        readings.filter(|reading| self.source(reading).is_some()).collect()
    }

    /// Whether anybody had tried to write what was read.
    pub(super) fn could_hold(&self, read: &Read) -> bool {
        self.has_unknown || self.readings(read).iter().any(|reading| self.source(reading).is_some())
    }

    /// The write that was read, or all those it may have been: the latest of each time.
    fn source(&self, read: &Read) -> Option<&Source> {
        let sources = self.sources.get(&read.content)?;
        let possible = sources.partition_point(|source| source.began <= read.ended);
        sources[..possible].last()
    }

    /// How long what was read had been replaced when the read began.
    pub(super) fn staleness(&self, read: &Read, by: Overwriters) -> Option<Nanos> {
        self.behind(read, &self.overwrites[by as usize])
    }

    /// How long a write by the same proxy had been acknowledged when a read began that did not see it.
    pub(super) fn missed_own_write(&self, read: &Read, by: Overwriters) -> Option<Nanos> {
        let Path::Proxy(proxy) = read.path else { return None };
        self.behind(read, &self.own[by as usize][proxy])
    }

    fn behind(&self, read: &Read, overwrites: &Overwrites) -> Option<Nanos> {
        let replaced = overwrites.first_end_after(self.source(read)?.latest_end)?;
        (replaced < read.began).then(|| read.began - replaced)
    }

    /// How long what was read had expired when the read began.
    pub(super) fn outlived(&self, read: &Read) -> Option<Nanos> {
        let death = self.source(read)?.latest_death;
        (death < read.began).then(|| read.began - death)
    }

    /// Whether the same proxy had shown something newer before.
    pub(super) fn came_back(&self, read: &Read) -> bool {
        let Path::Proxy(proxy) = read.path else { return false };
        let Some(source) = self.source(read) else { return false };
        let before = self.shown[proxy].partition_point(|&(ended, _)| ended < read.began);
        before > 0 && self.shown[proxy][before - 1].1 > source.latest_end
    }
}

/// When each content that was written once was first seen by anybody.
fn first_seen(writes: &[&Write], reads: &[&Read]) -> HashMap<Content, Nanos> {
    let mut written: HashMap<Content, usize> = HashMap::new();
    writes.iter().for_each(|write| *written.entry(write.content).or_default() += 1);
    let mut seen = HashMap::new();
    for read in reads.iter().filter(|read| matches!(read.content, Content::Value(_))) {
        if written.get(&read.content) == Some(&1) {
            let first = seen.entry(read.content).or_insert(NEVER);
            *first = read.ended.min(*first);
        }
    }
    seen
}

fn shown(writes: &[&Write], reads: &[&Read], proxy: usize) -> Vec<(Nanos, Nanos)> {
    let values = writes.iter().filter(|write| matches!(write.content, Content::Value(_)));
    let mut first_began: HashMap<Content, Nanos> = HashMap::new();
    for write in values {
        let began = first_began.entry(write.content).or_insert(NEVER);
        *began = write.began.min(*began);
    }
    let by_proxy = reads.iter().filter(|read| read.path == Path::Proxy(proxy));
    let mut shown: Vec<_> = by_proxy.filter_map(|read| Some((read.ended, *first_began.get(&read.content)?))).collect();
    shown.sort_unstable();
    let mut newest = 0;
    for (_, began) in &mut shown {
        newest = newest.max(*began);
        *began = newest;
    }
    shown
}
