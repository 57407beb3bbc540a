//! What can be wrong with the bytes of either side.

use std::fmt;

/// A request that breaks the protocol. Redis answers it with an error and closes the connection, as there is no telling
/// where the next request begins.
///
/// `Display` is Redis's text after `-ERR `; [`append_reply`](Self::append_reply) is the whole reply, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// An inline request's line exceeds 64 KiB.
    TooBigInlineRequest,
    /// An inline request opens a quote and doesn't close it, or goes on right behind a closing one.
    UnbalancedQuotes,
    /// The line of a `*` header exceeds 64 KiB.
    TooBigMultibulkCount,
    /// The number of arguments isn't one, or exceeds [`MAX_ARGUMENTS`](crate::Limits::MAX_ARGUMENTS).
    InvalidMultibulkLength,
    /// More arguments than a client may send before it has authenticated.
    UnauthenticatedMultibulkLength,
    /// The line of a `$` header exceeds 64 KiB.
    TooBigBulkCount,
    /// An argument's header starts with this byte instead of `$`.
    ExpectedDollar(u8),
    /// The length of an argument isn't one, is negative, or exceeds the limit (`proto-max-bulk-len`).
    InvalidBulkLength,
    /// A longer argument than a client may send before it has authenticated.
    UnauthenticatedBulkLength,
}

impl ProtocolError {
    /// Appends the error reply that Redis gives: `-ERR Protocol error: …`, and a CRLF.
    pub fn append_reply(&self, out: &mut Vec<u8>) {
        let text = self.text();
        out.extend_from_slice(b"-ERR ");
        out.extend_from_slice(text.as_bytes());
        if let Self::ExpectedDollar(got) = self {
            // The byte itself, whatever it is; Redis too keeps only line breaks out of its error lines.
            out.push(if matches!(got, b'\r' | b'\n') { b' ' } else { *got });
            out.push(b'\'');
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The text, but for `ExpectedDollar` only what comes before the byte.
    fn text(&self) -> &'static str {
        match self {
            Self::TooBigInlineRequest => "Protocol error: too big inline request",
            Self::UnbalancedQuotes => "Protocol error: unbalanced quotes in request",
            Self::TooBigMultibulkCount => "Protocol error: too big mbulk count string",
            Self::InvalidMultibulkLength => "Protocol error: invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => "Protocol error: unauthenticated multibulk length",
            Self::TooBigBulkCount => "Protocol error: too big bulk count string",
            Self::ExpectedDollar(_) => "Protocol error: expected '$', got '",
            Self::InvalidBulkLength => "Protocol error: invalid bulk length",
            Self::UnauthenticatedBulkLength => "Protocol error: unauthenticated bulk length",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())?;
        match self {
            Self::ExpectedDollar(b'\r' | b'\n') => out.write_str(" '"),
            Self::ExpectedDollar(got) => write!(out, "{}'", char::from(*got)),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// A reply that isn't RESP. The connection it came on can't be used any further: what follows has no boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// No reply starts with this byte.
    #[error("no RESP type starts with byte {0:#04x}")]
    UnknownType(u8),
    /// The length in the header of a reply of this type isn't one.
    #[error("bad length in the header of a '{}' reply", char::from(*.0))]
    BadLength(u8),
    /// The length in the header of a reply of this type, or the elements owed with it, exceed what can be counted.
    #[error("length out of range in the header of a '{}' reply", char::from(*.0))]
    LengthOutOfRange(u8),
    /// A string, array or map of a length not known in advance (`$?`, `*?` …), which no Redis sends.
    #[error("streamed '{}' reply is not supported", char::from(*.0))]
    Streamed(u8),
    /// A bulk's content isn't followed by CRLF.
    #[error("the content of a bulk is not followed by CRLF")]
    UnterminatedBulk,
}
