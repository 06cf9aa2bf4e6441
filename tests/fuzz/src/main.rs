//! One decoder under libFuzzer: the one that `DECODER` names. See `tests/fuzz/run`.
#![no_main]

use std::sync::OnceLock;

static DECODE: OnceLock<mcp_fuzz::Decode> = OnceLock::new();

fn chosen() -> mcp_fuzz::Decode {
    let name = std::env::var("DECODER").unwrap_or_default();
    mcp_fuzz::named(&name).unwrap_or_else(|| {
        let all: Vec<String> = mcp_fuzz::all().into_iter().map(|(name, _)| name).collect();
        panic!("DECODER={name:?} is none of {}", all.join(" "))
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    DECODE.get_or_init(chosen)(bytes);
});
