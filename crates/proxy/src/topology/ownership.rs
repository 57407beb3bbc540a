//! Who serves what, decided between the views of nodes that may know more or less.
//!
//! A slot goes to another node only on better evidence than the last: a claim of a higher config epoch, as the nodes
//! decide among themselves, or the word of the owner itself. So a node that was cut off and answers again, or a view that
//! was long under way, never takes a slot back to where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nearside_nearcache::Time;

use super::slot::SLOTS;
use super::view::View;
use super::{Node, Nodes, Topology};
use crate::config::UpstreamAddress;

/// An owner that was not heard for this long, and that others do not know (any more), counts as gone: it was forgotten, or
/// the whole cluster was made anew.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// All that is known of a cluster.
#[derive(Debug)]
pub(crate) struct Ownership {
    claims: Vec<Option<Claim>>,
    members: HashMap<String, Known>,
    next_id: u32,
}

/// Why a slot is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    owner: u32,
    epoch: u64,
}

#[derive(Debug)]
struct Known {
    /// Stands for its name in claims.
    id: u32,
    address: Option<UpstreamAddress>,
    /// When its own view last arrived, or it was first spoken of.
    heard: Time,
}

/// What one view says, told apart by who says it.
struct Evidence {
    /// The owner whose view it is.
    myself: u32,
    /// Owners that are gone, as far as this view can tell.
    gone: Vec<u32>,
}

impl Default for Ownership {
    fn default() -> Self {
        Ownership { claims: vec![None; SLOTS], members: HashMap::new(), next_id: 0 }
    }
}

impl Ownership {
    /// Takes in what a node said at `now`. True if something has changed that a topology shows.
    pub(crate) fn take_in(&mut self, view: &View, now: Time) -> bool {
        let moved = self.meet(view, now);
        let Some(evidence) = self.evidence(view, now) else { return false };
        let mut said: Vec<Option<Claim>> = vec![None; SLOTS];
        for member in &view.members {
            let claim = Claim { owner: self.members[&member.name].id, epoch: member.epoch };
            member.slots.iter().cloned().flatten().for_each(|slot| said[usize::from(slot)] = Some(claim));
        }
        let mut changed = moved;
        for (claim, said) in self.claims.iter_mut().zip(said) {
            let decided = evidence.decide(*claim, said);
            changed |= decided.map(|claim| claim.owner) != claim.map(|claim| claim.owner);
            *claim = decided;
        }
        self.forget(view);
        changed
    }

    /// Notes who there is, and where. True if an owner has another address than before.
    fn meet(&mut self, view: &View, now: Time) -> bool {
        let mut moved = Vec::new();
        for member in &view.members {
            let next_id = &mut self.next_id;
            let known = self.members.entry(member.name.clone()).or_insert_with(|| {
                *next_id += 1;
                Known { id: *next_id, address: None, heard: now }
            });
            if member.name == view.myself {
                known.heard = now;
            }
            if member.address.is_some() && member.address != known.address {
                known.address.clone_from(&member.address);
                moved.push(known.id);
            }
        }
        !moved.is_empty() && self.claims.iter().flatten().any(|claim| moved.contains(&claim.owner))
    }

    fn evidence(&self, view: &View, now: Time) -> Option<Evidence> {
        let is_spoken_of = |name: &String| view.members.iter().any(|member| member.name == *name);
        let is_gone = |name: &String, known: &Known| now >= known.heard + GONE_AFTER && !is_spoken_of(name);
        let gone = self.members.iter().filter(|(name, known)| is_gone(name, known)).map(|(_, known)| known.id);
        Some(Evidence { myself: self.members.get(&view.myself)?.id, gone: gone.collect() })
    }

    /// Forgets those that serve nothing and are spoken of no more.
    fn forget(&mut self, view: &View) {
        let mut owners: Vec<u32> = self.claims.iter().flatten().map(|claim| claim.owner).collect();
        owners.dedup();
        let is_spoken_of = |name: &String| view.members.iter().any(|member| member.name == *name);
        self.members.retain(|name, known| owners.contains(&known.id) || is_spoken_of(name));
    }

