//! Requests: finding where one ends and what its arguments are, without copying them.
//!
//! Clients send arrays of bulk strings, nearly always whole, many to a read. [`RequestDecoder::decode`] therefore goes
//! through slices in straight lines as long as whole header lines and arguments lie before it. What is cut off by the
//! end of the buffer, or isn't as usual, goes the long way, one argument at a time: there the decoder remembers how far
//! it came, so that no byte is looked at again when more arrive.
//!
//! The rules are those of `processMultibulkBuffer` and `processInlineBuffer` in `networking.c` of Redis 7.0, oddities
//! included: a header line ends at its CR whatever the next byte is, the two bytes behind an argument are skipped
//! unseen, and a NUL byte hides the end of its line.

mod inline;

use std::fmt;

use crate::{ProtocolError, decimal, encode};

/// A line longer than this without an end is an error: `PROTO_INLINE_MAX_SIZE`.
const MAX_LINE_LEN: usize = 64 * 1024;
/// What a client may send before it has authenticated: enough for HELLO with AUTH and SETNAME.
const UNAUTHENTICATED_ARGUMENTS: usize = 10;
const UNAUTHENTICATED_BULK_LEN: usize = 16 * 1024;
/// Argument spans (16 bytes each) and bytes that a decoder keeps allocated for the next request.
const KEPT_SPANS: usize = 64;
const KEPT_BYTES: usize = 1024;

/// How much a client may ask for, as Redis limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    max_bulk_len: usize,
    authenticated: bool,
}

impl Limits {
    /// The most arguments of a request. Redis: `INT_MAX`.
    pub const MAX_ARGUMENTS: usize = i32::MAX as usize;
    /// What Redis takes for `proto-max-bulk-len` when it isn't set: 512 MiB.
    pub const DEFAULT_MAX_BULK_LEN: usize = 512 * 1024 * 1024;
    /// A client that has yet to authenticate: at most 10 arguments of at most 16 KiB.
    pub const UNAUTHENTICATED: Self = Self::unauthenticated(Self::DEFAULT_MAX_BULK_LEN);

    /// A client that may send arguments of up to `max_bulk_len` bytes (`proto-max-bulk-len`).
    pub const fn authenticated(max_bulk_len: usize) -> Self {
        Self { max_bulk_len, authenticated: true }
    }

    /// A client that has yet to authenticate; `max_bulk_len` only decides which error a long argument gets.
    pub const fn unauthenticated(max_bulk_len: usize) -> Self {
        Self { max_bulk_len, authenticated: false }
    }

    fn allow_arguments(&self, count: usize) -> bool {
        count <= UNAUTHENTICATED_ARGUMENTS || (self.authenticated && count <= Self::MAX_ARGUMENTS)
    }

    fn allow_bulk_len(&self, len: usize) -> bool {
        len <= self.max_bulk_len && (len <= UNAUTHENTICATED_BULK_LEN || self.authenticated)
    }

    fn check_arguments(&self, count: i64) -> Result<usize, ProtocolError> {
        match usize::try_from(count) {
            Ok(count) if self.allow_arguments(count) => Ok(count),
            Ok(count) if count > Self::MAX_ARGUMENTS => Err(ProtocolError::InvalidMultibulkLength),
            Ok(_) => Err(ProtocolError::UnauthenticatedMultibulkLength),
            Err(_) => Ok(0), // `*-1`: no arguments, as `*0`
        }
    }

    fn check_bulk_len(&self, len: i64) -> Result<usize, ProtocolError> {
        match usize::try_from(len) {
            Ok(len) if self.allow_bulk_len(len) => Ok(len),
            Ok(len) if len <= self.max_bulk_len => Err(ProtocolError::UnauthenticatedBulkLength),
            _ => Err(ProtocolError::InvalidBulkLength),
        }
    }
}

/// How far a call of [`RequestDecoder::decode`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The buffer ends within the request.
    Incomplete {
        /// Bytes that the buffer must hold in all, at least, before another call can get any further.
        needed: usize,
    },
    /// A request is complete; [`RequestDecoder::request`] has it.
    Request {
        /// Bytes of the buffer that it took.
        len: usize,
    },
    /// A request without arguments (`*0`, `*-1`, a blank line): to be passed over without a reply.
    Skip {
        /// Bytes of the buffer that it took.
        len: usize,
    },
}

