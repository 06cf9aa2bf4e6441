//! What this package decodes, each as a function of bytes that anybody may have written: none may panic, or take memory that the
//! bytes do not have. The fuzz targets in `tests/fuzz` and a test here run the same functions.

use mcp_model::backup::{self, Check};
use mcp_model::command::{Envelope, Outcome};
use mcp_model::frame::{self, Framed};
use mcp_model::records::*;

use crate::{checked, log, rows, snapshot};

/// A decoder with its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 5] = [
    ("record", record),
    ("log", log::decode_anything),
    ("row", row),
    ("snapshot", a_snapshot),
    ("backup", a_backup),
];

macro_rules! each_kind {
    ($bytes:expr, $($kind:ty),+) => {
        $(a_frame::<$kind>($bytes);)+
    };
}

/// As a frame of every kind, and as the body of a frame whose checksum fits.
fn record(bytes: &[u8]) {
    each_kind!(
        bytes,
        Envelope,
        Outcome,
        ClusterRecord,
        User,
        Session,
        Project,
        Server,
        RbacDefinition,
        McpToken,
        Tombstone,
        ToolList,
        NodeRecord,
        Retirement,
        AuditRecord,
        Authority,
        SetupSecret,
        JoinToken,
        Enrolment,
        Group,
        ServiceAccount,
        Secret
    );
}

fn a_frame<T: Framed>(bytes: &[u8]) {
    let _as_it_is = frame::decode::<T>(bytes).is_ok();
    let [high, low] = T::VERSION.to_be_bytes();
    let mut framed = [&[1, T::KIND, high, low], bytes].concat();
    let crc = crc32c::crc32c(&framed).to_be_bytes();
    framed.extend_from_slice(&crc);
    if let Ok(value) = frame::decode::<T>(&framed) {
        let again = frame::encode(&value);
        assert!(
            frame::decode::<T>(&again).is_ok(),
            "what was decoded encodes to what decodes"
        );
    }
}

fn row(bytes: &[u8]) {
    let (key, value) = bytes.split_at(bytes.len() / 3);
    let _as_it_is = rows::row_value(key, value).is_ok();
    assert_eq!(rows::row_value(key, &checked::stamp(key, value)).ok(), Some(value));
}

fn a_snapshot(bytes: &[u8]) {
    let mut rows = 0_usize;
    let read = snapshot::read(bytes, |key, value| {
        rows += key.len() + value.len();
        Ok(())
    });
    assert!(
        rows <= bytes.len() && read.is_ok() <= (bytes.len() >= 40),
        "rows come from the bytes"
    );
}

/// A backup, as a command line checks it before it sends it. However it comes in pieces, it is judged alike; one that is taken has the head
/// that it says.
fn a_backup(bytes: &[u8]) {
    let judged = |size: usize| {
        let mut check = Check::default();
        for piece in bytes.chunks(size) {
            check.push(piece)?;
        }
        let head = check.head().map(<[u8]>::to_vec);
        check.finish().map(|header| (header, head))
    };
    let whole = judged(bytes.len().max(1));
    for size in [1, 13] {
        assert_eq!(judged(size).is_ok(), whole.is_ok(), "in pieces of {size}");
    }
    if let Ok((header, head)) = whole {
        assert_eq!(head.as_deref(), Some(&backup::head(&header)[..]));
    }
    let _header = backup::header(bytes).is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as chance gives them, bytes that were right and are altered, and both at many lengths.
    #[test]
    fn no_bytes_make_a_decoder_panic() {
        let mut state = 1_u64;
        let mut chance = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let user = User {
            id: mcp_model::ids::Id::from_u128(7),
            email: mcp_model::names::Email::parse("a@example.com").unwrap(),
            name: "A".to_owned(),
            password_hash: Some("hash".to_owned()),
            disabled: false,
            origin: Origin {
                created_ms: 1,
                created_by: "b".to_owned(),
                version: 2,
            },
        };
        let right = frame::encode(&user);
        for round in 0..4_000 {
            let mut bytes: Vec<u8> = match round % 3 {
                0 => (0..chance() % 200).map(|_| chance() as u8).collect(),
                1 => right[4..right.len() - 4].to_vec(),
                // Small numbers are what lengths and variants look like.
                _ => (0..chance() % 200).map(|_| (chance() % 24) as u8).collect(),
            };
            for _ in 0..chance() % 4 {
                if !bytes.is_empty() {
                    let at = chance() % bytes.len();
                    bytes[at] ^= 1 << (chance() % 8);
                }
            }
            for (_, decode) in ALL {
                decode(&bytes);
            }
        }
    }
}
