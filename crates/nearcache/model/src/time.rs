//! How time passes, and what is forgotten meanwhile.

use arrayvec::ArrayVec;

use crate::Protocol;
use crate::broken::Broken;
use crate::state::{FOREVER, Message, Proxy, Read, Request, SERVERS, State, VERSIONS, Value, Values, Writing};

impl Protocol {
    /// A tick, everywhere at once: the clock of every process runs at the same speed.
    pub(crate) fn tick(&self, state: &mut State) {
        let longest = self.bounds.max_staleness;
        // A fetch's age is asked about until what it fetches has died.
        let asks_age = self.bounds.has_followers || self.bounds.life.is_some();
        let longest_fetch = if asks_age { longest.max(self.bounds.life.unwrap_or(0)) } else { 0 };
        state.life.iter_mut().for_each(run_down);
        for proxy in &mut state.proxies {
            proxy.ages.iter_mut().for_each(|age| *age = longest.min(*age + 1));
            if let Some(entry) = &mut proxy.entry {
                run_down(&mut entry.left);
            }
            if !self.lacks(Broken::NoDeadline) {
                proxy.entry.take_if(|entry| entry.left == 0);
            }
            proxy.fills.iter_mut().flatten().for_each(|fill| fill.age = longest_fetch.min(fill.age + 1));
            for lane in &mut proxy.lanes {
                run_down(&mut lane.lease);
                run_down(&mut lane.proven);
                for request in &mut lane.requests {
                    if let Request::Beat(age) = request {
                        *age = longest.min(*age + 1);
                    }
                }
                for message in &mut lane.stream {
                    if let Message::Beat { age, .. } = message {
                        *age = longest.min(*age + 1);
                    }
                }
            }
        }
    }

    /// After every step: what an uncached read would be answered with now is no stale answer to any read that waits; and what is
    /// remembered of values that nobody can be given any more is forgotten.
    pub(crate) fn settle(&self, state: &mut State) {
        for index in 0..state.proxies.len() {
            let (route, truth) = (self.route(state, index), state.value_at(state.elected));
            let reference = state.value_at(route);
            let is_lost = route == state.elected && state.forked & (1 << state.proxies[index].acknowledged) != 0;
            let proxy = &mut state.proxies[index];
            if is_lost {
                // A write that a failover has lost is no longer owed to anybody, from when an uncached read misses it.
                proxy.acknowledged = 0;
            }
            for value in [reference, truth] {
                proxy.ages[usize::from(value.0)] = 0;
            }
            for read in proxy.reads() {
                for value in [reference, truth] {
                    read.stale.remove(value);
                }
                if is_lost {
                    read.overwritten = Values::default();
                }
                read.overwritten.remove(reference);
            }
        }
        state.forget();
    }
}

impl State {
    fn forget(&mut self) {
        let there = self.values_there();
        for proxy in &mut self.proxies {
            for (value, age) in (0..).map(Value).zip(&mut proxy.ages) {
                if !there.has(value) {
                    *age = 0;
                }
            }
            for read in proxy.reads() {
                read.overwritten.keep(there);
                read.stale.keep(there);
                read.expired.keep(there);
            }
            if !(0..Value::of(proxy.acknowledged).0).any(|value| there.has(Value(value))) {
                proxy.acknowledged = 0;
            }
        }
        self.renumber(there);
    }

    /// Versions that nobody can be given, and nobody is told of, leave no gap.
    fn renumber(&mut self, there: Values) {
        let is_owed = |proxy: &Proxy, version| {
            matches!(proxy.writing, Writing::Answered(owed) | Writing::Flushed(owed) if owed == version)
                || (version > 0 && proxy.acknowledged == version)
        };
        let matters = |version: &u8| {
            there.has(Value::of(*version))
                || there.has(Value::absence_of(*version))
                || self.proxies.iter().any(|proxy| is_owed(proxy, *version))
        };
        let kept: ArrayVec<u8, VERSIONS> = (0..self.written).filter(matters).collect();
        if kept.len() == usize::from(self.written) {
            return;
        }
        let mut numbers = [0; VERSIONS];
        for (new, old) in (0..).zip(&kept) {
            numbers[usize::from(*old)] = new;
        }
        self.rename(&kept, |version| numbers[usize::from(version)]);
    }

    fn rename(&mut self, kept: &[u8], number: impl Fn(u8) -> u8) {
        let value = |old: Value| Value(2 * number(old.version()) + old.0 % 2);
        self.servers.iter_mut().for_each(|server| server.holds = number(server.holds));
        let (life, forked) = (self.life, self.forked);
        self.life = [FOREVER; VERSIONS];
        self.forked = 0;
        for old in kept {
            self.life[usize::from(number(*old))] = life[usize::from(*old)];
            self.forked |= ((forked >> old) & 1) << number(*old);
        }
        for proxy in &mut self.proxies {
            proxy.entry.iter_mut().for_each(|entry| entry.value = value(entry.value));
            proxy.fills.iter_mut().flatten().for_each(|fill| fill.value = fill.value.map(value));
            for read in proxy.reads() {
                read.overwritten = read.overwritten.renumbered(value);
                read.stale = read.stale.renumbered(value);
                read.expired = read.expired.renumbered(value);
            }
            for message in proxy.lanes.iter_mut().flat_map(|lane| &mut lane.stream) {
                if let Message::Value(_, found) = message {
                    *found = value(*found);
                }
            }
            if let Writing::Answered(version) | Writing::Flushed(version) = &mut proxy.writing {
                *version = number(*version);
            }
            proxy.acknowledged = number(proxy.acknowledged);
            let ages = std::mem::take(&mut proxy.ages);
            for old in kept.iter().flat_map(|version| [Value::of(*version), Value::absence_of(*version)]) {
                proxy.ages[usize::from(value(old).0)] = ages[usize::from(old.0)];
            }
        }
        self.written = u8::try_from(kept.len()).expect("they are few");
    }

    /// The values that somebody may be given yet.
    fn values_there(&self) -> Values {
        let mut there = Values::default();
        (0..SERVERS).for_each(|server| there.add(self.value_at(server)));
        for proxy in &self.proxies {
            proxy.entry.iter().for_each(|entry| there.add(entry.value));
            proxy.fills.iter().flatten().filter_map(|fill| fill.value).for_each(|value| there.add(value));
            for message in proxy.lanes.iter().flat_map(|lane| &lane.stream) {
                if let Message::Value(_, value) = message {
                    there.add(*value);
                }
            }
        }
        there
    }
}

impl Proxy {
    /// All that wait.
    fn reads(&mut self) -> impl Iterator<Item = &mut Read> {
        self.fills
            .iter_mut()
            .flatten()
            .flat_map(|fill| fill.follower.iter_mut().map(|(_, read)| read).chain([&mut fill.leader]))
    }
}

fn run_down(left: &mut u8) {
    if *left != FOREVER {
        *left = left.saturating_sub(1);
    }
}
