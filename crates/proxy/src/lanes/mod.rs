//! Lanes: connections to the upstream, `forward` and `loader` for many clients, `pinned` and `feed` for one.
//!
//! - `connect` opens one and brings it into the state its commands need (user, protocol version, db, tracking).
//! - `forward` carries clients' bytes as they are. `written` and `forward/sent` are what it keeps of them until they are
//!   answered; `forward/redirected` sends on what another node of a cluster has to answer.
//! - `loader` fetches what the near-cache stores, and hears the upstream's invalidations; `field_expiry` is what it asks of hashes.
//! - `fence` waits until the loader lanes have heard what a command has changed.
//! - `pinned` is a session's own for a while.
//! - `feed` tells one session what it has subscribed to.
//! - `link` is what all share: is the upstream there, and how long until the next try; `version` is what it is.

pub(crate) mod connect;
pub(crate) mod feed;
pub(crate) mod fence;
mod field_expiry;
pub(crate) mod forward;
pub(crate) mod link;
pub(crate) mod loader;
pub(crate) mod pinned;
mod version;
pub(crate) mod written;
