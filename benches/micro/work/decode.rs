//! Finding a request and its arguments in what a client sent.

use std::hint::black_box;

use nearside_resp::encode::command;
use nearside_resp::{Limits, Progress, RequestDecoder};

use super::{PIPELINE, Work};

pub fn work(case: &str) -> Work {
    let buffer = request(case).repeat(PIPELINE);
    let mut decoder = RequestDecoder::new();
    Box::new(move || decode_all(&mut decoder, black_box(&buffer)))
}

fn request(case: &str) -> Vec<u8> {
    match case {
        "get" => encoded(&[b"GET", b"key:000000000042"]),
        "set_16b" => encoded(&[b"SET", b"key:000000000042", b"0123456789abcdef"]),
        "set_16k" => encoded(&[b"SET", b"key:000000000042", &vec![b'v'; 16 << 10]]),
        "hmget_32_fields" => {
            let fields: Vec<Vec<u8>> = (0..32).map(|field| format!("field:{field}").into_bytes()).collect();
            let hmget = [b"HMGET".as_slice(), b"hash"].into_iter().chain(fields.iter().map(Vec::as_slice));
            encoded(&hmget.collect::<Vec<_>>())
        }
        "inline_get" => b"GET key:000000000042\r\n".to_vec(),
        _ => panic!("no such request: {case}"),
    }
}

/// Decodes every request in `buffer` and touches each one's name and key, as routing does.
fn decode_all(decoder: &mut RequestDecoder, buffer: &[u8]) -> usize {
    let limits = Limits::authenticated(Limits::DEFAULT_MAX_BULK_LEN);
    let (mut rest, mut touched) = (buffer, 0);
    while !rest.is_empty() {
        let Ok(Progress::Request { len }) = decoder.decode(rest, &limits) else {
            panic!("the buffer holds whole requests");
        };
        let request = decoder.request(rest);
        touched += request.arg(0).len() + request.get(1).map_or(0, <[u8]>::len);
        rest = &rest[len..];
    }
    touched
}

fn encoded(arguments: &[&[u8]]) -> Vec<u8> {
    let mut request = Vec::new();
    command(&mut request, arguments);
    request
}
