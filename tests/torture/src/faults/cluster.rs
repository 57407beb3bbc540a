//! What happens to a cluster.

use nearside_tests::{Failover, RedisCluster, Relay, key_slot};

use super::{
    BETWEEN, BRIEFLY, FILLERS, Fault, SPELL, delay_for_a_while, give_memory, in_silence, kill_loaders,
    overflow_tracking, shrink_memory, widen_tracking,
};
use crate::client::Shared;
use crate::history::{History, Key, Loss};

/// A slot and its neighbours move together.
const SLOTS_EACH: u16 = 8;

pub(super) fn happen(
    fault: Fault,
    cluster: &mut RedisCluster,
    shared: &Shared,
    random: &mut fastrand::Rng,
    history: &mut History,
) {
    let nodes = cluster.addresses().len();
    let primaries: Vec<usize> = (0..nodes).filter(|&node| cluster.is_primary(node)).collect();
    let primary = primaries[random.usize(..primaries.len())];
    let replica = cluster.replicas(primary)[0];
    match fault {
        Fault::Kill => {
            cluster.kill(primary);
            cluster.wait_until_promoted(replica);
            std::thread::sleep(BETWEEN);
            cluster.restart(primary);
        }
        Fault::StopForLong => {
            cluster.stop(primary);
            cluster.wait_until_promoted(replica);
            std::thread::sleep(BETWEEN);
            cluster.resume(primary);
        }
        Fault::StopBriefly => {
            let keys = keys_of(cluster, shared, primary);
            cluster.stop(primary);
            in_silence(shared, keys, history, || std::thread::sleep(BRIEFLY));
            cluster.resume(primary);
        }
        Fault::Failover => {
            cluster.promote(replica, Failover::Plain);
            cluster.wait_until_ok(); // else its old primary does not follow it yet
            cluster.promote(primary, Failover::Plain);
        }
        Fault::ForcedFailover => cluster.promote(replica, Failover::Force),
        Fault::Takeover => cluster.promote(replica, Failover::Takeover),
        Fault::MovedSlots => move_slots(cluster, shared, &primaries),
        Fault::TakenSlots => take_slots(cluster, shared, &primaries, history),
        Fault::Isolation => {
            cluster.isolate(primary);
            // By those who see both; the isolated one does not agree.
            nearside_tests::eventually("its replica has taken over", super::PROMOTION_LIMIT, || {
                cluster.is_primary(replica).then_some(())
            });
            std::thread::sleep(SPELL);
            cluster.reunite();
        }
        Fault::HeldBack => {
            let keys = keys_of(cluster, shared, primary);
            cluster.cut_off_clients(primary);
            in_silence(shared, keys, history, || std::thread::sleep(SPELL));
            cluster.gate(primary).resume();
        }
        Fault::KilledLoaders => {
            for _ in 0..8 {
                primaries.iter().for_each(|&node| kill_loaders(&mut cluster.node(node).client()));
                std::thread::sleep(BETWEEN);
            }
        }
        Fault::CutConnections => {
            for _ in 0..8 {
                cluster.gate(primaries[random.usize(..primaries.len())]).cut();
                std::thread::sleep(BETWEEN);
            }
        }
        Fault::Delay => {
            delay_for_a_while(primaries.iter().map(|&node| cluster.gate(node)), Relay::delay_tracked);
        }
        // The control plane may ask a replica.
        Fault::SlowLink => delay_for_a_while((0..nodes).map(|node| cluster.gate(node)), Relay::delay_proxies),
        Fault::TrackingOverflow => {
            primaries.iter().for_each(|&node| overflow_tracking(&mut cluster.node(node).client()));
            std::thread::sleep(SPELL);
            primaries.iter().for_each(|&node| widen_tracking(&mut cluster.node(node).client()));
        }
        Fault::Eviction => evict(cluster, &primaries),
        Fault::Nothing | Fault::StoppedProxy | Fault::FlushAll => unreachable!("not done to the cluster"),
    }
}

fn keys_of(cluster: &RedisCluster, shared: &Shared, node: usize) -> Vec<Key> {
    let slots = cluster.slots(node);
    shared.keys.all(|named| slots.contains(&key_slot(named.name.as_bytes())))
}

fn move_slots(cluster: &RedisCluster, shared: &Shared, primaries: &[usize]) {
    for &to in primaries {
        for &slot in &slots_of(shared) {
            cluster.move_slots(slot..slot + SLOTS_EACH, to);
        }
    }
}

/// Between two the caches fill, and what was true of the owner before has time to be wrong.
fn take_slots(cluster: &RedisCluster, shared: &Shared, primaries: &[usize], history: &mut History) {
    for &to in primaries {
        let own = cluster.slots(to);
        let slots: Vec<u16> = slots_of(shared).into_iter().filter(|slot| !own.contains(slot)).collect();
        let keys = shared.keys.all(|named| slots.contains(&key_slot(named.name.as_bytes())));
        let from = shared.clock.now();
        let until = shared.clock.at(cluster.take_over(&slots, to));
        history.losses.push(Loss { keys, from, until, is_of_all: true });
        std::thread::sleep(SPELL);
    }
}

/// The slots of all keys.
fn slots_of(shared: &Shared) -> Vec<u16> {
    let all = shared.keys.all(|_| true);
    let mut slots: Vec<u16> = all.iter().map(|&key| key_slot(shared.keys.get(key).name.as_bytes())).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

fn evict(cluster: &RedisCluster, primaries: &[usize]) {
    primaries.iter().for_each(|&node| shrink_memory(&mut cluster.node(node).client()));
    let mut client = cluster.client();
    for filler in 0..FILLERS {
        // Whether it is kept is not the point.
        let _ = client.try_command(&["SET", &format!("filler:{filler}"), &"#".repeat(1024)]);
    }
    primaries.iter().for_each(|&node| give_memory(&mut cluster.node(node).client()));
}
