//! Histories made by hand: each broken promise is found, and what is no breach is not.

use std::time::Duration;

use super::{Findings, Promise, Terms, check};
use crate::history::{Content, History, Key, Loss, Nanos, Path, Read, Silence, Strange, Write};

const KEY: Key = 0;
const ONE: Path = Path::Proxy(0);
const OTHER: Path = Path::Proxy(1);
const TERMS: Terms =
    Terms { max_staleness: Duration::from_millis(500), evicts: false, loses_writes: false, proxies: 2 };

const fn ms(millis: u64) -> Nanos {
    millis * 1_000_000
}

/// A history in the making, in milliseconds. Each of its acts takes one.
#[derive(Default)]
struct Story(History);

impl Story {
    fn write(mut self, at: u64, path: Path, value: u64) -> Self {
        self.0.writes.push(write(at, path, Content::Value(value)));
        self
    }

    fn mortal(mut self, at: u64, path: Path, value: u64, life: u64) -> Self {
        self.0.writes.push(Write { life: Some(ms(life)), ..write(at, path, Content::Value(value)) });
        self
    }

    fn delete(mut self, at: u64, path: Path) -> Self {
        self.0.writes.push(write(at, path, Content::Nothing));
        self
    }

    /// The outcome stays unknown.
    fn lost_reply(mut self, at: u64, path: Path, value: u64) -> Self {
        self.0.writes.push(Write { acknowledged: None, ..write(at, path, Content::Value(value)) });
        self
    }

    /// By a script that does not declare the key.
    fn undeclared(mut self, at: u64, path: Path, value: u64) -> Self {
        self.0.writes.push(Write { names_key: false, ..write(at, path, Content::Value(value)) });
        self
    }

    fn read(mut self, at: u64, path: Path, value: u64) -> Self {
        self.0.reads.push(read(at, path, Content::Value(value)));
        self
    }

    fn read_nothing(mut self, at: u64, path: Path) -> Self {
        self.0.reads.push(read(at, path, Content::Nothing));
        self
    }

    /// A client asks only whether anything is there.
    fn read_something(mut self, at: u64, path: Path) -> Self {
        self.0.reads.push(read(at, path, Content::Unknown));
        self
    }

    fn broken(&self, terms: Terms) -> Vec<Promise> {
        self.check(terms).violations.iter().map(|violation| violation.promise).collect()
    }

    fn check(&self, terms: Terms) -> Findings {
        check(&self.0, terms)
    }

    #[track_caller]
    fn breaks(self, promises: &[Promise]) {
        assert_eq!(self.broken(TERMS), promises);
    }
}

fn write(at: u64, path: Path, content: Content) -> Write {
    let (began, acknowledged) = (ms(at), Some(ms(at + 1)));
    Write { key: KEY, content, life: None, began, acknowledged, path, names_key: true }
}

fn read(at: u64, path: Path, content: Content) -> Read {
    Read { key: KEY, content, began: ms(at), ended: ms(at + 1), path }
}

#[test]
fn what_was_written_last_may_be_read_and_what_is_being_written_too() {
    Story::default().write(10, ONE, 1).read(20, ONE, 1).read(20, OTHER, 1).breaks(&[]);
    Story::default().read_nothing(5, ONE).breaks(&[]);
    // Two at the same time, in whichever order.
    Story::default().write(10, ONE, 1).write(10, ONE, 2).read(20, ONE, 1).read(30, ONE, 2).breaks(&[]);
    // A read that began before the write was acknowledged.
    Story::default().write(10, ONE, 1).write(20, ONE, 2).read(20, ONE, 1).breaks(&[]);
}

#[test]
fn an_acknowledged_write_through_the_same_proxy_is_not_missed() {
    Story::default().write(10, ONE, 1).write(20, ONE, 2).read(22, ONE, 1).breaks(&[Promise::ReadYourWrites]);
    Story::default().write(10, ONE, 1).delete(20, ONE).read(22, ONE, 1).breaks(&[Promise::ReadYourWrites]);
    Story::default().write(10, ONE, 1).read_nothing(22, ONE).breaks(&[Promise::ReadYourWrites]);
}

#[test]
fn a_write_by_another_way_may_be_missed_for_as_long_as_is_allowed_and_no_longer() {
    let story = || Story::default().write(10, ONE, 1);
    story().write(20, OTHER, 2).read(521, ONE, 1).breaks(&[]);
    story().write(20, OTHER, 2).read(522, ONE, 1).breaks(&[Promise::BoundedStaleness]);
    story().write(20, Path::Direct, 2).read(522, ONE, 1).breaks(&[Promise::BoundedStaleness]);
    story().undeclared(20, ONE, 2).read(521, ONE, 1).breaks(&[]);
    story().undeclared(20, ONE, 2).read(522, ONE, 1).breaks(&[Promise::BoundedStaleness]);
}

