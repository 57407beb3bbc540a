//! Who serves what, decided between the views of nodes that may know more or less.
//!
//! A slot goes to another node only on better evidence than the last: a claim of a higher config epoch, as the nodes
//! decide among themselves, or the word of the owner itself, given after it was known as such. So a node that was cut off
//! and answers again, or a view that was long under way, never takes a slot back to where it was; nor does a node that
//! belongs to another cluster by now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::Time;

use super::slot::SLOTS;
use super::view::{Member, View};
use super::{Node, Nodes, Topology};
use crate::config::UpstreamAddress;

/// All that is known of a cluster.
#[derive(Debug)]
pub(crate) struct Ownership {
    claims: Vec<Option<Claim>>,
    members: HashMap<String, Known>,
    next_id: u32,
    /// A member of which nothing was heard for this long counts as gone: it was forgotten, or the cluster was made anew.
    gone_after: Duration,
}

/// Why a slot is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    owner: u32,
    epoch: u64,
    /// When the answer had arrived that made it the owner.
    since: Time,
}

#[derive(Debug)]
struct Known {
    /// Stands for its name in claims.
    id: u32,
    address: Option<UpstreamAddress>,
    /// As what a redirection may name it besides, by the last view of it.
    aliases: Vec<UpstreamAddress>,
    /// When it last gave its view, or another member spoke of it.
    heard: Time,
    /// When it last gave its view, or was first spoken of.
    spoke: Time,
}

/// What one view says, told apart by who says it.
struct Evidence {
    /// The node whose view it is.
    myself: u32,
    /// When it was asked: what it says is no older.
    asked_at: Time,
    /// Owners of which nothing is heard any more.
    gone: HashSet<u32>,
}

impl Ownership {
    /// Nothing is known yet.
    pub(crate) fn new(gone_after: Duration) -> Self {
        Ownership { claims: vec![None; SLOTS], members: HashMap::new(), next_id: 0, gone_after }
    }

    /// Takes in what a node said, which was asked at `asked_at`. True if something has changed that a topology shows.
    pub(crate) fn take_in(&mut self, view: &View, asked_at: Time, now: Time) -> bool {
        if !self.is_of_this_cluster(view, now) {
            return false;
        }
        let moved = self.meet(view, now);
        let evidence = self.evidence(view, asked_at, now);
        let mut said: Vec<Option<Claim>> = vec![None; SLOTS];
        for member in &view.members {
            let claim = Claim { owner: self.members[&member.name].id, epoch: member.epoch, since: now };
            member.slots.iter().cloned().flatten().for_each(|slot| said[usize::from(slot)] = Some(claim));
        }
        let mut changed = moved;
        for (claim, said) in self.claims.iter_mut().zip(said) {
            let decided = evidence.decide(*claim, said);
            changed |= decided.map(|claim| claim.owner) != claim.map(|claim| claim.owner);
            *claim = decided;
        }
        self.forget(now);
        changed
    }

    /// Whether the view speaks of an owner, or there is none (any more) of which anything is heard. Another cluster may have
    /// taken over an address.
    fn is_of_this_cluster(&self, view: &View, now: Time) -> bool {
        let owners = self.owners();
        let is_owner = |member: &Member| self.members.get(&member.name).is_some_and(|known| owners.contains(&known.id));
        let mut alive = self.members.values().filter(|known| owners.contains(&known.id) && !self.is_gone(known, now));
        view.members.iter().any(is_owner) || alive.next().is_none()
    }

