//! Each rule left out, and the promise that is broken then. The shortest execution is found, so that it can be read: a test that
//! fails for want of one says which rule was not missed.

use nearside_nearcache_model::{Bounds, Broken, EXPIRY, OWN_WRITES, Protocol, RESURRECTION, STALENESS, VOUCHED};
use stateright::{Checker, HasDiscoveries, Model};

/// Without `rule` the world has an execution that breaks `promise`.
fn is_needed(rule: Broken, promise: &'static str, bounds: Bounds) {
    let protocol = Protocol { bounds, broken: Some(rule) };
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyOf([promise].into())).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(execution) = checker.discovery(promise) else { panic!("{promise} holds in all {states} states") };
    println!("{rule:?} breaks {promise}, {states} states:\n  {:?}", execution.into_actions());
}

/// Without `rule` the world has no execution that breaks `promise`: another rule keeps it.
fn is_not_needed(rule: Broken, promise: &'static str, bounds: Bounds) {
    let protocol = Protocol { bounds, broken: Some(rule) };
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyOf([promise].into())).spawn_bfs().join();
    if let Some(execution) = checker.discovery(promise) {
        panic!("{promise} is broken by {:#?}", execution.into_actions());
    }
}

#[test]
fn an_invalidation_that_drops_nothing() {
    is_needed(Broken::InvalidationDropsNothing, STALENESS, Bounds::ONE_PROXY);
}

/// One between GET and PTTL is what makes the answer old; one before is what the letter of the promise is about.
#[test]
fn an_invalidation_that_poisons_nothing() {
    is_needed(Broken::InvalidationPoisonsNothing, RESURRECTION, Bounds::ONE_PROXY);
    is_needed(Broken::InvalidationPoisonsNothing, STALENESS, Bounds::EXPIRY);
}

#[test]
fn a_flush_by_the_server_that_ends_no_lease() {
    is_needed(Broken::FlushEndsNoLease, STALENESS, Bounds::ONE_PROXY);
}

#[test]
fn a_flush_through_the_proxy_that_ends_no_lease() {
    is_needed(Broken::OwnFlushEndsNoLease, OWN_WRITES, Bounds::TWO_FETCHES);
}

#[test]
fn a_write_that_drops_nothing() {
    is_needed(Broken::WriteDropsNothing, OWN_WRITES, Bounds::ONE_PROXY);
}

#[test]
fn a_write_that_poisons_nothing() {
    is_needed(Broken::WritePoisonsNothing, OWN_WRITES, Bounds::ONE_PROXY);
    is_needed(Broken::WritePoisonsNothing, OWN_WRITES, Bounds::TWO_PROXIES);
}

#[test]
fn a_write_that_is_acknowledged_before_the_cache_hears_of_it() {
    is_needed(Broken::WriteIsToldFirst, OWN_WRITES, Bounds::ONE_PROXY);
    is_needed(Broken::WriteIsToldFirst, OWN_WRITES, Bounds::TWO_PROXIES);
}

#[test]
fn a_hit_under_a_lapsed_lease() {
    is_needed(Broken::LapsedLeaseServes, VOUCHED, Bounds::ONE_PROXY);
    is_needed(Broken::LapsedLeaseServes, STALENESS, Bounds::ONE_PROXY);
}

#[test]
fn a_lease_that_counts_from_the_answer() {
    is_needed(Broken::LeaseCountsFromAnswer, VOUCHED, Bounds::ONE_PROXY);
    is_needed(Broken::LeaseCountsFromAnswer, STALENESS, Bounds::ONE_PROXY);
}

#[test]
fn a_heartbeat_that_asks_neither_for_the_role_nor_for_the_key() {
    is_needed(Broken::AnyAnswerRenews, STALENESS, Bounds::FAILOVER);
    is_needed(Broken::AnyAnswerRenews, VOUCHED, Bounds::FAILOVER);
}

#[test]
fn entries_that_survive_their_connection() {
    is_needed(Broken::EntriesSurviveConnection, VOUCHED, Bounds::ONE_PROXY);
    is_needed(Broken::EntriesSurviveConnection, STALENESS, Bounds::ONE_PROXY);
}

