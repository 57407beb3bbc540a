//! What it costs to find a request and its arguments in what a client sent.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nearside_resp::encode::command;
use nearside_resp::{Limits, Progress, RequestDecoder};

/// Requests in a buffer: what one read of a deep pipeline brings.
const PIPELINE: u64 = 64;

fn whole_requests(criterion: &mut Criterion) {
    let large = vec![b'v'; 16 << 10];
    let fields: Vec<Vec<u8>> = (0..32).map(|field| format!("field:{field}").into_bytes()).collect();
    let hmget: Vec<&[u8]> =
        [b"HMGET".as_slice(), b"hash"].into_iter().chain(fields.iter().map(Vec::as_slice)).collect();
    let requests: [(&str, Vec<u8>); 5] = [
        ("get", encoded(&[b"GET", b"key:000000000042"])),
        ("set_16b", encoded(&[b"SET", b"key:000000000042", b"0123456789abcdef"])),
        ("set_16k", encoded(&[b"SET", b"key:000000000042", &large])),
        ("hmget_32_fields", encoded(&hmget)),
        ("inline_get", b"GET key:000000000042\r\n".to_vec()),
    ];
    let mut group = criterion.benchmark_group("request_decode");
    group.throughput(Throughput::Elements(PIPELINE));
    for (name, request) in requests {
        let buffer = request.repeat(usize::try_from(PIPELINE).expect("a small number"));
        let mut decoder = RequestDecoder::new();
        group.bench_with_input(BenchmarkId::from_parameter(name), &buffer, |bencher, buffer| {
            bencher.iter(|| decode_all(&mut decoder, black_box(buffer)));
        });
    }
    group.finish();
}

/// Decodes every request in `buffer` and touches each one's name and key, as routing does.
fn decode_all(decoder: &mut RequestDecoder, buffer: &[u8]) {
    let limits = Limits::authenticated(Limits::DEFAULT_MAX_BULK_LEN);
    let mut rest = buffer;
    while !rest.is_empty() {
        let Ok(Progress::Request { len }) = decoder.decode(rest, &limits) else {
            panic!("the buffer holds whole requests");
        };
        let request = decoder.request(rest);
        black_box((request.arg(0), request.get(1)));
        rest = &rest[len..];
    }
}

fn encoded(arguments: &[&[u8]]) -> Vec<u8> {
    let mut request = Vec::new();
    command(&mut request, arguments);
    request
}

criterion_group!(benches, whole_requests);
criterion_main!(benches);
