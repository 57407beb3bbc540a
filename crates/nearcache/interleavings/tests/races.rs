//! The near-cache's operations against each other, in very many orders.

use std::sync::Arc;

use nearside_nearcache::{Answer, Lease, LeaseOwner, Lookup, NearCache, Read, Renewal, Ttl};
use nearside_nearcache_interleavings::{Actor, KEY, NOBODY, NODE, NOW, SCOPES, World, explore, small_cache};

const INTERLEAVINGS: usize = 20_000;

fn actor(does: impl FnOnce(&World) + Send + 'static) -> Actor {
    Box::new(does)
}

fn reader(reads: usize) -> Actor {
    actor(move |world| (0..reads).for_each(|_| world.read(SCOPES[0])))
}

/// An answer is being stored while `ends` ends its right to be: nothing of it may be served once that is done.
fn explore_an_answer_against(ends: fn(&NearCache, LeaseOwner) -> Option<LeaseOwner>) {
    explore(
        move || {
            let cache = small_cache();
            let owner = cache.open_lease(NODE);
            owner.renew(NOW, NOW);
            let Lookup::Lead(mut ticket) = cache.lookup(KEY, SCOPES[0], NOW, || NOBODY) else { panic!("it is empty") };
            ticket.sent(&owner.lease(), NOW);
            let answer = Answer::Store { reply: b"+1\r\n", ttl: Ttl::Persistent };
            let completion = shuttle::thread::spawn(move || ticket.complete(answer, NOW).len());

            let owner = ends(&cache, owner);
            let look = || {
                let read = cache.read(KEY, SCOPES[0], NOW, |_| ());
                assert_eq!(read, Read::Miss, "a hit from before");
                cache.lookup(KEY, SCOPES[0], NOW, || NOBODY)
            };
            assert!(matches!(look(), Lookup::Lead(_)), "a hit, or a fetch from before to follow");
            assert_eq!(completion.join().expect("the completion panicked"), 1);
            assert!(matches!(look(), Lookup::Lead(_)), "a hit from before");
            drop(owner);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn an_answer_stored_during_a_write_is_gone_when_the_write_is_acknowledged() {
    explore_an_answer_against(|cache, owner| {
        cache.wrote(KEY, NOW);
        Some(owner)
    });
}

#[test]
fn an_answer_stored_during_an_invalidation_is_gone_after_it() {
    explore_an_answer_against(|cache, owner| {
        cache.invalidate(KEY, NOW);
        Some(owner)
    });
}

#[test]
fn an_answer_stored_during_a_flush_is_gone_after_it() {
    explore_an_answer_against(|cache, owner| {
        cache.flush();
        Some(owner)
    });
}

#[test]
fn an_answer_stored_while_its_node_is_retired_is_gone_after_it() {
    explore_an_answer_against(|cache, owner| {
        cache.retire(NODE);
        Some(owner)
    });
}

#[test]
fn an_answer_stored_while_its_connection_ends_is_gone_after_it() {
    explore_an_answer_against(|_, owner| {
        drop(owner);
        None
    });
}

#[test]
fn an_invalidated_value_never_comes_back() {
    explore(
        || {
            let writer = actor(|world| {
                world.write_beside();
                world.write_beside();
            });
            World::run([reader(2), reader(2), writer]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn a_read_that_begins_after_an_acknowledged_write_sees_it() {
    explore(
        || {
            let writer = || {
                actor(|world| {
                    world.write();
                    world.read(SCOPES[0]);
                })
            };
            World::run([reader(3), writer(), writer()]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn a_read_that_begins_after_a_flush_sees_nothing_from_before_it() {
    explore(
        || {
            let swapper = actor(|world| {
                world.swap();
                world.read(SCOPES[0]);
                world.swap();
            });
            World::run([reader(3), reader(2), swapper]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn a_read_that_begins_after_a_node_was_retired_sees_nothing_from_before_it() {
    explore(
        || {
            let cluster = actor(|world| {
                world.migrate();
                world.read(SCOPES[0]);
                world.migrate();
            });
            World::run([reader(3), reader(2), cluster]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn invalidations_lost_with_their_connection_leave_nothing_old_behind() {
    explore(
        || {
            let network = actor(|world| {
                world.reconnect();
                world.read(SCOPES[0]);
            });
            let writer = actor(|world| {
                world.write_beside();
                world.write();
            });
            World::run([reader(3), network, writer]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn everything_at_once_keeps_every_promise() {
    explore(
        || {
            World::run([
                reader(3),
                actor(|world| (0..2).for_each(|_| world.read(SCOPES[1]))),
                actor(|world| {
                    world.write();
                    world.write_beside();
                }),
                actor(|world| {
                    world.swap();
                    world.renew();
                    world.migrate();
                }),
                actor(World::reconnect),
                actor(|world| {
                    world.abandon(SCOPES[0]);
                    world.cache.sweep(NOW);
                }),
            ]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn those_who_miss_together_are_answered_by_one_fetch() {
    explore(
        || {
            let world = World::run([reader(2), reader(2), reader(1)]);
            assert_eq!(world.fetched(), 1);
            assert_eq!(world.cached(SCOPES[0]), Some(1));
        },
        INTERLEAVINGS,
    );
}

#[test]
fn variants_stored_at_once_do_not_displace_each_other() {
    explore(
        || {
            let world = World::run(SCOPES.map(|scope| actor(move |world| world.read(scope))));
            assert_eq!(SCOPES.map(|scope| world.cached(scope)), [Some(1); 2]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn a_sweep_never_frees_what_was_just_fetched() {
    explore(
        || {
            let world = World::run([actor(|world| {
                world.read(SCOPES[0]);
            })]);
            world.cache.flush();
            assert_eq!(world.cached(SCOPES[0]), None);
            let (cache, sweeping) = (world.cache.clone(), world.cache.clone());
            let owner = cache.open_lease(NODE);
            owner.renew(NOW, NOW);
            let lease = owner.lease();
            let fetch = shuttle::thread::spawn(move || fetch_once(&cache, &lease));
            let sweep = shuttle::thread::spawn(move || sweeping.sweep(NOW));
            fetch.join().expect("the fetch panicked");
            sweep.join().expect("the sweep panicked");
            assert_eq!(world.cached(SCOPES[0]), Some(7));
        },
        INTERLEAVINGS,
    );
}

#[test]
fn no_heartbeat_undoes_a_flush() {
    explore(
        || {
            let world = World::run([reader(1)]);
            let cache = world.cache.clone();
            let heartbeats = shuttle::thread::spawn(move || (0..3).for_each(|_| world.renew()));
            cache.flush();
            for _ in 0..2 {
                let found = cache.lookup(KEY, SCOPES[0], NOW, || NOBODY);
                assert!(!matches!(found, Lookup::Hit(_)), "a flushed entry was served");
            }
            heartbeats.join().expect("a heartbeat panicked");
        },
        INTERLEAVINGS,
    );
}

#[test]
fn a_flush_kills_every_lease_opened_before_it() {
    explore(
        || {
            let cache = small_cache();
            let before = cache.open_lease(NODE);
            let opening = cache.clone();
            let others = shuttle::thread::spawn(move || {
                let another = opening.open_lease(NODE);
                drop(opening.open_lease(NODE));
                another
            });
            cache.flush();
            assert_eq!(before.renew(NOW, NOW), Renewal::Dead);
            drop(others.join().expect("opening panicked"));
        },
        INTERLEAVINGS,
    );
}

#[test]
fn a_retirement_kills_every_lease_of_its_group_opened_before_it_and_no_other() {
    explore(
        || {
            let cache = small_cache();
            let (before, elsewhere) = (cache.open_lease(NODE), cache.open_lease(NODE + 1));
            let opening = cache.clone();
            let others = shuttle::thread::spawn(move || {
                drop(opening.open_lease(NODE));
                elsewhere
            });
            cache.retire(NODE);
            assert_eq!(before.renew(NOW, NOW), Renewal::Dead);
            let elsewhere = others.join().expect("opening panicked");
            assert_eq!(elsewhere.renew(NOW, NOW), Renewal::Renewed);
        },
        INTERLEAVINGS,
    );
}

fn fetch_once(cache: &Arc<NearCache>, lease: &Lease) {
    if let Lookup::Lead(mut ticket) = cache.lookup(KEY, SCOPES[0], NOW, || NOBODY) {
        ticket.sent(lease, NOW);
        let _ = ticket.complete(Answer::Store { reply: b"+7\r\n", ttl: Ttl::Persistent }, NOW);
    }
}