#[test]
fn fetches_sent_before_tracking_is_on() {
    is_needed(Broken::FetchesBeforeTracking, STALENESS, Bounds::ONE_PROXY);
}

#[test]
fn a_fetch_that_is_stored_though_its_lease_has_died() {
    is_needed(Broken::DeadLeaseStores, RESURRECTION, Bounds::TWO_FETCHES);
    is_needed(Broken::DeadLeaseStores, STALENESS, Bounds { has_flushes: true, ..Bounds::EXPIRY });
}

#[test]
fn a_follower_that_joins_late() {
    is_needed(Broken::FollowersJoinLate, STALENESS, Bounds::ONE_PROXY);
}

#[test]
fn a_follower_of_a_fetch_whose_lease_has_died() {
    is_needed(Broken::DeadLeaseTakesFollowers, OWN_WRITES, Bounds::TWO_FETCHES);
}

#[test]
fn a_heartbeat_that_renews_what_a_published_topology_is_about_to_end() {
    is_needed(Broken::HeartbeatIgnoresTopology, STALENESS, Bounds::FAILOVER);
}

#[test]
fn a_lane_that_goes_by_the_topology_of_sessions() {
    is_needed(Broken::LaneTrustsSessions, OWN_WRITES, Bounds::FAILOVER);
    is_needed(Broken::LaneTrustsSessions, STALENESS, Bounds::SPLIT);
}

#[test]
fn a_value_without_a_deadline() {
    is_needed(Broken::NoDeadline, EXPIRY, Bounds::EXPIRY);
}

#[test]
fn a_time_to_live_that_counts_from_the_answer() {
    is_needed(Broken::LifeCountsFromAnswer, EXPIRY, Bounds::EXPIRY);
}

#[test]
fn a_follower_of_a_fetch_whose_time_to_live_may_be_another_values() {
    is_needed(Broken::PoisonedTellsFollowers, EXPIRY, Bounds::EXPIRY);
}

#[test]
fn a_follower_that_is_told_of_what_had_expired() {
    is_needed(Broken::LateAreAnswered, EXPIRY, Bounds::EXPIRY);
}

/// The heartbeat bounds it. The rule is about other slots than the one that the heartbeat's key is in.
#[test]
fn moved_for_the_one_slot_there_is() {
    is_not_needed(Broken::MovedEndsNoLease, STALENESS, Bounds { max_staleness: 1, ..Bounds::FAILOVER });
}

/// An uncached read goes to the same demoted server, until the lease is ended by who publishes another. The rule keeps promise 6.
#[test]
fn a_heartbeat_that_does_not_ask_for_the_role_outside_a_cluster() {
    let world = Bounds { max_staleness: 1, ..Bounds::MONITORED };
    is_not_needed(Broken::AnyAnswerRenews, STALENESS, world.clone());
    is_needed(Broken::AnyAnswerRenews, VOUCHED, world);
}

/// A server that says so has noticed, and has sent an invalidation before: the fetch is poisoned.
#[test]
fn an_expiring_value_that_is_stored() {
    is_not_needed(Broken::ExpiringIsStored, EXPIRY, Bounds { versions: 2, ..Bounds::EXPIRY });
    is_not_needed(Broken::ExpiringIsStored, STALENESS, Bounds { versions: 2, ..Bounds::EXPIRY });
}

/// It would not be answered with what was fetched. The rule spares it the wait.
#[test]
fn a_follower_of_a_poisoned_fetch() {
    is_not_needed(Broken::PoisonedTakesFollowers, OWN_WRITES, Bounds { max_staleness: 1, ..Bounds::ONE_PROXY });
}

/// No heartbeat renews it any more. The rules are about other slots than the one that the heartbeat's key is in.
#[test]
fn the_end_of_leases_for_the_one_slot_there_is() {
    let world = Bounds { max_staleness: 1, ..Bounds::FAILOVER };
    is_not_needed(Broken::PublicationEndsNoLease, STALENESS, world.clone());
    is_not_needed(Broken::TopologyIsSeenFirst, STALENESS, world);
}
