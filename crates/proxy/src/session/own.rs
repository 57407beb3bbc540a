//! The upstream connection that a session has to itself, and what for.

use std::rc::Rc;

use crate::lanes::pinned::PinnedLane;
use crate::lanes::written::Effect;
use crate::topology::Slot;

/// Keys of a transaction's writes that are remembered, and their bytes; with more EXEC counts as a write of everything.
const REMEMBERED: usize = 16 * 1024;
const REMEMBERED_BYTES: usize = 1 << 20;

/// Whether the session has a connection of its own.
#[derive(Default)]
pub(crate) enum Own {
    /// Its commands travel with those of others.
    #[default]
    None,
    /// It will have one: a transaction was begun in a cluster, and no key has yet said where.
    Unplaced(Box<Unplaced>),
    /// It has.
    Pinned(Box<Pinned>),
}

/// A transaction without a place.
#[derive(Default)]
pub(crate) struct Unplaced {
    /// The commands that were answered with QUEUED here.
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) writes: Writes,
    /// One was refused: EXEC will abort.
    pub(crate) is_doomed: bool,
}

/// A connection, and what keeps it from being anybody else's.
pub(crate) struct Pinned {
    pub(crate) lane: Rc<PinnedLane>,
    /// The slot of the first keys, in a cluster.
    pub(crate) slot: Option<Slot>,
    /// WATCH: the server remembers keys.
    pub(crate) watches: bool,
    /// CLIENT TRACKING: the server remembers what is read.
    pub(crate) tracks: bool,
    /// MULTI: the server queues commands.
    pub(crate) multi: Option<Multi>,
    /// It was changed in a way that cannot be taken back.
    pub(crate) is_spent: bool,
    /// The last command went another way.
    pub(crate) is_beside: bool,
}

/// What was queued since MULTI.
#[derive(Default)]
pub(crate) struct Multi {
    pub(crate) commands: usize,
    pub(crate) writes: Writes,
    /// SELECTs: their places among the commands, and the db each asks for.
    pub(crate) selects: Vec<(usize, u16)>,
    /// A command was refused here, of which the server does not know: EXEC must abort.
    pub(crate) is_doomed: bool,
}

/// What EXEC will write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    pub(crate) keys: Vec<Vec<u8>>,
    bytes: usize,
    /// Also keys that are not named.
    pub(crate) others: bool,
    /// Also what the upstream sends no invalidation for.
    pub(crate) everything: bool,
    /// Something that may be a write, or what has to be replicated as one is: PUBLISH.
    pub(crate) any: bool,
}

impl Pinned {
    /// A connection that is as it was when it was new.
    pub(crate) fn new(lane: Rc<PinnedLane>, slot: Option<Slot>) -> Self {
        Pinned { lane, slot, watches: false, tracks: false, multi: None, is_spent: false, is_beside: false }
    }

    /// The server knows something of the session that only this connection has.
    pub(crate) fn is_held(&self) -> bool {
        self.watches || self.tracks || self.multi.is_some()
    }
}

impl Writes {
    /// A command will be carried out, whose keys have been noted.
    pub(crate) fn add(&mut self, effect: Effect) {
        self.others |= matches!(effect, Effect::KeysAndOthers(_));
        self.everything |= effect == Effect::Everything;
    }

    /// What all of it changes. Shows `note` the keys.
    pub(crate) fn effect(&self, mut note: impl FnMut(&[u8])) -> Effect {
        if self.everything {
            return Effect::Everything;
        }
        self.keys.iter().for_each(|key| note(key));
        match u32::try_from(self.keys.len()).expect("fewer are remembered") {
            count if self.others => Effect::KeysAndOthers(count),
            0 => Effect::None,
            count => Effect::Keys(count),
        }
    }

    /// A key will be written.
    pub(crate) fn note(&mut self, key: &[u8]) {
        self.bytes += key.len();
        self.everything |= self.keys.len() >= REMEMBERED || self.bytes > REMEMBERED_BYTES;
        if !self.everything {
            self.keys.push(key.to_vec());
        }
    }
}

impl Own {
    /// Gives the connection back, if nothing holds it. Only when no reply is owed on it.
    pub(crate) fn release(&mut self) {
        match std::mem::take(self) {
            Own::Pinned(pinned) if pinned.is_held() => *self = Own::Pinned(pinned),
            Own::Pinned(pinned) if pinned.is_spent || !pinned.lane.is_idle() => pinned.lane.end(),
            Own::Pinned(pinned) => pinned.lane.release(),
            other => *self = other,
        }
    }

    /// Closes the connection, whatever it was for.
    pub(crate) fn end(&mut self) {
        if let Own::Pinned(pinned) = std::mem::take(self) {
            pinned.lane.end();
        }
    }

    /// The connection.
    pub(crate) fn lane(&self) -> Option<&Rc<PinnedLane>> {
        match self {
            Own::Pinned(pinned) => Some(&pinned.lane),
            Own::None | Own::Unplaced(_) => None,
        }
    }

    /// The server knows something of the session that only this connection has.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Own::Pinned(pinned) if pinned.is_held())
    }

    /// MULTI was said, and neither EXEC nor DISCARD.
    pub(crate) fn is_in_transaction(&self) -> bool {
        match self {
            Own::None => false,
            Own::Unplaced(_) => true,
            Own::Pinned(pinned) => pinned.multi.is_some(),
        }
    }

    /// Bytes that the server has not taken.
    pub(crate) fn queued(&self) -> usize {
        self.lane().map_or(0, |lane| lane.queued())
    }

    /// EXEC would carry out something that may be a write.
    pub(crate) fn exec_may_write(&self) -> bool {
        match self {
            Own::Pinned(pinned) => pinned.multi.as_ref().is_some_and(|multi| multi.writes.any),
            Own::Unplaced(unplaced) => unplaced.writes.any,
            Own::None => false,
        }
    }

    /// A command waits at the server, for as long as it likes.
    pub(crate) fn is_blocked(&self) -> bool {
        self.lane().is_some_and(|lane| lane.is_blocked())
    }
}
