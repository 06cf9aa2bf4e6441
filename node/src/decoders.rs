//! What this package decodes, each as a function of bytes that anybody may have sent or written: none may panic. `tests/fuzz` runs
//! them, under libFuzzer and in `cargo test`.

use std::path::PathBuf;

use hyper::HeaderMap;
use hyper::header::HeaderValue;

use crate::config::Config;
use crate::founding::Founding;
use crate::framing::Framing;
use crate::identity::Identity;
use crate::{certs, join, proxies, stores, tls};

/// A decoder with its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 9] = [
    ("identity", identity),
    ("founding", founding),
    ("noted", noted),
    ("config", config),
    ("question", join::host::decode_question),
    ("request", request),
    ("answer", join::guest::decode_answer),
    ("forwarded", forwarded),
    ("framing", framing),
];

/// `node.json`: a badge that is taken says whose it is, and is written as what is read.
fn identity(bytes: &[u8]) {
    let path = PathBuf::from("node.json");
    if let Ok(identity) = Identity::read(&path, &String::from_utf8_lossy(bytes)) {
        let _whose = (identity.cluster().is_ok(), identity.node().is_ok());
        let written = serde_json::to_string(&identity).expect("a badge is plain data");
        assert!(Identity::read(&path, &written).is_ok());
    }
}

fn founding(bytes: &[u8]) {
    if let Ok(founding) = serde_json::from_slice::<Founding>(bytes) {
        let _parts = (
            founding.admin().is_ok(),
            founding.setup_hash().is_ok(),
            founding.authority().is_ok(),
        );
    }
}

/// What was noted of the other members.
fn noted(bytes: &[u8]) {
    let _members = stores::noted_in(bytes);
}

/// `mcpnode.toml`: settings, or every fault with its place.
fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = Config::of_text(PathBuf::from("/etc/mcpnode.toml"), &text) {
        assert!(!error.to_string().is_empty());
    }
}

/// Certificate requests, and certificates with their key.
fn request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _read = certs::read_request(&text).is_ok();
    tls::decode(bytes);
}

/// `X-Forwarded-For` of a proxy that is trusted. An address that nobody gave is the proxy's own.
fn forwarded(bytes: &[u8]) {
    let from = ([127, 0, 0, 1], 5).into();
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let trusted = ["127.0.0.0/8".parse().expect("a network")];
    let client = proxies::client(&trusted, from, &headers);
    assert!(!headers.is_empty() || client == from);
    assert_eq!(proxies::client(&[], from, &headers), from);
}

/// The bytes of a connection: however they arrive in pieces, they are good up to the same place, and end in the same state.
fn framing(bytes: &[u8]) {
    let followed = |size: usize| {
        let (mut framing, mut good) = (Framing::new(), 0);
        for piece in bytes.chunks(size) {
            if let Err(here) = framing.follow(piece) {
                return (good + here, None);
            }
            good += piece.len();
        }
        (good, Some(framing.amid_head()))
    };
    let whole = followed(bytes.len().max(1));
    for size in [1, 2, 7] {
        assert_eq!(followed(size), whole, "in pieces of {size}");
    }
}
