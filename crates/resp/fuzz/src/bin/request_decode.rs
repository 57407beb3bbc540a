//! The request decoder before any bytes: see [`nearside_resp_fuzz::request_decode`].

#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nearside_resp_fuzz::request_decode(data));

#[cfg(not(feature = "libfuzzer"))]
fn main() {
    nearside_resp_fuzz::replay(nearside_resp_fuzz::request_decode);
}