#[test]
fn a_nil_is_as_stale_as_a_value() {
    Story::default().write(20, Path::Direct, 2).read_nothing(522, ONE).breaks(&[Promise::BoundedStaleness]);
    let evicting = Terms { evicts: true, ..TERMS };
    assert_eq!(Story::default().write(20, Path::Direct, 2).read_nothing(522, ONE).broken(evicting), []);
}

#[test]
fn a_write_of_unknown_outcome_counts_from_when_it_was_seen() {
    let story = || Story::default().write(10, ONE, 1).lost_reply(20, OTHER, 2);
    story().read(900, ONE, 1).breaks(&[]);
    story().read(30, OTHER, 2).read(531, ONE, 1).breaks(&[]);
    story().read(30, OTHER, 2).read(532, ONE, 1).breaks(&[Promise::BoundedStaleness]);
    // Nor is what it wrote ever too old before anybody has seen it.
    story().write(30, ONE, 3).read(900, ONE, 2).breaks(&[]);
}

#[test]
fn nothing_outlives_its_time() {
    Story::default().mortal(10, ONE, 1, 100).read(115, ONE, 1).breaks(&[]);
    Story::default().mortal(10, ONE, 1, 100).read(117, ONE, 1).breaks(&[Promise::Expiry]);
    Story::default().mortal(10, ONE, 1, 100).read_nothing(110, ONE).breaks(&[]);
    // Gone before its time.
    let broken = Story::default().mortal(10, OTHER, 1, 10_000).read_nothing(600, ONE).broken(TERMS);
    assert_eq!(broken, [Promise::BoundedStaleness]);
}

#[test]
fn that_anything_is_there_is_wrong_only_where_every_value_would_be() {
    let story = || Story::default().write(10, ONE, 1);
    story().read_something(20, ONE).breaks(&[]);
    story().write(20, ONE, 2).read_something(900, ONE).breaks(&[]);
    story().delete(20, ONE).read_something(22, ONE).breaks(&[Promise::ReadYourWrites]);
    story().delete(20, Path::Direct).read_something(521, ONE).breaks(&[]);
    story().delete(20, Path::Direct).read_something(522, ONE).breaks(&[Promise::BoundedStaleness]);
    story().delete(20, ONE).read_something(22, ONE).read_something(30, Path::Direct).breaks(&[]);
    Story::default().write(30, ONE, 1).read_something(20, ONE).breaks(&[Promise::OwnReplies]);
}

#[test]
fn a_field_that_has_expired_is_not_there() {
    let story = || Story::default().write(10, ONE, 1).mortal(20, ONE, 2, 100);
    story().read_something(125, ONE).breaks(&[]);
    story().read_something(127, ONE).breaks(&[Promise::Expiry]);
    story().read(127, OTHER, 2).breaks(&[Promise::Expiry]);
    story().delete(30, OTHER).read_something(125, ONE).breaks(&[]);
    // Somebody sets it again.
    story().write(115, ONE, 3).read_something(127, ONE).breaks(&[]);
    story().read_nothing(120, ONE).breaks(&[]);
}

#[test]
fn what_had_been_seen_replaced_does_not_come_back() {
    let story = Story::default().write(10, ONE, 1).write(20, Path::Direct, 2);
    story.read(30, ONE, 2).read(600, ONE, 1).breaks(&[Promise::NoResurrection]);
}

#[test]
fn while_redis_is_out_of_reach_only_what_can_be_vouched_for_is_served() {
    let mut story = Story::default().write(10, ONE, 1).read(500, ONE, 1).read(699, ONE, 1).read(950, ONE, 1);
    story.0.silences.push(Silence { keys: vec![KEY], from: ms(200), until: ms(951) });
    story.0.reads.push(Read { key: KEY + 1, ..read(900, ONE, Content::Nothing) });
    assert_eq!(story.broken(TERMS), [], "the last one ended with the silence");
    let story = Story(History { reads: vec![read(720, ONE, Content::Value(1))], ..story.0 });
    story.breaks(&[Promise::OnlyVouchedFor]);
}

#[test]
fn a_value_that_nobody_wrote_is_nobodys() {
    Story::default().write(10, ONE, 1).read(20, ONE, 7).breaks(&[Promise::OwnReplies]);
    // Before it was written, either.
    Story::default().write(30, ONE, 7).read(20, ONE, 7).breaks(&[Promise::OwnReplies]);
    // Unless somebody was not told what he wrote.
    let mut story = Story::default().read(20, ONE, 7);
    story.0.writes.push(Write { acknowledged: None, ..write(10, ONE, Content::Unknown) });
    story.breaks(&[]);
}

