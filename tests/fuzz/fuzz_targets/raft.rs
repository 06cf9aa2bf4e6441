//! Bodies between peers, and what consensus keeps. The first byte chooses.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((which, rest)) = bytes.split_first() {
        let decoders = mcp_raft::decoders::ALL;
        (decoders[usize::from(*which) % decoders.len()].1)(rest);
    }
});