/// Finds the requests in the bytes of one client, one after the other.
#[derive(Default)]
pub struct RequestDecoder {
    stage: Stage,
    /// Offset of what `stage` is about: a line's first byte, or an argument's. All before it is done with.
    at: usize,
    /// If beyond `at`: up to here the line at `at` is known not to end.
    searched: usize,
    /// The arguments found so far.
    spans: Vec<Span>,
    /// Something other than CRLF stood where CRLF belongs, and was skipped.
    loose: bool,
    /// The completed request's length in the caller's buffer.
    len: usize,
    /// The completed request was a line of text.
    inline: bool,
    /// The completed request as an array with CRLF everywhere, if it didn't come as one; `spans` then point in here.
    rewritten: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// Before a request's first byte.
    #[default]
    Start,
    /// In an inline request's line.
    Inline,
    /// In the `*` line.
    Count,
    /// In a `$` line; with it, `owed > 0` arguments are to come.
    Length { owed: usize },
    /// In an argument of `len` bytes; with it, `owed > 0` arguments are to come.
    Argument { owed: usize, len: usize },
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

/// Progress without content: passwords pass through here.
impl fmt::Debug for RequestDecoder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = out.debug_struct("RequestDecoder");
        out.field("stage", &self.stage).field("at", &self.at).field("arguments", &self.spans.len());
        out.finish_non_exhaustive()
    }
}

impl RequestDecoder {
    /// A decoder before its client's first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for the end of the current request in `buf`.
    ///
    /// `buf` begins at the request's first byte. After [`Progress::Incomplete`] the next call must be given the same
    /// bytes again, and more behind them; after anything else the bytes behind that request. Bytes that an earlier call
    /// has seen are not looked at again. After an error there is nothing more to decode: the same call would repeat it.
    ///
    /// `limits` may change from one request to the next, as when AUTH succeeds.
    #[inline]
    pub fn decode(&mut self, buf: &[u8], limits: &Limits) -> Result<Progress, ProtocolError> {
        if let Stage::Start = self.stage {
            self.begin();
            if let Some(owed) = self.whole_count(buf, limits) {
                self.stage = Stage::Length { owed };
            }
        }
        loop {
            if let Stage::Length { owed } = self.stage {
                let owed = self.whole_arguments(buf, limits, owed);
                if owed == 0 {
                    return Ok(self.finish(buf));
                }
                self.stage = Stage::Length { owed };
            }
            if let Some(progress) = self.step(buf, limits)? {
                return Ok(progress);
            }
        }
    }

    /// The request that the last call of [`decode`](Self::decode) completed with [`Progress::Request`]; `buf` as then.
    #[inline]
    pub fn request<'a>(&'a self, buf: &'a [u8]) -> Request<'a> {
        let frame = if self.rewritten.is_empty() { &buf[..self.len] } else { &self.rewritten };
        Request { frame, spans: &self.spans, inline: self.inline }
    }

    /// Bytes of memory that the decoder holds beside the caller's buffer: mostly 16 for each argument of a request.
    pub fn allocated(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.rewritten.capacity()
    }

    #[inline]
    fn begin(&mut self) {
        self.at = 0;
        self.searched = 0;
        self.spans.clear();
        self.loose = false;
        self.len = 0;
        self.inline = false;
        self.rewritten.clear();
        if self.spans.capacity() > KEPT_SPANS {
            self.spans.shrink_to(KEPT_SPANS);
        }
        if self.rewritten.capacity() > KEPT_BYTES {
            self.rewritten.shrink_to(KEPT_BYTES);
        }
    }

    /// The number of arguments, if a usual `*` line lies wholly in `buf`.
    #[inline]
    fn whole_count(&mut self, buf: &[u8], limits: &Limits) -> Option<usize> {
        let (count, rest) = decimal::short_line(buf.strip_prefix(b"*")?)?;
        if count == 0 || !limits.allow_arguments(count) {
            return None;
        }
        self.at = buf.len() - rest.len();
        Some(count)
    }