#[test]
fn what_is_wrong_in_itself_is_told() {
    let strange = [
        (Strange::Hang(String::new()), Promise::NoHang),
        (Strange::Closed(String::new()), Promise::OwnReplies),
        (Strange::WrongReply { request: String::new(), reply: String::new() }, Promise::OwnReplies),
        (Strange::NotForThisClient(String::new()), Promise::Isolation),
    ];
    for (strange, promise) in strange {
        Story(History { strange: vec![strange], ..History::default() }).breaks(&[promise]);
    }
}

#[test]
fn an_acknowledged_write_is_there_in_the_end() {
    let mut story = Story::default().write(10, ONE, 1).write(20, ONE, 2);
    story.0.last_reads.push(read(5000, Path::Direct, Content::Value(2)));
    assert_eq!(story.broken(TERMS), []);
    story.0.last_reads[0].content = Content::Value(1);
    assert_eq!(story.broken(TERMS), [Promise::NoLoss]);
    let losing = Terms { loses_writes: true, ..TERMS };
    assert_eq!((story.broken(losing), story.check(losing).lost_by_redis), (Vec::new(), 1));
}

#[test]
fn an_anomaly_is_redis_own_only_where_the_control_shows_it_too() {
    let story = || Story::default().write(10, ONE, 1).write(20, ONE, 2).read(3000, ONE, 1);
    let both = [Promise::ReadYourWrites, Promise::BoundedStaleness];
    story().breaks(&both);
    // The control found the same: at about that time, of that content, and wrongly.
    story().read(3100, Path::Direct, 1).breaks(&[]);
    story().read(3100, Path::Direct, 2).breaks(&both);
    story().read(9000, Path::Direct, 1).breaks(&both);
    story().read(15, Path::Direct, 1).breaks(&both);
    assert_eq!(story().read(3100, Path::Direct, 1).check(TERMS).anomalies_of_redis, 1);
    // What it found, wrongly too, was something else.
    let between = Story::default().write(10, ONE, 1).write(15, ONE, 2).write(20, ONE, 3).read(3000, ONE, 1);
    between.read(3100, Path::Direct, 2).breaks(&both);
}

#[test]
fn a_write_may_be_missed_if_direct_writes_of_that_time_were_lost() {
    let story = |from, until| {
        let mut story = Story::default().write(10, ONE, 1).write(20, ONE, 2).read(3000, ONE, 1);
        story.0.losses.push(Loss { keys: vec![KEY], from: ms(from), until: ms(until), is_of_all: false });
        story
    };
    story(15, 400).breaks(&[]);
    story(22, 400).breaks(&[Promise::ReadYourWrites, Promise::BoundedStaleness]);
    story(5, 19).breaks(&[Promise::ReadYourWrites, Promise::BoundedStaleness]);
    // What was written later is not lost.
    story(15, 400).write(410, ONE, 3).breaks(&[Promise::ReadYourWrites, Promise::BoundedStaleness]);
}

#[test]
fn a_slot_that_is_taken_over_takes_all_that_was_there_before() {
    let story = || {
        let mut story = Story::default().write(10, ONE, 1).write(25, ONE, 2);
        story.0.losses.push(Loss { keys: vec![KEY], from: ms(20), until: ms(30), is_of_all: true });
        story
    };
    // What was written meanwhile may be gone or not, by whichever proxy.
    story().read_nothing(29, ONE).read(29, OTHER, 2).breaks(&[]);
    story().read_nothing(900, ONE).breaks(&[]);
    story().read(900, ONE, 2).breaks(&[]);
    // What was there before is gone, and nobody was told: known soon enough, not at once.
    story().read(530, ONE, 1).breaks(&[]);
    story().read(531, ONE, 1).breaks(&[Promise::BoundedStaleness]);
    // So it is with what is written afterwards, which is not lost.
    story().write(40, ONE, 3).read_nothing(42, ONE).breaks(&[Promise::ReadYourWrites]);
    story().write(40, Path::Direct, 3).read_nothing(541, ONE).breaks(&[]);
    story().write(40, Path::Direct, 3).read_nothing(542, ONE).breaks(&[Promise::BoundedStaleness]);
    // The end finds it so too.
    let mut story = story();
    story.0.last_reads.push(read(5000, Path::Direct, Content::Nothing));
    story.breaks(&[]);
}

#[test]
fn staleness_is_from_the_acknowledgement_of_the_first_overwriting_write_to_the_beginning_of_the_read() {
    let story = Story::default().write(10, ONE, 1).write(20, OTHER, 2).write(100, OTHER, 3).read(321, ONE, 1);
    let findings = story.check(TERMS);
    assert_eq!((findings.worst_staleness, findings.reads), (Duration::from_millis(300), 1));
}
