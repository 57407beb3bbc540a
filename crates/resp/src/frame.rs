//! Replies as values, for the few whose content matters to the proxy itself (HELLO, COMMAND INFO, pushes) and for tests.
//!
//! The parsing is `redis-protocol`'s, and this is the only module that knows that crate. It is not for the hot path; and
//! since it recurses and allocates by what a header announces, it only gets what [`ReplyScanner`] found to be one whole
//! reply of moderate depth.

use redis_protocol::error::RedisProtocolError;
use redis_protocol::{resp2, resp3};

use crate::{ReplyScanner, decimal};

/// Replies nested deeper are refused, as the parsing recurses. What Redis answers to the proxy stays below 10.
pub const MAX_DEPTH: usize = 32;

/// One reply. RESP2 and RESP3 share the types they have in common; both of RESP2's nulls are [`Value::Null`].
/// Attributes are left out.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are RESP's own")]
pub enum Value {
    Simple(Vec<u8>),
    /// The text behind the `-`, or the content of a blob error.
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Double(f64),
    Boolean(bool),
    BigNumber(Vec<u8>),
    /// The text without its three-letter format.
    Verbatim(Vec<u8>),
    Array(Vec<Value>),
    /// In no particular order.
    Map(Vec<(Value, Value)>),
    /// In no particular order.
    Set(Vec<Value>),
    Push(Vec<Value>),
}

/// The bytes are no reply, or not exactly one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one complete reply: {0}")]
pub struct ParseError(String);

/// The cluster slot of `key`: of its hash tag, if it has one.
pub fn key_slot(key: &[u8]) -> u16 {
    redis_protocol::redis_keyslot(key)
}

/// The one complete reply that `bytes` are, RESP2 or RESP3.
pub fn parse(bytes: &[u8]) -> Result<Value, ParseError> {
    check_shape(bytes)?;
    // `$-1` is a streamed string to the RESP3 decoder; RESP3's own types are unknown to the RESP2 one.
    parse_resp3(bytes).or_else(|error| parse_resp2(bytes).map_err(|_| error))
}

fn parse_resp3(bytes: &[u8]) -> Result<Value, ParseError> {
    let decoded = resp3::decode::complete::decode_range(bytes)?;
    let (frame, _) = decoded.filter(|(_, len)| *len == bytes.len()).ok_or_else(other_end)?;
    from_resp3(bytes, frame)
}

fn parse_resp2(bytes: &[u8]) -> Result<Value, ParseError> {
    let decoded = resp2::decode::decode_range(bytes)?;
    let (frame, _) = decoded.filter(|(_, len)| *len == bytes.len()).ok_or_else(other_end)?;
    Ok(from_resp2(bytes, frame))
}

/// Lets through one whole reply, nested no deeper than [`MAX_DEPTH`]: what `redis-protocol` can then recurse into.
fn check_shape(bytes: &[u8]) -> Result<(), ParseError> {
    match ReplyScanner::new().scan(bytes) {
        Err(error) => return Err(ParseError(error.to_string())),
        Ok(scanned) if !scanned.complete => return Err(ParseError("it is cut off".to_owned())),
        Ok(scanned) if scanned.consumed < bytes.len() => {
            return Err(ParseError("something follows it".to_owned()));
        }
        Ok(_) => {}
    }
    // How many values are still to come on each level, down to the one that `rest` begins with.
    let mut owed = vec![1];
    let mut rest = bytes;
    while let Some(level) = owed.last_mut() {
        if *level == 0 {
            owed.pop();
            continue;
        }
        *level -= 1;
        if let Some((children, after)) = aggregate_header(rest) {
            if owed.len() > MAX_DEPTH {
                return Err(ParseError(format!("it is nested deeper than {MAX_DEPTH}")));
            }
            owed.push(children);
            rest = after;
        } else {
            let scalar = ReplyScanner::new().scan(rest).map_err(|error| ParseError(error.to_string()))?;
            rest = &rest[scalar.consumed..];
        }
    }
    Ok(())
}

