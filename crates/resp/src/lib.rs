//! RESP, the Redis protocol, as bytes: where a client's request ends and what its arguments are ([`RequestDecoder`]),
//! where a server's reply ends ([`ReplyScanner`]), and the replies that a proxy says itself ([`encode`]).
//!
//! There are no sockets, clocks or tasks in here. The caller owns the buffers and says what it has; this crate says how
//! far it got. Requests and replies are never copied into a tree of frames on their way through: a proxy needs the
//! boundaries and, of a request, the arguments, and both are offsets into bytes that are in memory anyway. The few
//! replies whose content matters to the proxy itself become values in [`frame`].
//!
//! Sources of the rules: the RESP2 and RESP3 specifications, and where those are silent the behaviour of
//! `redis-server` 7.0 (`networking.c`, `sds.c`), whose error texts a client may already match on.

pub mod as_resp2;
mod decimal;
pub mod encode;
mod error;
pub mod frame;
mod reply;
mod request;

pub use encode::Protocol;
pub use error::{ProtocolError, ReplyError};
pub use reply::{ReplyKind, ReplyScanner, Scanned};
pub use request::{Limits, Progress, Request, RequestDecoder};
