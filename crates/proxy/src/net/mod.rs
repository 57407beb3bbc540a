//! The system's side: sockets, listeners, limits of the process, the clock.

pub(crate) mod clock;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod socket;