/// How many values an aggregate holds and what follows its header. An attribute counts as holding its value as well.
fn aggregate_header(rest: &[u8]) -> Option<(usize, &[u8])> {
    let (type_byte, line) = rest.split_first()?;
    let children: fn(usize) -> usize = match type_byte {
        b'*' | b'~' | b'>' => |len| len,
        b'%' => |pairs| pairs * 2,
        b'|' => |pairs| pairs * 2 + 1,
        _ => return None,
    };
    decimal::short_line(line).map(|(len, after)| (children(len), after))
}

fn other_end() -> ParseError {
    ParseError("redis-protocol sees its end elsewhere".to_owned())
}

impl From<RedisProtocolError> for ParseError {
    fn from(error: RedisProtocolError) -> Self {
        Self(error.to_string())
    }
}

fn from_resp2(bytes: &[u8], frame: resp2::types::RangeFrame) -> Value {
    use resp2::types::RangeFrame;
    let text = |(start, end): (usize, usize)| bytes[start..end].to_vec();
    match frame {
        RangeFrame::SimpleString(range) => Value::Simple(text(range)),
        RangeFrame::Error(range) => Value::Error(text(range)),
        RangeFrame::Integer(number) => Value::Integer(number),
        RangeFrame::BulkString(range) => Value::Bulk(text(range)),
        RangeFrame::Array(items) => Value::Array(items.into_iter().map(|item| from_resp2(bytes, item)).collect()),
        RangeFrame::Null => Value::Null,
    }
}

fn from_resp3(bytes: &[u8], frame: resp3::types::RangeFrame) -> Result<Value, ParseError> {
    use resp3::types::RangeFrame;
    let text = |(start, end): (usize, usize)| bytes[start..end].to_vec();
    let value = |frame| from_resp3(bytes, frame);
    Ok(match frame {
        RangeFrame::SimpleString { data, .. } => Value::Simple(text(data)),
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => Value::Error(text(data)),
        RangeFrame::Number { data, .. } => Value::Integer(data),
        RangeFrame::BlobString { data, .. } => Value::Bulk(text(data)),
        RangeFrame::Null => Value::Null,
        RangeFrame::Double { data, .. } => Value::Double(data),
        RangeFrame::Boolean { data, .. } => Value::Boolean(data),
        RangeFrame::BigNumber { data, .. } => Value::BigNumber(text(data)),
        RangeFrame::VerbatimString { data, .. } => Value::Verbatim(text(data)),
        RangeFrame::Array { data, .. } => Value::Array(data.into_iter().map(value).collect::<Result<_, _>>()?),
        RangeFrame::Push { data, .. } => Value::Push(data.into_iter().map(value).collect::<Result<_, _>>()?),
        RangeFrame::Set { data, .. } => Value::Set(data.into_iter().map(value).collect::<Result<_, _>>()?),
        RangeFrame::Map { data, .. } => Value::Map(
            data.into_iter().map(|(key, item)| Ok((value(key)?, value(item)?))).collect::<Result<_, ParseError>>()?,
        ),
        RangeFrame::Hello { .. } | RangeFrame::ChunkedString(_) => {
            return Err(ParseError("not a reply of Redis".to_owned()));
        }
    })
}

impl Value {
    /// The bytes of a simple, bulk or verbatim string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) | Self::Verbatim(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number of an integer.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The text of an error, its code first.
    pub fn as_error(&self) -> Option<&[u8]> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of an array, set or push.
    pub fn as_items(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => Some(items),
            _ => None,
        }
    }

    /// What the string `key` stands for in a map, or in the flat array that is a map in RESP2.
    pub fn field(&self, key: &[u8]) -> Option<&Value> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(name, _)| name.as_bytes() == Some(key)).map(|(_, value)| value),
            Self::Array(items) => {
                items.as_chunks().0.iter().find_map(|[name, value]| (name.as_bytes() == Some(key)).then_some(value))
            }
            _ => None,
        }
    }
}
