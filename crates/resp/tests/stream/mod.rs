//! A client's bytes through a decoder, delivered whole or in pieces.

use nearside_resp::{Limits, Progress, RequestDecoder};

/// What became of the next bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Request {
        arguments: Vec<Vec<u8>>,
        frame: Vec<u8>,
    },
    Skip {
        len: usize,
    },
    /// The last: with the reply to be given.
    Error {
        reply: Vec<u8>,
    },
    /// The last, if bytes were left over.
    Incomplete,
}

/// All that `bytes` hold, given at once.
pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Vec<Outcome> {
    decode_in_pieces(bytes, &[], limits)
}

/// The same with the decoder asked after each of the `cuts` (ascending), and then with all bytes.
pub(crate) fn decode_in_pieces(bytes: &[u8], cuts: &[usize], limits: &Limits) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut decoder = RequestDecoder::new();
    let mut start = 0;
    for &end in cuts.iter().chain([&bytes.len()]) {
        while start < end || end == bytes.len() {
            let buf = &bytes[start..end];
            match next(&mut decoder, buf, limits) {
                Next::Outcome(outcome, len) => {
                    outcomes.push(outcome);
                    start += len;
                }
                Next::End(outcome) => {
                    outcomes.push(outcome);
                    return outcomes;
                }
                Next::Wait { .. } => break,
            }
        }
    }
    if start < bytes.len() {
        outcomes.push(Outcome::Incomplete);
    }
    outcomes
}

/// The same with the decoder asked only when as many bytes are there as it needs.
pub(crate) fn decode_when_needed(bytes: &[u8], limits: &Limits) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut decoder = RequestDecoder::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match next(&mut decoder, &bytes[start..end], limits) {
            Next::Outcome(outcome, len) => {
                outcomes.push(outcome);
                start += len;
            }
            Next::End(outcome) => {
                outcomes.push(outcome);
                return outcomes;
            }
            Next::Wait { needed } if start + needed <= bytes.len() => end = start + needed,
            Next::Wait { .. } if start < bytes.len() => {
                outcomes.push(Outcome::Incomplete);
                return outcomes;
            }
            Next::Wait { .. } => return outcomes,
        }
    }
}

enum Next {
    Outcome(Outcome, usize),
    End(Outcome),
    Wait { needed: usize },
}

fn next(decoder: &mut RequestDecoder, buf: &[u8], limits: &Limits) -> Next {
    match decoder.decode(buf, limits) {
        Ok(Progress::Request { len }) => {
            let request = decoder.request(buf);
            let arguments: Vec<Vec<u8>> = request.args().map(<[u8]>::to_vec).collect();
            assert_eq!(request.len(), arguments.len());
            Next::Outcome(Outcome::Request { arguments, frame: request.frame().to_vec() }, len)
        }
        Ok(Progress::Skip { len }) => Next::Outcome(Outcome::Skip { len }, len),
        Ok(Progress::Incomplete { needed }) => {
            assert!(needed > buf.len(), "needs {needed}, has {}", buf.len());
            Next::Wait { needed }
        }
        Err(error) => {
            assert_eq!(decoder.decode(buf, limits), Err(error), "an error stays");
            let mut reply = Vec::new();
            error.append_reply(&mut reply);
            Next::End(Outcome::Error { reply })
        }
    }
}
