//! The same races where time passes: leases lapse and are revived, values expire, answers and invalidations come late.

use nearside_nearcache_interleavings::{Actor, SCOPES, World, explore};

const INTERLEAVINGS: usize = 20_000;

fn actor(does: impl FnOnce(&World) + Send + 'static) -> Actor {
    Box::new(does)
}

fn reader(reads: usize) -> Actor {
    actor(move |world| (0..reads).for_each(|_| world.read(SCOPES[0])))
}

fn time(steps: &'static [u64]) -> Actor {
    actor(|world| steps.iter().for_each(|step| world.wait(*step)))
}

fn beats(count: usize) -> Actor {
    actor(move |world| (0..count).for_each(|_| world.beat()))
}

#[test]
fn no_read_is_staler_than_allowed_however_late_answers_and_invalidations_come() {
    explore(
        || {
            let writer = actor(|world| {
                world.write_beside();
                world.write_beside();
            });
            World::run([reader(3), reader(2), writer, time(&[600, 600, 600]), beats(2)]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn nothing_outlives_its_time() {
    explore(
        || {
            let writer = actor(|world| {
                world.write_mortal_beside(300);
                world.write_mortal_beside(700);
            });
            World::run([reader(3), reader(2), writer, time(&[200, 200, 400]), beats(1)]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn everything_at_once_keeps_every_promise_while_time_passes() {
    explore(
        || {
            World::run([
                reader(4),
                actor(|world| (0..2).for_each(|_| world.read(SCOPES[1]))),
                actor(|world| {
                    world.write();
                    world.write_mortal_beside(500);
                    world.write_beside();
                }),
                actor(|world| {
                    world.swap();
                    world.migrate();
                }),
                actor(World::reconnect),
                actor(|world| {
                    world.abandon(SCOPES[0]);
                    world.cache.sweep(world.now());
                }),
                time(&[400, 400, 400, 400]),
                beats(3),
            ]);
        },
        INTERLEAVINGS,
    );
}

#[test]
fn what_is_thrown_away_for_lack_of_room_leaves_nothing_old_behind() {
    explore(
        || {
            let writer = actor(|world| {
                world.write();
                world.write_beside();
            });
            let both = || actor(|world| SCOPES.iter().for_each(|scope| world.read(*scope)));
            let crowd = || actor(|world| world.crowd_out(CROWD / 2));
            World::run([both(), both(), reader(2), writer, crowd(), crowd()]);
        },
        INTERLEAVINGS / 20,
    );
}

/// More than there is room for.
const CROWD: usize = 100;

#[test]
fn a_crowd_of_keys_throws_others_away() {
    shuttle::check_random(
        || {
            let world = World::run([reader(2)]);
            assert_eq!(world.cached(SCOPES[0]), Some(1));
            world.crowd_out(CROWD);
            assert!(world.cache.entries() < CROWD, "{} entries", world.cache.entries());
        },
        10,
    );
}
