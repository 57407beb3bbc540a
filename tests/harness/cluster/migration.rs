//! Slots that move from node to node while clients go on, as `redis-cli --cluster reshard` moves them.

use std::sync::PoisonError;
use std::time::Instant;

use super::RedisCluster;
use crate::client::words;
use crate::reply::Reply;

/// Slots on their way: keys may be at either end. A node that has not got a key answers `ASK`, or `TRYAGAIN` when it
/// has only some of those named.
#[derive(Debug)]
#[must_use = "slots stay half migrated until the migration is finished"]
pub struct Migration {
    slots: Vec<u16>,
    /// Who has them until it is finished.
    pub from: usize,
    /// Who will.
    pub to: usize,
}

/// Keys moved by one MIGRATE, which blocks both nodes.
const BATCH: usize = 100;
/// Slots on their way at once, when many move.
const SLOTS_AT_ONCE: usize = 1024;
/// How long a node waits for the other.
const MIGRATE_TIMEOUT_MS: &str = "5000";

impl RedisCluster {
    /// Moves a slot with its keys.
    #[track_caller]
    pub fn move_slot(&self, slot: u16, to: usize) {
        self.move_slots([slot], to);
    }

    /// Moves slots with their keys, some at a time. Those that the node has already stay.
    #[track_caller]
    pub fn move_slots(&self, slots: impl IntoIterator<Item = u16>, to: usize) {
        let slots = slots.into_iter().collect::<std::collections::BTreeSet<_>>();
        let primaries = self.up().filter(|&from| from != to && self.is_primary(from)).collect::<Vec<_>>();
        for from in primaries {
            let owned = self.slots(from).into_iter().filter(|slot| slots.contains(slot)).collect::<Vec<_>>();
            for some in owned.chunks(SLOTS_AT_ONCE) {
                let migration = self.begin_migration_of(some.to_vec(), from, to);
                self.migrate_keys(&migration, usize::MAX);
                self.finish_migration(migration);
            }
        }
    }

    /// Declares the slot to be on its way from its owner. No key has moved yet; new ones come to be at the target.
    #[track_caller]
    pub fn begin_migration(&self, slot: u16, to: usize) -> Migration {
        self.begin_migration_of(vec![slot], self.owner(slot), to)
    }

    /// Moves up to so many keys; tells how many.
    #[track_caller]
    pub fn migrate_keys(&self, migration: &Migration, most: usize) -> usize {
        let mut moved = 0;
        let counts = self.tell_of_each(migration.from, &migration.slots, |slot| format!("COUNTKEYSINSLOT {slot}"));
        for (&slot, count) in migration.slots.iter().zip(counts) {
            // Asked again each time: a key may have been deleted meanwhile. None can have been added.
            while count != ":0\r\n" && moved < most {
                let batch = BATCH.min(most - moved);
                let mut source = self.node(migration.from).client();
                let keys = source.call(&format!("CLUSTER GETKEYSINSLOT {slot} {batch}")).elements();
                if keys.is_empty() {
                    break;
                }
                moved += keys.len();
                let reply = source.command(&self.migrate(migration.to, &keys));
                assert!(reply == "+OK\r\n" || reply == "+NOKEY\r\n", "keys of slot {slot} move: {reply:?}");
            }
        }
        moved
    }

    /// Moves the keys of the slot that have not moved yet and gives it to the target for good.
    ///
    /// The target counts up its config epoch, unless it takes its own for the highest. So each has to know of the last
    /// move before the next: else two nodes can come to think, for good, that the other one has the slot.
    #[track_caller]
    pub fn finish_migration(&self, migration: Migration) {
        self.migrate_keys(&migration, usize::MAX);
        let _one_at_a_time = self.finishing.lock().unwrap_or_else(PoisonError::into_inner);
        let target = self.id(migration.to);
        // The target first: did the source go first, no node would have the slot for a moment. The others would learn
        // of it from the target by and by.
        let others = self.up().filter(|&other| other != migration.from && other != migration.to);
        let others = others.filter(|&other| self.is_primary(other));
        for number in [migration.to, migration.from].into_iter().chain(others) {
            for reply in self.tell_of_each(number, &migration.slots, |slot| format!("SETSLOT {slot} NODE {target}")) {
                assert_eq!(reply, "+OK\r\n", "node {number} takes note of who has {:?}", migration.slots);
            }
        }
        self.wait_until_epoch_is_known(migration.to);
    }

