//! The promises, each as a judgement of a state: of what a client would be given that read now, and of what those who wait are
//! given when the next message of a lane is read. And what must be reached, or the promises would hold of nothing.

use stateright::Property;

use crate::Protocol;
use crate::proxy::Completion;
use crate::state::{FIRST, Fill, Message, Proxy, Read, SECOND, SERVERS, Stage, State, Value, Values};

/// Read your writes.
pub const OWN_WRITES: &str = "1 read your writes";
/// Bounded staleness.
pub const STALENESS: &str = "2 bounded staleness";
/// Expiry.
pub const EXPIRY: &str = "3 expiry";
/// No resurrection.
pub const RESURRECTION: &str = "5 no resurrection";
/// When it cannot be vouched for, it is not served.
pub const VOUCHED: &str = "6 only what is vouched for";

impl Protocol {
    /// All that is to be checked within these bounds.
    pub(crate) fn all_properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(OWN_WRITES, |model: &Self, state: &State| model.reads_own_writes(state)),
            Property::always(STALENESS, |model: &Self, state: &State| model.is_fresh_enough(state)),
            Property::always(EXPIRY, |model: &Self, state: &State| model.is_unexpired(state)),
            Property::always(RESURRECTION, |_, state: &State| {
                state.proxies.iter().filter_map(|proxy| proxy.entry.as_ref()).all(|entry| !entry.is_resurrected)
            }),
            Property::always(VOUCHED, |model: &Self, state: &State| model.is_vouched_for(state)),
            Property::sometimes("a hit", |model: &Self, state: &State| {
                state.proxies.iter().any(|proxy| model.served(proxy).is_some())
            }),
            Property::sometimes("a hit as stale as is allowed", |model: &Self, state: &State| {
                let age = |(proxy, value): (usize, Value)| state.proxies[proxy].ages[usize::from(value.0)];
                model.hits(state).any(|hit| age(hit) == model.bounds.max_staleness - 1)
            }),
            Property::sometimes("a lapsed lease is revived", |model: &Self, state: &State| {
                state.proxies.iter().any(|proxy| model.revives(proxy))
            }),
        ];
        self.of_fetches(&mut all);
        self.of_bounds(&mut all);
        all
    }

    fn of_fetches(&self, all: &mut Vec<Property<Self>>) {
        if self.bounds.has_writes_through {
            all.push(Property::sometimes("a fetch under way is poisoned by a write", |model: &Self, state: &State| {
                model.completions(state).any(|(_, fill, _)| fill.is_poisoned)
            }));
        }
        if self.bounds.has_followers {
            all.push(Property::sometimes("a follower is answered", |model: &Self, state: &State| {
                model.completions(state).any(|(_, fill, end)| fill.follower.is_some() && end.tells_follower)
            }));
        }
        if self.bounds.has_flushes && self.bounds.fills > 1 {
            all.push(Property::sometimes("a fetch whose lease has died is answered", |model: &Self, state: &State| {
                model.completions(state).any(|(_, fill, _)| fill.is_lease_dead)
            }));
        }
        if self.bounds.life.is_some() && self.bounds.has_followers {
            all.push(Property::sometimes("a follower came after the value's end", |model: &Self, state: &State| {
                model.completions(state).any(|(_, fill, end)| fill.follower.is_some() && !end.tells_follower)
            }));
        }
    }

    fn of_bounds(&self, all: &mut Vec<Property<Self>>) {
        if self.bounds.has_cuts {
            all.push(Property::sometimes(
                "a hit by a connection that is lost, unknown to the proxy",
                |model: &Self, state: &State| {
                    let is_cut = |(proxy, _): (usize, Value)| state.proxies[proxy].lanes[FIRST].is_cut;
                    model.hits(state).any(is_cut)
                },
            ));
        }
        if self.bounds.proxies > 1 {
            all.push(Property::sometimes("two proxies hit different values", |model: &Self, state: &State| {
                let mut values = model.hits(state).map(|(_, value)| value);
                values.next().is_some_and(|first| values.any(|value| value != first))
            }));
        }
        if self.bounds.has_failover {
            all.push(Property::sometimes(
                "a hit of what was fetched from the successor",
                |model: &Self, state: &State| model.hits(state).any(|(proxy, _)| on(&state.proxies[proxy], SECOND)),
            ));
            all.push(Property::sometimes(
                "a hit of what only the deposed primary has",
                |model: &Self, state: &State| {
                    let is_forked = |value: Value| state.forked & (1 << (value.0 / 2)) != 0;
                    model.hits(state).any(|(proxy, value)| on(&state.proxies[proxy], FIRST) && is_forked(value))
                },
            ));
            all.push(Property::sometimes("a fetch by an old session reaches its lane", |_, state: &State| {
                let is_old =
                    |proxy: &Proxy, fill: &Fill| fill.stage == Stage::Leased(FIRST) && proxy.topology == SECOND;
                state.proxies.iter().any(|proxy| proxy.fills.iter().flatten().any(|fill| is_old(proxy, fill)))
            }));
            all.push(Property::sometimes("a heartbeat finds the primary demoted", |_, state: &State| {
                let is_bad = |message: Option<&Message>| matches!(message, Some(Message::Beat { is_good: false, .. }));
                state.proxies.iter().any(|proxy| is_bad(proxy.lanes[FIRST].stream.first()))
            }));
        }
    }

    /// What clients that read now are answered with from the caches.
    fn hits<'s>(&'s self, state: &'s State) -> impl Iterator<Item = (usize, Value)> + 's {
        state.proxies.iter().enumerate().filter_map(|(number, proxy)| Some((number, self.served(proxy)?)))
    }

    /// The fetches that end with the next message of a lane.
    fn completions<'s>(&'s self, state: &'s State) -> impl Iterator<Item = (usize, &'s Fill, Completion)> + 's {
        let lanes = state
            .proxies
            .iter()
            .enumerate()
            .flat_map(|(number, proxy)| (0..SERVERS).map(move |server| (number, proxy, server)));
        lanes.filter_map(|(number, proxy, server)| {
            let completion = self.completion(proxy, server)?;
            Some((number, proxy.fill(completion.fill)?, completion))
        })
    }

    /// Whether nobody who waits is answered with what `forbidden` has of his.
    fn tells_nobody(&self, state: &State, forbidden: impl Fn(&Read) -> Values) -> bool {
        self.completions(state).all(|(_, fill, end)| {
            let follower = fill.follower.iter().filter(|_| end.tells_follower).map(|(_, read)| read);
            follower.chain([&fill.leader]).all(|read| !forbidden(read).has(end.value))
        })
    }

    fn reads_own_writes(&self, state: &State) -> bool {
        let is_own = |(proxy, value): (usize, Value)| {
            value >= Value::of(state.proxies[proxy].acknowledged) || value == self.reference(state, proxy)
        };
        self.hits(state).all(is_own) && self.tells_nobody(state, |read| read.overwritten)
    }

    fn is_fresh_enough(&self, state: &State) -> bool {
        let age = |(proxy, value): (usize, Value)| state.proxies[proxy].ages[usize::from(value.0)];
        self.hits(state).all(|hit| age(hit) < self.bounds.max_staleness) && self.tells_nobody(state, |read| read.stale)
    }

    fn is_unexpired(&self, state: &State) -> bool {
        let expired = state.expired();
        self.hits(state).all(|(_, value)| !expired.has(value)) && self.tells_nobody(state, |read| read.expired)
    }

    fn is_vouched_for(&self, state: &State) -> bool {
        let is_proven = |proxy: &Proxy| {
            proxy.entry.as_ref().is_none_or(|entry| !entry.is_orphan && proxy.lanes[entry.lane].proven > 0)
        };
        self.hits(state).all(|(proxy, _)| is_proven(&state.proxies[proxy]))
    }

    /// The next message of a lane is a heartbeat's answer that brings back an entry.
    fn revives(&self, proxy: &Proxy) -> bool {
        let Some(lane) = proxy.entry.as_ref().map(|entry| &proxy.lanes[entry.lane]) else { return false };
        let renews = |age: u8| age < self.bounds.max_staleness;
        let in_time = |message: &Message| matches!(message, Message::Beat { age, is_good: true } if renews(*age));
        lane.lease == 0 && lane.stream.first().is_some_and(in_time)
    }
}

fn on(proxy: &Proxy, server: usize) -> bool {
    proxy.entry.as_ref().is_some_and(|entry| entry.lane == server)
}
