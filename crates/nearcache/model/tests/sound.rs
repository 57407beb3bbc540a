//! The protocol as it is: every promise holds in every state that can be reached, in executions of any length.

use nearside_nearcache_model::{Bounds, Protocol};
use stateright::{Checker, HasDiscoveries, Model};

/// Explores the whole world. Fails with an execution if a promise is broken, or if the world has not what makes it interesting.
fn holds_in(bounds: Bounds) {
    let protocol = Protocol { bounds, broken: None };
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    for property in checker.model().properties() {
        match (checker.discovery(property.name), property.expectation.discovery_is_failure()) {
            (Some(path), true) => panic!("{} is broken by {:#?}", property.name, path.into_actions()),
            (None, false) => panic!("never reached: {}", property.name),
            _ => {}
        }
    }
    println!("holds in all {} states, {} steps between them", checker.unique_state_count(), checker.state_count());
}

#[test]
fn with_one_proxy_whose_connection_is_lost() {
    holds_in(Bounds::ONE_PROXY);
}

#[test]
fn with_two_fetches_at_once() {
    holds_in(Bounds::TWO_FETCHES);
}

#[test]
fn with_a_long_lease_and_late_heartbeats() {
    holds_in(Bounds::LONG_LEASE);
}

#[test]
fn with_values_that_expire() {
    holds_in(Bounds::EXPIRY);
}

#[test]
fn with_values_that_outlive_the_lease() {
    holds_in(Bounds::LONG_LIFE);
}

#[test]
fn with_two_proxies() {
    holds_in(Bounds::TWO_PROXIES);
}

#[test]
fn with_a_failover() {
    holds_in(Bounds::FAILOVER);
}

#[test]
fn with_a_primary_that_goes_on_when_it_is_deposed() {
    holds_in(Bounds::SPLIT);
}

#[test]
fn with_a_failover_outside_a_cluster() {
    holds_in(Bounds::MONITORED);
}
