//! Which server is the primary, decided between Sentinels that may know more or less.
//!
//! Every failover has a config epoch of its own, which a majority of the Sentinels has granted, and the newest one counts
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#consistency-properties-of-sentinel>). So a
//! Sentinel that was cut off, or was started from an old file, never takes the primary back to where it was; unless nobody
//! says any more what was believed, and most of those that were named to the proxy agree on something else: then somebody
//! has set the Sentinels up anew.

use std::time::Duration;

use nearside_nearcache::Time;

use crate::config::UpstreamAddress;

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Where the primary is.
    pub(crate) address: UpstreamAddress,
    /// Since the failover of this epoch.
    pub(crate) epoch: u64,
}

/// All that is known of one primary.
#[derive(Debug)]
pub(crate) struct Monitored {
    /// By Sentinel.
    heard: Vec<Heard>,
    believed: Option<Claim>,
    /// When a Sentinel last said what is believed.
    vouched: Time,
    /// What was not said again for this long is said no more.
    gone_after: Duration,
}

/// The last that was heard of a Sentinel.
#[derive(Clone, Debug)]
enum Heard {
    /// Nothing yet.
    Nothing,
    /// It did not answer, or does not know the name.
    Silence,
    /// And when it was asked, and had answered.
    Said(Claim, Time, Time),
}

impl Monitored {
    /// Nothing is known yet, and so many Sentinels can be asked.
    pub(crate) fn new(sentinels: usize, gone_after: Duration) -> Self {
        Monitored { heard: vec![Heard::Nothing; sentinels], believed: None, vouched: Time(0), gone_after }
    }

    /// A Sentinel, asked at `asked_at`, has answered.
    pub(crate) fn said(&mut self, sentinel: usize, claim: Claim, asked_at: Time, now: Time) {
        let vouches = |old: &Claim| old.address == claim.address && claim.epoch >= old.epoch;
        if self.believed.as_ref().is_some_and(vouches) {
            self.vouched = now;
        }
        self.heard[sentinel] = Heard::Said(claim, asked_at, now);
    }

    /// A Sentinel has not answered. What it said before holds for a while.
    pub(crate) fn silent(&mut self, sentinel: usize) {
        if !matches!(self.heard[sentinel], Heard::Said(..)) {
            self.heard[sentinel] = Heard::Silence;
        }
    }

    /// What has to be believed next, if there is something: once the server itself has said that it is a primary.
    pub(crate) fn candidate(&self, now: Time) -> Option<&Claim> {
        let newest = self.claims(now).max_by_key(|claim| claim.epoch);
        let Some(believed) = &self.believed else {
            // The first to answer may be the one that was cut off.
            let is_enough = self.is_most(self.claims(now).count()) || !self.may_hear_more();
            return newest.filter(|_| is_enough);
        };
        if now >= self.vouched + self.gone_after {
            let agreed = |claim: &&Claim| self.is_most(self.claims(now).filter(|other| other == claim).count());
            let other = self.claims(now).find(agreed).filter(|claim| *claim != believed);
            return other.or(newest.filter(|claim| claim.epoch > believed.epoch));
        }
        newest.filter(|claim| claim.epoch > believed.epoch)
    }

    /// From now on this counts.
    pub(crate) fn believe(&mut self, claim: Claim, now: Time) {
        self.believed = Some(claim);
        self.vouched = now;
    }

