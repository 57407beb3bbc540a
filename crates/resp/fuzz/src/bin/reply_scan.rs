//! The reply scanner before any bytes: see [`nearside_resp_fuzz::reply_scan`].

#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nearside_resp_fuzz::reply_scan(data));

#[cfg(not(feature = "libfuzzer"))]
fn main() {
    nearside_resp_fuzz::replay(nearside_resp_fuzz::reply_scan);
}
