//! Replies: finding where one ends, without building it.
//!
//! A reply may hold replies, to any depth, but its end needs no stack: one counter of the elements still owed is enough.
//! An aggregate pays for itself and adds its children; the reply ends where nothing is owed. An attribute (`|`) comes
//! before the value it describes, so it adds its children and pays for nothing.
//!
//! The scanner keeps no bytes and needs none back: each call may be given just what has arrived since.

use crate::{ReplyError, decimal};

/// The type of a reply: of the outermost value, behind its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are RESP's own")]
pub enum ReplyKind {
    Simple,
    Error,
    Integer,
    Bulk,
    Array,
    /// `_`, and RESP2's `$-1` and `*-1`.
    Null,
    Double,
    Boolean,
    BigNumber,
    BlobError,
    Verbatim,
    Map,
    Set,
    /// Not an answer to anything: it came by itself (`>`).
    Push,
}

/// How far a call of [`ReplyScanner::scan`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes of the buffer that belong to the current reply: all of them, unless it is complete.
    pub consumed: usize,
    /// Whether the reply ends with them.
    pub complete: bool,
}

/// Finds the ends of a server's replies, one after the other, RESP2 and RESP3 alike.
#[derive(Clone, Debug, Default)]
pub struct ReplyScanner {
    /// Values still to come, nested ones included, the current one too. 0: between two replies.
    owed: u64,
    part: Part,
    kind: Option<ReplyKind>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// A value's first byte, which says its type.
    #[default]
    Type,
    /// The line that is all of the value. `cr`: its last byte so far was a CR.
    Line { cr: bool },
    /// The length in the header line of a value of this `type_byte`.
    Length { type_byte: u8, length: Length },
    /// The LF behind the length.
    LengthEnd { type_byte: u8, length: Length },
    /// The content of a bulk, with so many bytes to come (maybe 0), and its CRLF.
    Content { left: u64 },
    /// The LF behind a bulk.
    ContentEnd,
}

/// The number of a header line, as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Empty,
    Minus,
    MinusOne,
    Number(u64),
}

/// Lengths beyond this are refused, so that twice as much (a map's keys and values) can still be counted.
const MAX_LENGTH: u64 = i64::MAX as u64 / 2;