    /// Takes the arguments at `at` that lie wholly in `buf` and are as usual. Returns how many are still owed.
    #[inline]
    fn whole_arguments(&mut self, buf: &[u8], limits: &Limits, mut owed: usize) -> usize {
        let mut rest = &buf[self.at..];
        while owed > 0 {
            let Some((argument, next)) = whole_argument(rest, limits) else {
                break;
            };
            // `argument` and `next` are the tail of `buf`, with a CRLF in between.
            let end = buf.len() - next.len() - 2;
            self.spans.push(Span { start: end - argument.len(), end });
            rest = next;
            owed -= 1;
        }
        self.at = buf.len() - rest.len();
        owed
    }

    /// Takes one more line or argument, by the book. `None`: done, go on.
    #[cold]
    fn step(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<Progress>, ProtocolError> {
        match self.stage {
            Stage::Start => {
                self.stage = match buf.first() {
                    None => return Ok(Some(Progress::Incomplete { needed: 1 })),
                    Some(b'*') => Stage::Count,
                    Some(_) => Stage::Inline,
                };
            }
            Stage::Inline => return self.inline_line(buf),
            Stage::Count => {
                let line = match self.header(buf, ProtocolError::TooBigMultibulkCount)? {
                    Header::Line(line) => line,
                    Header::CutOff { needed } => return Ok(Some(Progress::Incomplete { needed })),
                };
                let count = decimal::parse(&line[1..]).ok_or(ProtocolError::InvalidMultibulkLength)?;
                let owed = limits.check_arguments(count)?;
                self.end_header(buf, line.len());
                if owed == 0 {
                    self.stage = Stage::Start;
                    return Ok(Some(Progress::Skip { len: self.at }));
                }
                self.stage = Stage::Length { owed };
            }
            Stage::Length { owed } => {
                let line = match self.header(buf, ProtocolError::TooBigBulkCount)? {
                    Header::Line(line) => line,
                    Header::CutOff { needed } => return Ok(Some(Progress::Incomplete { needed })),
                };
                let len = match line {
                    [b'$', digits @ ..] => decimal::parse(digits).ok_or(ProtocolError::InvalidBulkLength)?,
                    _ => return Err(ProtocolError::ExpectedDollar(buf[self.at])),
                };
                let len = limits.check_bulk_len(len)?;
                self.end_header(buf, line.len());
                self.stage = Stage::Argument { owed, len };
            }
            Stage::Argument { owed, len } => {
                let needed = self.at.saturating_add(len).saturating_add(2);
                if buf.len() < needed {
                    return Ok(Some(Progress::Incomplete { needed }));
                }
                let end = self.at + len;
                self.spans.push(Span { start: self.at, end });
                self.loose |= &buf[end..needed] != b"\r\n";
                self.at = needed;
                if owed == 1 {
                    return Ok(Some(self.finish(buf)));
                }
                self.stage = Stage::Length { owed: owed - 1 };
            }
        }
        Ok(None)
    }

    /// The header line at `at`, up to its CR.
    fn header<'b>(&mut self, buf: &'b [u8], too_big: ProtocolError) -> Result<Header<'b>, ProtocolError> {
        let Some(end) = self.find_line_end(buf, b'\r', too_big)? else {
            return Ok(Header::CutOff { needed: self.needed_for_line(buf) });
        };
        // The byte behind the CR belongs to the line, but nobody looks which it is.
        if buf.len() < end + 2 {
            return Ok(Header::CutOff { needed: end + 2 });
        }
        Ok(Header::Line(&buf[self.at..end]))
    }

    fn end_header(&mut self, buf: &[u8], len: usize) {
        self.loose |= buf[self.at + len + 1] != b'\n';
        self.at += len + 2;
    }

    /// Offset of the `end` byte of the line at `at`, if it is there.
    ///
    /// Redis searches with `strchr`, which stops at a NUL: behind one no line ends any more, it only becomes too big.
    fn find_line_end(&mut self, buf: &[u8], end: u8, too_big: ProtocolError) -> Result<Option<usize>, ProtocolError> {
        let limit = self.at + MAX_LINE_LEN + 1;
        let searched = self.searched.max(self.at);
        let unseen = &buf[searched..buf.len().clamp(searched, limit.max(searched))];
        let found = memchr::memchr2(end, 0, unseen).map(|offset| searched + offset);
        match found {
            Some(offset) if buf[offset] == end => {
                self.searched = offset;
                Ok(Some(offset))
            }
            _ if buf.len() >= limit => Err(too_big),
            _ => {
                self.searched = found.unwrap_or(searched + unseen.len());
                Ok(None)
            }
        }
    }

    fn needed_for_line(&self, buf: &[u8]) -> usize {
        match buf.get(self.searched) {
            Some(0) => self.at + MAX_LINE_LEN + 1,
            _ => buf.len() + 1,
        }
    }

    fn inline_line(&mut self, buf: &[u8]) -> Result<Option<Progress>, ProtocolError> {
        let Some(newline) = self.find_line_end(buf, b'\n', ProtocolError::TooBigInlineRequest)? else {
            return Ok(Some(Progress::Incomplete { needed: self.needed_for_line(buf) }));
        };
        // A CR before the newline is a blank like any other.
        let arguments = inline::split(&buf[..newline]).ok_or(ProtocolError::UnbalancedQuotes)?;
        self.stage = Stage::Start;
        self.len = newline + 1;
        if arguments.is_empty() {
            return Ok(Some(Progress::Skip { len: self.len }));
        }
        self.inline = true;
        self.rewrite(arguments.iter());
        Ok(Some(Progress::Request { len: self.len }))
    }

    #[inline]
    fn finish(&mut self, buf: &[u8]) -> Progress {
        self.stage = Stage::Start;
        self.len = self.at;
        if self.loose {
            self.tighten(buf);
        }
        Progress::Request { len: self.len }
    }

    /// Rewrites a request that only passes because Redis doesn't look at line ends. What we send on must leave no
    /// room for a second reading: the connection it goes on is shared with other clients.
    #[cold]
    fn tighten(&mut self, buf: &[u8]) {
        let spans = std::mem::take(&mut self.spans);
        self.rewrite(spans.iter().map(|span| &buf[span.start..span.end]));
    }

    fn rewrite<'a>(&mut self, arguments: impl ExactSizeIterator<Item = &'a [u8]>) {
        encode::array_header(&mut self.rewritten, arguments.len());
        for argument in arguments {
            encode::bulk(&mut self.rewritten, argument);
            let end = self.rewritten.len() - 2;
            self.spans.push(Span { start: end - argument.len(), end });
        }
    }
}