    /// Whether it serves a slot.
    pub(crate) fn is_owner(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|known| self.owners().contains(&known.id))
    }

    fn owners(&self) -> HashSet<u32> {
        let mut owners: Vec<u32> = self.claims.iter().flatten().map(|claim| claim.owner).collect();
        owners.dedup();
        owners.into_iter().collect()
    }

    fn is_gone(&self, known: &Known, now: Time) -> bool {
        now >= known.heard + self.gone_after
    }

    /// Notes who there is, and where. True if an owner has another address than before.
    fn meet(&mut self, view: &View, now: Time) -> bool {
        let mut moved = Vec::new();
        for member in &view.members {
            let next_id = &mut self.next_id;
            let known = self.members.entry(member.name.clone()).or_insert_with(|| {
                *next_id += 1;
                Known { id: *next_id, address: None, aliases: Vec::new(), heard: now, spoke: now }
            });
            known.heard = now;
            known.aliases.clone_from(&member.aliases);
            if member.name == view.myself {
                known.spoke = now;
            }
            // Where a node is it knows best itself, while it can be asked: others may know it by another name.
            let is_better = known.spoke == now || now >= known.spoke + self.gone_after;
            if is_better && member.address.is_some() && member.address != known.address {
                known.address.clone_from(&member.address);
                moved.push(known.id);
            }
        }
        !moved.is_empty() && self.claims.iter().flatten().any(|claim| moved.contains(&claim.owner))
    }

    fn evidence(&self, view: &View, asked_at: Time, now: Time) -> Evidence {
        let gone = self.members.values().filter(|known| self.is_gone(known, now)).map(|known| known.id);
        Evidence { myself: self.members[&view.myself].id, asked_at, gone: gone.collect() }
    }

    /// Forgets those that serve nothing and of which nothing is heard any more.
    fn forget(&mut self, now: Time) {
        let owners = self.owners();
        let gone_after = self.gone_after;
        self.members.retain(|_, known| owners.contains(&known.id) || now < known.heard + gone_after);
    }

    /// The topology as of now.
    pub(crate) fn topology(&self, version: u64, nodes: &Nodes) -> Topology {
        let by_id: HashMap<u32, &Known> = self.members.values().map(|known| (known.id, known)).collect();
        let mut positions: HashMap<u32, Option<usize>> = HashMap::new();
        let mut served: Vec<Arc<Node>> = Vec::new();
        let mut position = |owner: u32| {
            *positions.entry(owner).or_insert_with(|| {
                let node = nodes.at(by_id.get(&owner)?.address.as_ref()?)?;
                // Two owners may be at one address: one that is gone, and one that was started in its place.
                let known = served.iter().position(|other| other.id() == node.id());
                Some(known.unwrap_or_else(|| {
                    served.push(node);
                    served.len() - 1
                }))
            })
        };
        let owners: Vec<_> = self.claims.iter().map(|claim| position(claim.as_ref()?.owner)).collect();
        Topology::cluster(version, served, owners.into_iter())
    }

    /// What redirections may name, and where that is.
    pub(crate) fn names(&self) -> HashMap<UpstreamAddress, UpstreamAddress> {
        let mut members: Vec<&Known> = self.members.values().collect();
        // Of two with one name it is that of who has spoken last: the other one may be gone.
        members.sort_by_key(|known| known.spoke);
        let located = || members.iter().filter_map(|known| Some((known, known.address.as_ref()?)));
        let aliases = located().flat_map(|(known, address)| known.aliases.iter().map(move |alias| (alias, address)));
        // An address counts for more than what another node is called besides.
        let all = aliases.chain(located().map(|(_, address)| (address, address)));
        all.map(|(name, address)| (name.clone(), address.clone())).collect()
    }

    /// Everybody's address, replicas included: where to ask when no primary answers.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &UpstreamAddress> {
        self.members.values().filter_map(|known| known.address.as_ref())
    }
}