    /// Gives slots to a primary as `redis-cli --cluster fix` may: no key moves. Their owners learn of it from the other
    /// nodes, and drop the keys and all that was written to them meanwhile: tells by when they had.
    #[track_caller]
    pub fn take_over(&self, slots: &[u16], to: usize) -> Instant {
        let _one_at_a_time = self.finishing.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.id(to);
        let owners = self.up().filter(|&from| from != to && self.is_primary(from)).collect::<Vec<_>>();
        for &from in &owners {
            let owned = self.slots(from).into_iter().filter(|slot| slots.contains(slot)).collect::<Vec<_>>();
            let source = self.id(from);
            let importing = self.tell_of_each(to, &owned, |slot| format!("SETSLOT {slot} IMPORTING {source}"));
            let taken = self.tell_of_each(to, &owned, |slot| format!("SETSLOT {slot} NODE {own}"));
            for reply in importing.iter().chain(&taken) {
                assert_eq!(*reply, "+OK\r\n", "node {to} takes over {owned:?}");
            }
        }
        self.wait_until_all_know(&owners, to, slots);
        let dropped = Instant::now();
        self.wait_until_all_know(&self.up().collect::<Vec<_>>(), to, slots);
        self.wait_until_epoch_is_known(to);
        dropped
    }

    #[track_caller]
    fn wait_until_all_know(&self, witnesses: &[usize], owner: usize, slots: &[u16]) {
        let id = self.id(owner);
        self.wait(&format!("all of {witnesses:?} know that node {owner} has slots {slots:?}"), || {
            let knows = |witness: usize| {
                let view = self.view(witness);
                slots.iter().all(|&slot| view.owner(slot) == Some(id))
            };
            let ignorant = witnesses.iter().find(|&&witness| !knows(witness));
            ignorant.map_or(Ok(()), |witness| Err(format!("node {witness} does not")))
        });
    }

    #[track_caller]
    fn wait_until_epoch_is_known(&self, of: usize) {
        self.wait(&format!("all know the config epoch of node {of}"), || {
            let epoch = |witness| self.view(witness).member(self.id(of)).map(|member| member.config_epoch);
            let epochs = self.up().map(epoch).collect::<Vec<_>>();
            epochs.windows(2).all(|pair| pair[0] == pair[1]).then_some(()).ok_or_else(|| format!("{epochs:?}"))
        });
    }

    #[track_caller]
    fn begin_migration_of(&self, slots: Vec<u16>, from: usize, to: usize) -> Migration {
        let (source, target) = (self.id(from), self.id(to));
        let begun = [
            self.tell_of_each(to, &slots, |slot| format!("SETSLOT {slot} IMPORTING {source}")),
            self.tell_of_each(from, &slots, |slot| format!("SETSLOT {slot} MIGRATING {target}")),
        ];
        for reply in begun.iter().flatten() {
            assert_eq!(*reply, "+OK\r\n", "slots {slots:?} go from node {from} to node {to}");
        }
        Migration { slots, from, to }
    }

    /// One `CLUSTER …` for each slot, all in one pipeline.
    #[track_caller]
    fn tell_of_each(&self, number: usize, slots: &[u16], line: impl Fn(u16) -> String) -> Vec<Reply> {
        let bytes = slots.iter().flat_map(|&slot| words(&format!("CLUSTER {}", line(slot)))).collect::<Vec<_>>();
        self.node(number).client().exchange(&bytes, slots.len())
    }

    fn migrate(&self, to: usize, keys: &[Reply]) -> Vec<Vec<u8>> {
        let port = self.node(to).port().to_string();
        let fixed = ["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_TIMEOUT_MS, "KEYS"];
        let names = keys.iter().map(|key| key.bulk().expect("a key is a string").to_vec());
        fixed.iter().map(|word| word.as_bytes().to_vec()).chain(names).collect()
    }
}