enum Header<'b> {
    /// From its first byte up to its CR.
    Line(&'b [u8]),
    CutOff {
        needed: usize,
    },
}

/// The argument at the start of `rest` and what follows it, if it lies wholly in there and is as usual.
#[inline(always)]
fn whole_argument<'b>(rest: &'b [u8], limits: &Limits) -> Option<(&'b [u8], &'b [u8])> {
    let (len, rest) = decimal::short_line(rest.strip_prefix(b"$")?)?;
    if !limits.allow_bulk_len(len) {
        return None;
    }
    let (argument, rest) = rest.split_at_checked(len)?;
    Some((argument, rest.strip_prefix(b"\r\n")?))
}

/// A complete request: never without arguments, the first of which names the command.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    frame: &'a [u8],
    spans: &'a [Span],
    inline: bool,
}

impl<'a> Request<'a> {
    /// The request as an array of bulk strings, as it may go to a server: the client's own bytes, or if they were
    /// something else (an inline request, odd line ends) their meaning.
    #[inline]
    pub fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Whether the request came as a line of text.
    pub fn is_inline(&self) -> bool {
        self.inline
    }

    /// The number of arguments, the command's name included: at least 1.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a request is never empty")]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Argument `index`; 0 is the command's name.
    ///
    /// # Panics
    /// If there is no such argument.
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        let span = self.spans[index];
        &self.frame[span.start..span.end]
    }

    /// Argument `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| &self.frame[span.start..span.end])
    }

    /// The bytes of what follows argument `index`: bulk strings, each with its length, or nothing.
    ///
    /// # Panics
    /// If there is no such argument.
    #[inline]
    pub fn behind(&self, index: usize) -> &'a [u8] {
        &self.frame[self.spans[index].end + 2..]
    }

    /// The arguments, the command's name first.
    #[inline]
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + use<'a> {
        let frame = self.frame;
        self.spans.iter().map(move |span| &frame[span.start..span.end])
    }
}
