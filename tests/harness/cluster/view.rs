//! What one node believes of all: its `CLUSTER NODES`, read.

use crate::reply::Reply;

/// A cluster as one of its nodes sees it.
#[derive(Debug)]
pub(super) struct View {
    members: Vec<Member>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    flags: Vec<String>,
    /// Whose replica it is.
    pub(super) primary: Option<String>,
    /// How new its claims on slots are.
    pub(super) config_epoch: u64,
    /// First and last slot of each range.
    slots: Vec<(u16, u16)>,
}

impl View {
    /// Reads `<id> <ip:port@bus> <flags> <primary> <ping> <pong> <epoch> <link> <slot>…`, one line a node.
    pub(super) fn parse(reply: &Reply) -> Self {
        let text = String::from_utf8_lossy(reply.bulk().expect("CLUSTER NODES gives a text")).into_owned();
        Self { members: text.lines().map(Member::parse).collect() }
    }

    pub(super) fn member(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Who has the slot, by id.
    pub(super) fn owner(&self, slot: u16) -> Option<&str> {
        let has = |member: &&Member| member.slots.iter().any(|&(first, last)| (first..=last).contains(&slot));
        self.members.iter().find(has).map(|member| member.id.as_str())
    }

    /// All owned ranges of slots with their owners' ids, in order: what two nodes have to agree in.
    pub(super) fn owners(&self) -> Vec<(u16, u16, &str)> {
        let mut owners = Vec::new();
        for member in &self.members {
            owners.extend(member.slots.iter().map(|&(first, last)| (first, last, member.id.as_str())));
        }
        owners.sort_unstable();
        owners
    }

    /// The ids of a primary's replicas.
    pub(super) fn replicas_of(&self, primary: &str) -> Vec<&str> {
        let is_its = |member: &&Member| member.primary.as_deref() == Some(primary);
        self.members.iter().filter(is_its).map(|member| member.id.as_str()).collect()
    }
}

impl Member {
    fn parse(line: &str) -> Self {
        let mut words = line.split(' ').map(ToString::to_string);
        let mut next = || words.next().expect("a line of CLUSTER NODES has eight words");
        let (id, _address, flags, primary) = (next(), next(), next(), next());
        let _times = [next(), next()];
        let (config_epoch, _link) = (next().parse().expect("a config epoch is a number"), next());
        // `[slot->-id]` and `[slot-<-id]` tell of migrations, not of ownership.
        let slots = words.filter(|word| !word.starts_with('[')).map(|word| range(&word)).collect();
        let flags = flags.split(',').map(ToString::to_string).collect();
        Self { id, flags, primary: Some(primary).filter(|primary| primary != "-"), config_epoch, slots }
    }

    /// Whether the node is known for good, and not thought to be down.
    pub(super) fn is_healthy(&self) -> bool {
        !self.flags.iter().any(|flag| matches!(flag.as_str(), "fail" | "fail?" | "handshake" | "noaddr"))
    }

    pub(super) fn is_primary(&self) -> bool {
        self.flags.iter().any(|flag| flag == "master")
    }

    pub(super) fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        self.slots.iter().flat_map(|&(first, last)| first..=last)
    }
}

/// `5` or `5-9`.
fn range(word: &str) -> (u16, u16) {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let slot = |digits: &str| digits.parse().expect("a slot is a number");
    (slot(first), slot(last))
}