impl ReplyScanner {
    /// A scanner before the first byte of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Consumes `buf` up to the end of the current reply, or all of it.
    ///
    /// Each call continues where the last one stopped; after a complete reply, the next call begins the next reply. An
    /// error is final: nothing that follows on this connection has boundaries any more.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scanned, ReplyError> {
        if self.owed == 0 {
            self.owed = 1;
            self.kind = None;
        }
        let mut rest = buf;
        while self.owed > 0 {
            if self.part == Part::Type
                && let Some(after) = self.whole_value(rest)
            {
                rest = after;
            } else if rest.is_empty() {
                break;
            } else {
                rest = self.step(rest)?;
            }
        }
        Ok(Scanned { consumed: buf.len() - rest.len(), complete: self.owed == 0 })
    }

    /// The type of the reply in progress, or of the complete one until the next scan. `None` as long as its header
    /// (behind any attributes) hasn't been seen.
    #[inline]
    pub fn kind(&self) -> Option<ReplyKind> {
        self.kind
    }

    /// Takes the value at the start of `rest`, or an aggregate's header, if it lies wholly in there and is as usual.
    /// Returns what follows.
    #[inline]
    fn whole_value<'b>(&mut self, rest: &'b [u8]) -> Option<&'b [u8]> {
        let (&type_byte, line) = rest.split_first()?;
        match type_byte {
            b'$' => {
                if let Some(after) = line.strip_prefix(b"-1\r\n") {
                    self.pay(ReplyKind::Null);
                    return Some(after);
                }
                let (len, content) = decimal::short_line(line)?;
                let after = content.get(len..)?.strip_prefix(b"\r\n")?;
                self.pay(ReplyKind::Bulk);
                Some(after)
            }
            b'+' => {
                let after = line.strip_prefix(b"OK\r\n")?;
                self.pay(ReplyKind::Simple);
                Some(after)
            }
            b':' => {
                let digits = line.iter().take_while(|byte| **byte != b'\r').count();
                let after = line[digits..].strip_prefix(b"\r\n")?;
                self.pay(ReplyKind::Integer);
                Some(after)
            }
            b'*' => {
                let (len, after) = decimal::short_line(line)?;
                let owed = (self.owed - 1).checked_add(len as u64)?;
                self.name(ReplyKind::Array);
                self.owed = owed;
                Some(after)
            }
            _ => None,
        }
    }

    /// Takes at least one byte of `rest`, by the book. Returns what follows.
    #[cold]
    fn step<'b>(&mut self, rest: &'b [u8]) -> Result<&'b [u8], ReplyError> {
        let (&byte, after) = rest.split_first().expect("only called with bytes at hand");
        match self.part {
            Part::Type => self.type_byte(byte)?,
            Part::Line { cr } => return Ok(self.line(rest, cr)),
            Part::Length { type_byte, length } => self.length_byte(type_byte, length, byte)?,
            Part::LengthEnd { type_byte, length } => match byte {
                b'\n' => self.header(type_byte, length)?,
                _ => return Err(ReplyError::BadLength(type_byte)),
            },
            Part::Content { left: 0 } => match byte {
                b'\r' => self.part = Part::ContentEnd,
                _ => return Err(ReplyError::UnterminatedBulk),
            },
            Part::Content { left } => {
                let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                self.part = Part::Content { left: left - taken as u64 };
                return Ok(&rest[taken..]);
            }
            Part::ContentEnd => match byte {
                b'\n' => self.end_value(),
                _ => return Err(ReplyError::UnterminatedBulk),
            },
        }
        Ok(after)
    }

    fn type_byte(&mut self, type_byte: u8) -> Result<(), ReplyError> {
        let kind = match type_byte {
            b'+' => ReplyKind::Simple,
            b'-' => ReplyKind::Error,
            b':' => ReplyKind::Integer,
            b'_' => ReplyKind::Null,
            b',' => ReplyKind::Double,
            b'#' => ReplyKind::Boolean,
            b'(' => ReplyKind::BigNumber,
            b'$' | b'!' | b'=' | b'*' | b'%' | b'~' | b'>' | b'|' => {
                self.part = Part::Length { type_byte, length: Length::Empty };
                return Ok(());
            }
            other => return Err(ReplyError::UnknownType(other)),
        };
        self.name(kind);
        self.part = Part::Line { cr: false };
        Ok(())
    }

    /// Takes the line up to its CRLF. A CR or LF alone doesn't end it.
    fn line<'b>(&mut self, rest: &'b [u8], cr: bool) -> &'b [u8] {
        let mut before = cr;
        let mut from = 0;
        while let Some(offset) = memchr::memchr(b'\n', &rest[from..]) {
            let newline = from + offset;
            if newline > 0 {
                before = rest[newline - 1] == b'\r';
            }
            if before {
                self.end_value();
                return &rest[newline + 1..];
            }
            from = newline + 1;
        }
        self.part = Part::Line { cr: rest.last() == Some(&b'\r') };
        &[]
    }

    fn length_byte(&mut self, type_byte: u8, length: Length, byte: u8) -> Result<(), ReplyError> {
        let length = match (length, byte) {
            (Length::MinusOne | Length::Number(_), b'\r') => {
                self.part = Part::LengthEnd { type_byte, length };
                return Ok(());
            }
            (Length::Empty, b'-') => Length::Minus,
            (Length::Minus, b'1') => Length::MinusOne,
            (Length::Empty, b'?') => return Err(ReplyError::Streamed(type_byte)),
            (Length::Empty, b'0'..=b'9') => Length::Number(u64::from(byte - b'0')),
            (Length::Number(number @ 1..), b'0'..=b'9') => {
                let number = number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                if number > MAX_LENGTH {
                    return Err(ReplyError::LengthOutOfRange(type_byte));
                }
                Length::Number(number)
            }
            _ => return Err(ReplyError::BadLength(type_byte)),
        };
        self.part = Part::Length { type_byte, length };
        Ok(())
    }

    /// A header line is complete: goes on with the content, or with the children.
    fn header(&mut self, type_byte: u8, length: Length) -> Result<(), ReplyError> {
        let Length::Number(length) = length else {
            return self.null(type_byte);
        };
        let (kind, children) = match type_byte {
            b'$' => return self.content(ReplyKind::Bulk, length),
            b'!' => return self.content(ReplyKind::BlobError, length),
            b'=' => return self.content(ReplyKind::Verbatim, length),
            b'*' => (ReplyKind::Array, length),
            b'~' => (ReplyKind::Set, length),
            b'>' => (ReplyKind::Push, length),
            b'%' => (ReplyKind::Map, length * 2),
            _ => return self.owe(type_byte, length * 2), // an attribute
        };
        self.name(kind);
        self.owe(type_byte, children)?;
        self.end_value();
        Ok(())
    }

    fn null(&mut self, type_byte: u8) -> Result<(), ReplyError> {
        if !matches!(type_byte, b'$' | b'*') {
            return Err(ReplyError::BadLength(type_byte));
        }
        self.name(ReplyKind::Null);
        self.end_value();
        Ok(())
    }

    fn content(&mut self, kind: ReplyKind, left: u64) -> Result<(), ReplyError> {
        self.name(kind);
        self.part = Part::Content { left };
        Ok(())
    }

    fn owe(&mut self, type_byte: u8, children: u64) -> Result<(), ReplyError> {
        self.owed = self.owed.checked_add(children).ok_or(ReplyError::LengthOutOfRange(type_byte))?;
        self.part = Part::Type;
        Ok(())
    }

    fn end_value(&mut self) {
        self.owed -= 1;
        self.part = Part::Type;
    }

    #[inline(always)]
    fn pay(&mut self, kind: ReplyKind) {
        self.name(kind);
        self.owed -= 1;
    }

    /// Notes the type of a value, if it is the outermost: the first that comes while nothing but itself is owed (an
    /// attribute's children come while their value is owed too).
    #[inline(always)]
    fn name(&mut self, kind: ReplyKind) {
        if self.kind.is_none() && self.owed == 1 {
            self.kind = Some(kind);
        }
    }
}
