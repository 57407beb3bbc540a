//! The checker: reads a history and finds what breaks a promise.
//!
//! Who wrote a value is known from the value. A write *c* is older than a write *w* for sure if *c* had ended before *w*
//! began. So a read is staler than *lag* allows if it returns a value all of whose possible writes had ended before a write
//! *w* began that was itself over *lag* before the read began. That may miss a stale read; it never finds one where there is
//! none, however slow the machine and whatever the clients did at once.
//!
//! A write is over when it was acknowledged, or when somebody has read what it wrote: the earlier counts, except for
//! promise 1, which speaks of acknowledgements.
//!
//! Redis itself breaks these rules where it loses writes or an isolated primary still answers. An anomaly is Redis's own only
//! where the control shows it too: if a direct read of the same key at about that time found the same content and was as
//! wrong to find it; or if what the read missed had been acknowledged in a time for which direct writes to the same slot show
//! that acknowledgements were worth nothing.

mod timeline;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::history::{Content, History, Key, Nanos, Path, Read, Strange, nanos};
use timeline::{Overwriters, Timeline};

/// What is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The setting of the proxies.
    pub max_staleness: Duration,
    /// Redis was made to throw away keys for lack of memory: every key may be gone at any time.
    pub evicts: bool,
    /// Something happened after which Redis may have lost what it had acknowledged.
    pub loses_writes: bool,
    /// How many proxies there were.
    pub proxies: usize,
}

/// What may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Promise {
    /// 1: no read misses a write through the same proxy that was acknowledged before it.
    ReadYourWrites,
    /// 2: no read misses what was there `max-staleness` before it.
    BoundedStaleness,
    /// 3: no value outlives its time to live.
    Expiry,
    /// 4: no value of another database or for another user.
    Isolation,
    /// 5: nothing comes back that had been seen replaced.
    NoResurrection,
    /// 6: nothing is served that cannot be vouched for.
    OnlyVouchedFor,
    /// Every reply is the one to the command.
    OwnReplies,
    /// Every command is answered in time.
    NoHang,
    /// What was acknowledged is there.
    NoLoss,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// How.
    pub what: String,
    /// The read that shows it, if one does.
    pub read: Option<Read>,
}

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Reads through the proxies that were judged.
    pub reads: usize,
    /// Direct reads.
    pub control_reads: usize,
    /// Direct reads that missed something acknowledged: what Redis does by itself.
    pub control_anomalies: usize,
    /// Reads through a proxy that would be violations if the control had not found the same.
    pub anomalies_of_redis: usize,
    /// The longest that an overwriting write had been acknowledged when a read began that did not see it; without what is
    /// Redis's own.
    pub worst_staleness: Duration,
    /// Keys that have not got what was acknowledged last, in a round in which Redis loses writes.
    pub lost_by_redis: usize,
}

/// Times to live count milliseconds, and a server may use a time that it has read a moment ago.
const EXPIRY_SLACK: Duration = Duration::from_millis(5);
/// The control cannot look at every moment, and has to find the new primary itself.
const CONTROL_SLACK: Duration = Duration::from_secs(2);

/// Finds what breaks a promise.
#[must_use]
pub fn check(history: &History, terms: Terms) -> Findings {
    let timelines = Timeline::all(history, terms.proxies, EXPIRY_SLACK);
    let mut checker = Checker { terms, timelines, control: HashMap::new(), findings: Findings::default() };
    checker.watch_control(history);
    for read in history.reads.iter().filter(|read| read.path != Path::Direct) {
        checker.judge(read);
    }
    checker.judge_silences(history);
    checker.judge_last_reads(history);
    for strange in &history.strange {
        checker.judge_strange(strange);
    }
    checker.findings
}

struct Checker {
    terms: Terms,
    timelines: HashMap<Key, Timeline>,
    /// When a direct read found this although it should not have.
    control: HashMap<(Key, Content), Vec<(Nanos, Nanos)>>,
    findings: Findings,
}

impl Checker {
    fn watch_control(&mut self, history: &History) {
        for read in history.reads.iter().filter(|read| read.path == Path::Direct) {
            self.findings.control_reads += 1;
            let Some(timeline) = self.timelines.get(&read.key) else { continue };
            let is_wrong = |reading: &Read| {
                timeline.staleness(reading, Overwriters::All).is_some() || timeline.outlived(reading).is_some()
            };
            if timeline.readings(read).iter().all(is_wrong) {
                self.findings.control_anomalies += 1;
                self.control.entry((read.key, read.content)).or_default().push((read.began, read.ended));
            }
        }
    }

    fn judge(&mut self, read: &Read) {
        self.findings.reads += 1;
        if read.content == Content::Nothing && self.terms.evicts {
            return;
        }
        let Some(timeline) = self.timelines.get(&read.key) else { return };
        if !timeline.could_hold(read) {
            let what = format!("{} was never written: {read:?}", shown(read.content));
            return self.violation(Promise::OwnReplies, what, Some(*read));
        }
        let broken = self.broken(timeline, read, Overwriters::All);
        let lasting = self.broken(timeline, read, Overwriters::Kept);
        let (stale, violations) = if self.control_shows(read) { (None, Vec::new()) } else { lasting };
        if violations.is_empty() && !broken.1.is_empty() {
            self.findings.anomalies_of_redis += 1;
        }
        self.note_staleness(Duration::from_nanos(stale.unwrap_or_default()));
        self.findings.violations.extend(violations);
    }

