//! What the table says of cached reads.

#[path = "../../../crates/proxy/src/commands/cached/query.rs"]
mod query;
#[path = "../../../crates/proxy/src/commands/cached/reads.rs"]
pub mod reads;
