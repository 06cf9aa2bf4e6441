//! What this package decodes, each as a function of bytes that anybody may have written: none may panic, or take memory that the
//! bytes do not have. The fuzz targets in `tests/fuzz` and a test here run the same functions.

use openraft::SnapshotMeta;
use openraft::error::{Fatal, Infallible, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use serde::de::DeserializeOwned;

use crate::doubt::Doubt;
use crate::machine::Applied;
use crate::readmit::{Lost, Readmit, Readmitted};
use crate::rpc::{Confirm, Digested, Index, PeerState, Renewal, Write, WriteAnswer};
use crate::types::{Entry, LogId, Peer, TypeConfig, Vote};
use mcp_model::barrier::Confirmed;

/// A decoder with its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 3] = [("peer", peer), ("stored", stored), ("lost", lost)];

fn postcard<T: DeserializeOwned>(bytes: &[u8]) {
    let _read = postcard::from_bytes::<T>(bytes).is_ok();
}

/// Bodies that peers send each other, requests and answers.
fn peer(bytes: &[u8]) {
    postcard::<AppendEntriesRequest<TypeConfig>>(bytes);
    postcard::<Result<AppendEntriesResponse<u64>, RaftError<u64, Infallible>>>(bytes);
    postcard::<VoteRequest<u64>>(bytes);
    postcard::<Result<VoteResponse<u64>, RaftError<u64, Infallible>>>(bytes);
    postcard::<(Vote, SnapshotMeta<u64, Peer>)>(bytes);
    postcard::<Result<SnapshotResponse<u64>, Fatal<u64>>>(bytes);
    postcard::<PeerState>(bytes);
    postcard::<Renewal>(bytes);
    postcard::<Index>(bytes);
    postcard::<Confirm>(bytes);
    postcard::<Confirmed>(bytes);
    postcard::<Write>(bytes);
    postcard::<WriteAnswer>(bytes);
    postcard::<Readmit>(bytes);
    postcard::<Readmitted>(bytes);
    postcard::<Digested>(bytes);
}

/// What consensus keeps in log and state.
fn stored(bytes: &[u8]) {
    postcard::<Entry>(bytes);
    postcard::<LogId>(bytes);
    postcard::<Option<LogId>>(bytes);
    postcard::<Vote>(bytes);
    postcard::<Applied>(bytes);
}

fn lost(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _read = Lost::read(&text, std::path::PathBuf::new());
    let _read = Doubt::read(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_a_decoder_panic() {
        let mut state = 1_u64;
        let mut chance = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for round in 0..20_000 {
            // Small numbers are what lengths and variants look like.
            let most = if round % 2 == 0 { 256 } else { 12 };
            let bytes: Vec<u8> = (0..chance() % 120).map(|_| (chance() % most) as u8).collect();
            for (_, decode) in ALL {
                decode(&bytes);
            }
        }
        for text in ["let go voter 7", "let go learner 7\n", "let go voter", "let go x 7", ""] {
            lost(text.as_bytes());
        }
    }

    /// What stands in logs for ever. A line that changes is a log that cannot be read.
    #[test]
    fn what_is_stored_keeps_its_bytes() {
        use openraft::{EntryPayload, LeaderId, Membership};

        use crate::types::Batch;
        fn hex(value: &impl serde::Serialize) -> String {
            let bytes = postcard::to_stdvec(value).unwrap();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        let id = LogId::new(LeaderId::new(7, 300), 70_000);
        let entry = |payload| Entry { log_id: id, payload };
        let peer = Peer {
            name: "n".to_owned(),
            address: "h:1".to_owned(),
        };
        let voters = [std::collections::BTreeSet::from([300_u64])].to_vec();
        let membership: Membership<u64, Peer> =
            Membership::new(voters, std::collections::BTreeMap::from([(300, peer)]));
        let rows = [
            (hex(&Some(id)), "0107ac02f0a204"),
            (hex(&Vote::new_committed(7, 300)), "07ac0201"),
            (hex(&entry(EntryPayload::Blank)), "07ac02f0a20400"),
            (
                hex(&entry(EntryPayload::Normal(Batch(vec![vec![1, 2], vec![]])))),
                "07ac02f0a204010202010200",
            ),
            (
                hex(&entry(EntryPayload::Membership(membership))),
                "07ac02f0a204020101ac0201ac02016e03683a31",
            ),
        ];
        for (now, golden) in &rows {
            assert_eq!(now, golden, "of {rows:?}");
        }
    }
}