    /// The topology as of now.
    pub(crate) fn topology(&self, version: u64, nodes: &Nodes) -> Topology {
        let by_id: HashMap<u32, &Known> = self.members.values().map(|known| (known.id, known)).collect();
        let mut positions: HashMap<u32, Option<usize>> = HashMap::new();
        let mut served: Vec<Arc<Node>> = Vec::new();
        let mut position = |owner: u32| {
            *positions.entry(owner).or_insert_with(|| {
                let node = nodes.at(by_id.get(&owner)?.address.as_ref()?)?;
                served.push(node);
                Some(served.len() - 1)
            })
        };
        let owners: Vec<_> = self.claims.iter().map(|claim| position(claim.as_ref()?.owner)).collect();
        Topology::cluster(version, served, owners.into_iter())
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
        let gives_up = old.owner == self.myself || self.gone.contains(&old.owner);
        match said {
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
    use super::super::view::Member;
    use super::*;

    const LATER: Time = Time(60_000_000_000);
    const SPLIT: u16 = 8192;

    /// A member named for its port.
    fn member(port: u16, epoch: u64, slots: impl Into<Option<std::ops::RangeInclusive<u16>>>) -> Member {
        let address = Some(UpstreamAddress::Tcp { host: "h".into(), port });
        Member { name: port.to_string(), address, epoch, slots: slots.into().into_iter().collect() }
    }

    fn view(myself: u16, members: Vec<Member>) -> View {
        View { myself: myself.to_string(), members }
    }

    /// The ports of the nodes that serve the first and the last slot.
    fn ends(ownership: &Ownership) -> (Option<u16>, Option<u16>) {
        let topology = ownership.topology(1, &Nodes::new(1));
        let port = |slot| match topology.nodes()[topology.position(super::super::Slot::new(slot)?)?].address() {
            UpstreamAddress::Tcp { port, .. } => Some(*port),
            UpstreamAddress::Unix(_) => None,
        };
        (port(0), port(16383))
    }

    fn halves() -> Vec<Member> {
        vec![member(1, 1, 0..=SPLIT - 1), member(2, 2, SPLIT..=16383)]
    }

    fn known() -> Ownership {
        let mut ownership = Ownership::default();
        assert!(ownership.take_in(&view(1, halves()), Time(0)));
        assert_eq!(ends(&ownership), (Some(1), Some(2)));
        ownership
    }

    #[test]
    fn the_same_view_again_changes_nothing() {
        let mut ownership = known();
        assert!(!ownership.take_in(&view(1, halves()), LATER));
        assert!(!ownership.take_in(&view(2, halves()), LATER));
    }

    #[test]
    fn a_newer_claim_wins_whoever_tells_of_it() {
        let mut ownership = known();
        let promoted = vec![member(3, 3, 0..=SPLIT - 1), member(1, 1, None), member(2, 2, SPLIT..=16383)];
        assert!(ownership.take_in(&view(2, promoted), LATER));
        assert_eq!(ends(&ownership), (Some(3), Some(2)));
    }

    #[test]
    fn an_older_claim_never_takes_a_slot_back() {
        let mut ownership = known();
        let promoted = vec![member(3, 3, 0..=SPLIT - 1), member(1, 1, None), member(2, 2, SPLIT..=16383)];
        ownership.take_in(&view(3, promoted), LATER);
        // The old primary was cut off, and still believes what it did.
        let mut before = halves();
        before.push(member(3, 1, None));
        assert!(!ownership.take_in(&view(1, before), LATER));
        assert_eq!(ends(&ownership), (Some(3), Some(2)));
    }

    #[test]
    fn a_node_that_is_not_known_to_one_that_was_cut_off_keeps_its_slots() {
        let mut ownership = known();
        let moved = vec![member(3, 3, 0..=SPLIT - 1), member(1, 1, None), member(2, 2, SPLIT..=16383)];
        ownership.take_in(&view(3, moved), LATER);
        assert!(!ownership.take_in(&view(1, halves()), LATER));
        assert_eq!(ends(&ownership), (Some(3), Some(2)));
    }

    #[test]
    fn the_owner_itself_may_give_a_slot_up() {
        let mut ownership = known();
        let given = vec![member(1, 1, None), member(2, 1, 0..=16383)];
        assert!(!ownership.take_in(&view(2, given.clone()), LATER), "who takes it must claim it with a newer epoch");
        assert!(ownership.take_in(&view(1, given), LATER));
        assert_eq!(ends(&ownership), (Some(2), Some(2)));
        assert!(ownership.take_in(&view(2, vec![member(2, 2, SPLIT..=16383)]), LATER));
        assert_eq!(ends(&ownership), (None, Some(2)));
    }

    #[test]
    fn a_cluster_made_anew_is_believed_once_the_old_one_is_silent() {
        let mut ownership = known();
        let anew = view(7, vec![member(7, 0, 0..=16383)]);
        assert!(!ownership.take_in(&anew, Time(1)));
        assert_eq!(ends(&ownership), (Some(1), Some(2)));
        assert!(ownership.take_in(&anew, LATER));
        assert_eq!(ends(&ownership), (Some(7), Some(7)));
        assert_eq!(ownership.members.len(), 1, "the old ones are forgotten");
    }

    #[test]
    fn a_node_that_moves_keeps_its_slots() {
        let mut ownership = known();
        let mut moved = halves();
        moved[0].address = Some(UpstreamAddress::Tcp { host: "h".into(), port: 9 });
        assert!(ownership.take_in(&view(2, moved), LATER));
        assert_eq!(ends(&ownership), (Some(9), Some(2)));
    }
}
