//! The text of an audit segment.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("audit-00000000000000000001.jsonl");
    let _whole = mcp_gateway::audit::verify_text(path, bytes).is_ok();
    let _seq = mcp_gateway::audit::last_seq_of(path, bytes);
});
