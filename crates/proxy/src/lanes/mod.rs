//! Lanes: connections to the upstream that carry the commands of many clients.
//!
//! - `connect` opens one and brings it into the state its commands need (user, protocol version, db, tracking).
//! - `forward` carries clients' bytes as they are.
//! - `loader` fetches what the near-cache stores, and hears the upstream's invalidations.
//! - `server` notices that another server has come behind the upstream's address.
//! - `link` is what both share: is the upstream there, and how long until the next try.

pub(crate) mod connect;
pub(crate) mod forward;
pub(crate) mod link;
pub(crate) mod loader;
pub(crate) mod server;
pub(crate) mod written;