    /// How long what was read had been replaced, and what is wrong with that. Of all that may have been read the best counts.
    fn broken(&self, timeline: &Timeline, read: &Read, overwriters: Overwriters) -> (Option<Nanos>, Vec<Violation>) {
        let readings = timeline.readings(read);
        let all = readings.iter().map(|reading| self.broken_as(timeline, reading, overwriters));
        all.min_by_key(|(stale, violations)| (violations.len(), *stale)).unwrap_or_default()
    }

    /// The same, where it is known what was read.
    fn broken_as(&self, timeline: &Timeline, read: &Read, overwriters: Overwriters) -> (Option<Nanos>, Vec<Violation>) {
        let stale = timeline.staleness(read, overwriters);
        let mut violations = Vec::new();
        let mut add = |promise, what: &str, by: Nanos| {
            let by = Duration::from_nanos(by);
            let what = format!("{what} {by:?} before it was read: {read:?}");
            violations.push(Violation { promise, what, read: Some(*read) });
        };
        if let Some(by) = timeline.missed_own_write(read, overwriters) {
            add(Promise::ReadYourWrites, "a write was acknowledged", by);
        }
        if let Some(by) = stale.filter(|&stale| stale > nanos(self.terms.max_staleness)) {
            let came_back = timeline.came_back(read);
            let promise = if came_back { Promise::NoResurrection } else { Promise::BoundedStaleness };
            add(promise, "overwritten", by);
        }
        if let Some(by) = timeline.outlived(read) {
            add(Promise::Expiry, "expired", by);
        }
        (stale, violations)
    }

    fn note_staleness(&mut self, staleness: Duration) {
        self.findings.worst_staleness = self.findings.worst_staleness.max(staleness);
    }

    fn control_shows(&self, read: &Read) -> bool {
        let slack = nanos(CONTROL_SLACK) + nanos(self.terms.max_staleness);
        let meets = |&(began, ended): &(Nanos, Nanos)| began <= read.ended + slack && ended + slack >= read.began;
        self.control.get(&(read.key, read.content)).is_some_and(|found| found.iter().any(meets))
    }

    /// While nobody can reach Redis, nothing is served that is older than `max-staleness`.
    fn judge_silences(&mut self, history: &History) {
        let lag = nanos(self.terms.max_staleness);
        for silence in &history.silences {
            let is_within = |read: &&Read| {
                let is_later = read.began > silence.from + lag && read.ended < silence.until;
                read.path != Path::Direct && is_later && silence.keys.contains(&read.key)
            };
            for read in history.reads.iter().filter(is_within) {
                let since = Duration::from_nanos(read.began - silence.from);
                let what = format!("Redis was out of reach for {since:?}: {read:?}");
                self.violation(Promise::OnlyVouchedFor, what, Some(*read));
            }
        }
    }

    fn judge_last_reads(&mut self, history: &History) {
        for read in &history.last_reads {
            if read.content == Content::Nothing && self.terms.evicts {
                continue;
            }
            let Some(timeline) = self.timelines.get(&read.key) else { continue };
            if timeline.staleness(read, Overwriters::All).is_none() {
                continue;
            }
            if self.terms.loses_writes {
                self.findings.lost_by_redis += 1;
            } else {
                self.violation(Promise::NoLoss, format!("an acknowledged write is gone: {read:?}"), Some(*read));
            }
        }
    }

    fn judge_strange(&mut self, strange: &Strange) {
        let promise = match strange {
            Strange::WrongReply { .. } | Strange::Closed(_) => Promise::OwnReplies,
            Strange::Hang(_) => Promise::NoHang,
            Strange::NotForThisClient(_) => Promise::Isolation,
        };
        self.violation(promise, format!("{strange:?}"), None);
    }

    fn violation(&mut self, promise: Promise, what: String, read: Option<Read>) {
        self.findings.violations.push(Violation { promise, what, read });
    }
}

fn shown(content: Content) -> String {
    match content {
        Content::Nothing => "nothing".to_owned(),
        Content::Value(number) => format!("value {number}"),
        Content::Unknown => "a value".to_owned(),
    }
}

impl Promise {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::ReadYourWrites,
        Self::BoundedStaleness,
        Self::Expiry,
        Self::Isolation,
        Self::NoResurrection,
        Self::OnlyVouchedFor,
        Self::OwnReplies,
        Self::NoHang,
        Self::NoLoss,
    ];
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadYourWrites => "1 read your writes",
            Self::BoundedStaleness => "2 bounded staleness",
            Self::Expiry => "3 expiry",
            Self::Isolation => "4 isolation",
            Self::NoResurrection => "5 no resurrection",
            Self::OnlyVouchedFor => "6 only what is vouched for",
            Self::OwnReplies => "every reply is the command's own",
            Self::NoHang => "no hang",
            Self::NoLoss => "no acknowledged write is lost",
        })
    }
}