impl Evidence {
    /// Who serves a slot, that `before` was decided about, now that this view `said` what it said.
    fn decide(&self, before: Option<Claim>, said: Option<Claim>) -> Option<Claim> {
        let Some(old) = before else { return said };
        let is_owners_word = old.owner == self.myself && self.asked_at >= old.since;
        let gives_up = is_owners_word || self.gone.contains(&old.owner);
        match said {
            // Its own epoch a node knows best, also when it has become lower: its configuration may have been restored.
            Some(new) if new.owner == old.owner && is_owners_word => Some(Claim { epoch: new.epoch, ..old }),
            Some(new) if new.owner == old.owner => Some(Claim { epoch: old.epoch.max(new.epoch), ..old }),
            Some(new) if new.epoch > old.epoch || gives_up => Some(new),
            None if gives_up => None,
            _ => before,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(3);
    const SPLIT: u16 = 8192;

    /// A member named for its port.
    fn member(port: u16, epoch: u64, slots: impl Into<Option<std::ops::RangeInclusive<u16>>>) -> Member {
        let address = Some(UpstreamAddress::Tcp { host: "h".into(), port });
        Member {
            name: port.to_string(),
            address,
            aliases: Vec::new(),
            epoch,
            slots: slots.into().into_iter().collect(),
        }
    }

    /// A cluster's knowledge, and the time: in milliseconds.
    struct World(Ownership, u64);

    impl World {
        /// After a second, what the node says that was asked just before.
        fn hears(&mut self, myself: u16, members: Vec<Member>) -> bool {
            self.1 += 1000;
            self.hears_late(myself, members, 1)
        }

        /// What it says now, asked this many milliseconds ago.
        fn hears_late(&mut self, myself: u16, members: Vec<Member>, asked_ago: u64) -> bool {
            let time = |millis: u64| Time(millis * 1_000_000);
            let view = View { myself: myself.to_string(), members };
            self.0.take_in(&view, time(self.1 - asked_ago), time(self.1))
        }

        /// The ports of the nodes that serve the first and the last slot.
        fn ends(&self) -> (Option<u16>, Option<u16>) {
            let topology = self.0.topology(1, &Nodes::new(1));
            let port = |slot| match topology.nodes()[topology.position(super::super::Slot::new(slot)?)?].address() {
                UpstreamAddress::Tcp { port, .. } => Some(*port),
                UpstreamAddress::Unix(_) => None,
            };
            (port(0), port(16383))
        }
    }

    fn halves() -> Vec<Member> {
        vec![member(1, 1, 0..=SPLIT - 1), member(2, 2, SPLIT..=16383)]
    }

    /// Node 3 has taken over what was node 1's.
    fn promoted() -> Vec<Member> {
        vec![member(3, 3, 0..=SPLIT - 1), member(1, 1, None), member(2, 2, SPLIT..=16383)]
    }

    fn known() -> World {
        let mut world = World(Ownership::new(GONE_AFTER), 1);
        assert!(world.hears(1, halves()));
        assert_eq!(world.ends(), (Some(1), Some(2)));
        world
    }

    #[test]
    fn the_same_view_again_changes_nothing() {
        let mut world = known();
        assert!(!world.hears(1, halves()));
        assert!(!world.hears(2, halves()));
    }

    #[test]
    fn a_newer_claim_wins_whoever_tells_of_it() {
        let mut world = known();
        assert!(world.hears(2, promoted()));
        assert_eq!(world.ends(), (Some(3), Some(2)));
    }

    #[test]
    fn an_older_claim_never_takes_a_slot_back() {
        let mut world = known();
        world.hears(3, promoted());
        // The old primary was cut off, and still believes what it did; it may or may not know the new one.
        let mut before = halves();
        assert!(!world.hears(1, before.clone()));
        before.push(member(3, 1, None));
        assert!(!world.hears(1, before));
        assert_eq!(world.ends(), (Some(3), Some(2)));
    }

    #[test]
    fn what_the_new_owner_said_before_it_became_one_takes_nothing_back() {
        let mut world = known();
        world.hears(2, promoted());
        let before = vec![member(3, 1, None), member(1, 1, 0..=SPLIT - 1), member(2, 2, SPLIT..=16383)];
        assert!(!world.hears_late(3, before.clone(), 500));
        assert_eq!(world.ends(), (Some(3), Some(2)));
        assert!(world.hears(3, before), "but it may give them up later");
    }

    #[test]
    fn the_owner_itself_may_give_a_slot_up() {
        let mut world = known();
        let given = vec![member(1, 1, None), member(2, 1, 0..=16383)];
        assert!(!world.hears(2, given.clone()), "who takes it must claim it with a newer epoch");
        assert!(world.hears(1, given));
        assert_eq!(world.ends(), (Some(2), Some(2)));
        assert!(world.hears(2, vec![member(2, 2, SPLIT..=16383)]));
        assert_eq!(world.ends(), (None, Some(2)));
    }

    #[test]
    fn another_cluster_at_an_address_of_this_one_is_not_believed() {
        let mut world = known();
        for _ in 0..10 {
            assert!(!world.hears(7, vec![member(7, 100, 0..=16383)]));
            assert!(!world.hears(1, halves()));
        }
        assert_eq!(world.ends(), (Some(1), Some(2)));
    }

    #[test]
    fn a_node_that_was_reset_takes_nothing_from_those_that_are_spoken_of() {
        let mut world = known();
        for _ in 0..10 {
            // Node 2 is down, and waits for its failover; node 4 is on its own now.
            assert!(!world.hears(1, halves()));
            assert!(!world.hears(4, vec![member(4, 0, None)]));
        }
        assert_eq!(world.ends(), (Some(1), Some(2)));
    }

    #[test]
    fn a_cluster_made_anew_is_believed_once_the_old_one_is_silent() {
        let mut world = known();
        let anew = || vec![member(7, 0, 0..=16383)];
        assert!(!world.hears(7, anew()));
        assert_eq!(world.ends(), (Some(1), Some(2)));
        world.1 += 3000;
        assert!(world.hears(7, anew()));
        assert_eq!(world.ends(), (Some(7), Some(7)));
        assert_eq!(world.0.members.len(), 1, "the old ones are forgotten");
    }

    #[test]
    fn an_epoch_that_was_restored_from_a_backup_does_not_outlast_its_node() {
        let mut world = World(Ownership::new(GONE_AFTER), 1);
        world.hears(1, vec![member(1, 9, 0..=SPLIT - 1), member(2, 2, SPLIT..=16383)]);
        world.hears(1, halves());
        assert!(world.hears(2, promoted()), "a claim of epoch 3 is newer than one of epoch 1");
    }

    #[test]
    fn a_node_that_moves_says_so_itself() {
        let mut world = known();
        let mut moved = halves();
        moved[0].address = Some(UpstreamAddress::Tcp { host: "h".into(), port: 9 });
        assert!(!world.hears(2, moved.clone()), "others may know it by another name");
        assert!(world.hears(1, moved));
        assert_eq!(world.ends(), (Some(9), Some(2)));
    }

    #[test]
    fn a_node_that_has_moved_and_cannot_be_asked_is_where_others_say() {
        let mut world = known();
        let mut moved = halves();
        moved[0].address = Some(UpstreamAddress::Tcp { host: "h".into(), port: 9 });
        assert!(!world.hears(2, moved.clone()) && !world.hears(2, moved.clone()));
        assert!(world.hears(2, moved));
        assert_eq!(world.ends(), (Some(9), Some(2)));
    }

    #[test]
    fn two_owners_at_one_address_are_one_node() {
        let mut world = World(Ownership::new(GONE_AFTER), 1);
        let mut both = halves();
        both[1].address = both[0].address.clone();
        world.hears(1, both);
        assert_eq!(world.0.topology(1, &Nodes::new(1)).nodes().len(), 1);
        assert_eq!(world.ends(), (Some(1), Some(1)));
    }
}