    /// When most of the Sentinels still said what is believed: the latest time at which so many had not been asked yet.
    pub(crate) fn confirmed(&self) -> Option<Time> {
        let believed = self.believed.as_ref()?;
        let mut asked: Vec<Time> = self
            .heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Said(claim, asked_at, _) if claim == believed => Some(*asked_at),
                _ => None,
            })
            .collect();
        asked.sort_unstable();
        let most = self.heard.len() / 2 + 1;
        asked.len().checked_sub(most).map(|at| asked[at])
    }

    /// Where the primary is, as is believed.
    pub(crate) fn address(&self) -> Option<&UpstreamAddress> {
        self.believed.as_ref().map(|claim| &claim.address)
    }

    fn claims(&self, now: Time) -> impl Iterator<Item = &Claim> {
        let gone_after = self.gone_after;
        self.heard.iter().filter_map(move |heard| match heard {
            Heard::Said(claim, _, since) if now < *since + gone_after => Some(claim),
            _ => None,
        })
    }

    fn is_most(&self, count: usize) -> bool {
        count * 2 > self.heard.len()
    }

    fn may_hear_more(&self) -> bool {
        self.heard.iter().any(|heard| matches!(heard, Heard::Nothing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(3);

    fn claim(port: u16, epoch: u64) -> Claim {
        Claim { address: UpstreamAddress::Tcp { host: "h".into(), port }, epoch }
    }

    /// Three Sentinels, and the time in milliseconds.
    struct World(Monitored, u64);

    impl World {
        fn new() -> Self {
            World(Monitored::new(3, GONE_AFTER), 1000)
        }

        fn now(&self) -> Time {
            Time(self.1 * 1_000_000)
        }

        /// They say so, and what has to be believed is.
        fn say(&mut self, claims: &[(usize, u16, u64)]) -> u16 {
            for (sentinel, port, epoch) in claims {
                self.0.said(*sentinel, claim(*port, *epoch), self.now(), self.now());
            }
            self.settle()
        }

        fn settle(&mut self) -> u16 {
            if let Some(candidate) = self.0.candidate(self.now()).cloned() {
                let now = self.now();
                self.0.believe(candidate, now);
            }
            match self.0.address() {
                Some(UpstreamAddress::Tcp { port, .. }) => *port,
                _ => 0,
            }
        }

        fn wait(&mut self, time: Duration) {
            self.1 += u64::try_from(time.as_millis()).expect("short");
        }
    }

    #[test]
    fn the_first_primary_is_known_when_most_have_answered_or_nobody_else_will() {
        let mut world = World::new();
        assert_eq!(world.say(&[(0, 1, 5)]), 0, "it may be the one that was cut off");
        assert_eq!(world.say(&[(1, 2, 6)]), 2);
        let mut world = World::new();
        world.say(&[(0, 1, 5)]);
        world.0.silent(1);
        assert_eq!(world.settle(), 0);
        world.0.silent(2);
        assert_eq!(world.settle(), 1);
    }

    #[test]
    fn the_newest_failover_counts_whoever_tells_of_it() {
        let mut world = World::new();
        assert_eq!(world.say(&[(0, 1, 0), (1, 1, 0), (2, 1, 0)]), 1);
        assert_eq!(world.say(&[(2, 2, 1)]), 2);
        assert_eq!(world.say(&[(0, 1, 0), (1, 1, 0)]), 2, "they have not heard of it yet");
        assert_eq!(world.say(&[(0, 1, 2)]), 1, "back again, by another failover");
    }

    #[test]
    fn one_that_was_cut_off_takes_nothing_back_however_long_it_is_alone() {
        let mut world = World::new();
        world.say(&[(0, 2, 1), (1, 2, 1), (2, 2, 1)]);
        for _ in 0..10 {
            world.wait(GONE_AFTER);
            assert_eq!(world.say(&[(0, 1, 0)]), 2);
        }
        assert_eq!(world.say(&[(1, 3, 2)]), 3, "but what is newer counts at once");
    }

    #[test]
    fn of_one_epoch_another_address_counts_as_little() {
        let mut world = World::new();
        world.say(&[(0, 2, 1), (1, 2, 1)]);
        assert_eq!(world.say(&[(0, 1, 1)]), 2);
        assert_eq!(world.say(&[(1, 1, 1)]), 2);
        assert_eq!(world.say(&[(0, 1, 0), (1, 1, 0)]), 2);
    }

    #[test]
    fn most_are_believed_once_nobody_says_any_more_what_was() {
        let mut world = World::new();
        world.say(&[(0, 1, 7), (1, 1, 7), (2, 1, 7)]);
        // Set up anew, from epoch 0.
        world.wait(GONE_AFTER / 2);
        assert_eq!(world.say(&[(0, 2, 0), (1, 2, 0)]), 1);
        world.wait(GONE_AFTER / 2);
        assert_eq!(world.say(&[(0, 2, 0), (1, 2, 0)]), 2);
        let mut world = World::new();
        world.say(&[(0, 1, 7), (1, 1, 7), (2, 1, 7)]);
        world.wait(GONE_AFTER / 2);
        world.say(&[(0, 2, 0), (1, 2, 0), (2, 1, 7)]);
        world.wait(GONE_AFTER / 2);
        assert_eq!(world.say(&[(0, 2, 0), (1, 2, 0)]), 1, "one still said so");
    }

    #[test]
    fn what_all_forget_to_say_is_believed_until_they_say_something_else() {
        let mut world = World::new();
        world.say(&[(0, 1, 1), (1, 1, 1)]);
        (0..3).for_each(|sentinel| world.0.silent(sentinel));
        world.wait(GONE_AFTER * 100);
        assert_eq!(world.settle(), 1);
    }

    #[test]
    fn what_is_believed_is_confirmed_by_most() {
        let mut world = World::new();
        world.say(&[(0, 1, 1), (1, 1, 1)]);
        let first = world.now();
        assert_eq!(world.0.confirmed(), Some(first));
        world.wait(GONE_AFTER / 10);
        world.say(&[(0, 1, 1)]);
        assert_eq!(world.0.confirmed(), Some(first), "one alone may have been cut off");
        world.say(&[(2, 1, 1)]);
        assert_eq!(world.0.confirmed(), Some(world.now()));
        world.say(&[(1, 2, 2)]);
        assert_eq!(world.0.confirmed(), None, "the others have not heard of it yet");
    }

    #[test]
    fn a_failover_that_ends_where_it_began_is_noted() {
        let mut world = World::new();
        world.say(&[(0, 1, 1), (1, 1, 1)]);
        assert_eq!(world.say(&[(0, 1, 3)]), 1);
        assert_eq!(world.say(&[(1, 2, 2)]), 1, "older than that");
    }
}
