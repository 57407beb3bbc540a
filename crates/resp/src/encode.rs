//! What a proxy says itself: replies to a client in either protocol version, and requests to a server.
//!
//! Each function appends one value, or the header of one, to a buffer.

/// The version of the protocol that a connection speaks: HELLO chooses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Where each connection starts.
    #[default]
    Resp2,
    /// `HELLO 3`: maps, sets, nulls, doubles and pushes have types of their own.
    Resp3,
}

/// A simple string: `+OK`. Line breaks in `text` become spaces.
pub fn simple(out: &mut Vec<u8>, text: &[u8]) {
    line(out, b'+', text);
}

/// An error: `-ERR what happened`. The first word is the code that clients go by. Line breaks in `text` become spaces,
/// as Redis does it (`afterErrorReply`'s callers in `networking.c`).
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    line(out, b'-', text);
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, number: i64) {
    out.push(b':');
    decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

/// A bulk string.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The absence of a string.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The absence of an array.
pub fn null_array(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The header of an array; `len` values must follow.
pub fn array_header(out: &mut Vec<u8>, len: usize) {
    header(out, b'*', len);
}

/// The header of a map, in RESP2 of a flat array; `pairs` times a key and a value must follow.
pub fn map_header(out: &mut Vec<u8>, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs * 2),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// The header of a set, in RESP2 of an array; `len` values must follow.
pub fn set_header(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'~', len),
    }
}

/// The header of a push, in RESP2 of an array (as in pub/sub); `len` values must follow.
pub fn push_header(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'>', len),
    }
}

/// Text to be shown as it is, in RESP2 a bulk string.
pub fn verbatim_text(out: &mut Vec<u8>, protocol: Protocol, text: &[u8]) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            header(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A floating-point number, in RESP2 a bulk string: the fewest digits that read back as the same number.
pub fn double(out: &mut Vec<u8>, protocol: Protocol, number: f64) {
    let text = if number.is_nan() {
        "nan".to_owned()
    } else if number == 0.0 || (1e-5..1e17).contains(&number.abs()) {
        number.to_string()
    } else {
        format!("{number:e}")
    };
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => line(out, b',', text.as_bytes()),
    }
}

/// A truth value, in RESP2 1 or 0.
pub fn boolean(out: &mut Vec<u8>, protocol: Protocol, truth: bool) {
    out.extend_from_slice(match (protocol, truth) {
        (Protocol::Resp2, true) => b":1\r\n",
        (Protocol::Resp2, false) => b":0\r\n",
        (Protocol::Resp3, true) => b"#t\r\n",
        (Protocol::Resp3, false) => b"#f\r\n",
    });
}

/// A request: its command's name and arguments.
pub fn command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    array_header(out, arguments.len());
    for argument in arguments {
        bulk(out, argument);
    }
}

#[inline]
fn header(out: &mut Vec<u8>, type_byte: u8, len: usize) {
    out.push(type_byte);
    decimal(out, len);
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, type_byte: u8, text: &[u8]) {
    out.push(type_byte);
    out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn decimal(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
