//! The near-cache: replies of a server, kept beside those who read them, and never served longer than can be vouched for.
//!
//! A cached read promises: the writes made through this proxy (once acknowledged); a bound on staleness whatever happens to
//! the network or the server; no value beyond its time to live; nothing of another database or user; and no value that
//! comes back after an invalidation. Three mechanisms keep that, each in a file of its own:
//!
//! - [`lease`](LeaseOwner): a connection vouches for what it fetched until a moment in time, which its heartbeats move;
//! - [`ticket`](FillTicket): a fetch is known before it is sent, so that a change of its key finds it and poisons it;
//! - [`entry`](CachedReply): one entry a key, so that one removal drops all that is cached of it.
//!
//! There are no sockets here, no clock, and nothing asynchronous: time is a parameter, and so is everything that came over a
//! wire. Who calls what when is the caller's duty, written at each method.

mod cache;
mod doorkeeper;
mod entry;
mod explain;
mod fill;
mod hash;
mod history;
mod lease;
mod query;
mod sizing;
mod store;
mod sync;
mod terms;
mod ticket;
mod time;

pub use cache::{Bypass, Lookup, NearCache, Settings, Stats};
pub use entry::{CachedReply, Read, ReplyRef, Scope};
pub use explain::{Explanation, KeptReply, LeaseState};
pub use fill::{Followers, Waiter, Waiters};
pub use history::{Change, LastChange};
pub use lease::{Lease, LeaseOwner, Renewal};
pub use sizing::SizeError;
pub use ticket::{Answer, FillTicket, Ttl};
pub use time::Time;
