//! The forward lanes that a session has used, so that it does not search for one with every command.

use std::rc::Rc;

use crate::lanes::forward::ForwardLane;

/// By the position of their nodes in the session's topology.
#[derive(Default)]
pub(crate) struct Lanes {
    used: Vec<Option<Rc<ForwardLane>>>,
    /// Where commands without keys go: always to one node, so that they keep their order.
    any: Option<usize>,
}

impl Lanes {
    /// The lane to the node at `position`; `find` finds it the first time.
    #[inline]
    pub(crate) fn to(
        &mut self,
        position: usize,
        find: impl FnOnce() -> Result<Rc<ForwardLane>, String>,
    ) -> Result<Rc<ForwardLane>, String> {
        if let Some(Some(lane)) = self.used.get(position) {
            return Ok(Rc::clone(lane));
        }
        let lane = find()?;
        if self.used.len() <= position {
            self.used.resize(position + 1, None);
        }
        self.used[position] = Some(Rc::clone(&lane));
        Ok(lane)
    }

    /// The lane could not be used: the next command asks for it anew, as this one may have ended for good. A command
    /// without keys may try the next node.
    pub(crate) fn forget(&mut self, position: usize) {
        if let Some(lane) = self.used.get_mut(position) {
            *lane = None;
        }
        if self.any == Some(position) {
            self.any = Some(position + 1);
        }
    }

    /// The position, below `count`, of the node for commands without keys. `first` spreads the sessions over the nodes.
    #[inline]
    pub(crate) fn any(&mut self, first: u64, count: usize) -> usize {
        let chosen = self.any.unwrap_or(first as usize) % count;
        self.any = Some(chosen);
        chosen
    }

    /// The session's user, db, protocol, or topology is another one from here on.
    pub(crate) fn clear(&mut self) {
        *self = Lanes::default();
    }
}
