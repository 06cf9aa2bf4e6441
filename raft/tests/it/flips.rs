//! Bits that flip and files that end too early, anywhere in a node's stores: found when they are opened, or without effect.
//!
//! 200 of them, or as many as `MCP_FLIPS` says (the long run has 2000). A seed is printed with what fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_model::command::Actor;
use mcp_model::ids::NodeId;
use mcp_model::token::TokenHash;
use mcp_raft::recover::{self, LOG_FILE, Opened, Opening};
use mcp_raft::{Member, WaitFor};
use mcp_store::log::{LogRecord, Mark, RaftLog};
use mcp_store::{Replica, ReplicaOptions};

use crate::cluster::{ADMIN, Cluster, issue};

/// Tokens that are minted.
const TOKENS: u8 = 130;

/// What a node's stores hold when they are whole.
struct Whole {
    records: Vec<LogRecord>,
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
    index: u64,
}

fn opening(dir: &Path, others: bool) -> Opening {
    let other = Member {
        id: NodeId(9),
        name: "other".to_owned(),
        address: "127.0.0.1:1".to_owned(),
    };
    Opening {
        dir: dir.to_owned(),
        had_data: true,
        lease_ms: 2_000,
        me: NodeId(1),
        known: others.then_some(other).into_iter().collect(),
        now_ms: 1,
        random: Arc::new(|| 1),
        ticks: Arc::new(|| 0),
    }
}

fn tokens_of(replica: &Replica) -> BTreeSet<u8> {
    let known = |token: &u8| replica.view().token(&TokenHash([*token; 32])).is_some();
    (1..=u8::MAX).filter(known).collect()
}

fn all_of(log: &RaftLog) -> Vec<LogRecord> {
    log.read(0..u64::MAX, usize::MAX).unwrap()
}

/// The stores of a node that has a snapshot, a purged log, and a few entries behind both. As kill -9 leaves them, or closed.
async fn stores(closed: bool) -> (tempfile::TempDir, Whole) {
    let mut cluster = Cluster::of(1).await;
    for token in 1..=TOKENS {
        cluster
            .write(0, Actor::User(ADMIN), issue(token), WaitFor::Committed)
            .await;
    }
    cluster
        .until("a snapshot, and a log that begins behind it", |c| {
            let purged = c.sites[0].node().log_health().flushes > 0;
            purged && snapshots(c.sites[0].dir()).len() == 1
        })
        .await;
    let copy = tempfile::tempdir().unwrap();
    if closed {
        cluster.stop(0).await;
    }
    copy_stores(cluster.sites[0].dir(), copy.path());
    if !closed {
        cluster.stop(0).await;
    }
    let kept = tempfile::tempdir().unwrap();
    copy_stores(copy.path(), kept.path());
    let log = RaftLog::open_existing(&copy.path().join(LOG_FILE), Arc::new(|| 0)).unwrap();
    let options = ReplicaOptions {
        lease_ms: 2_000,
        had_data: true,
        random: Arc::new(|| 1),
    };
    let replica = Replica::open(copy.path(), options).unwrap();
    let whole = Whole {
        records: all_of(&log),
        vote: log.mark(Mark::Vote).unwrap(),
        committed: log.mark(Mark::Committed).unwrap(),
        index: replica.auth_index(),
    };
    log.close();
    (kept, whole)
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("snapshots")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "snap"))
        .collect()
}

fn copy_stores(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("snapshots")).unwrap();
    let files = [LOG_FILE, "raft-log.acked", "state.redb"].map(|name| from.join(name));
    for file in files.into_iter().chain(snapshots(from)) {
        std::fs::copy(&file, to.join(file.strip_prefix(from).unwrap())).unwrap();
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

/// Flips a bit of what is in use, or cuts the file; says what it did.
fn damage(path: &Path, chance: &mut Chance) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    if chance.below(4) == 0 {
        let length = chance.below(bytes.len());
        bytes.truncate(length);
        std::fs::write(path, bytes).unwrap();
        return format!("{name} cut to {length} bytes");
    }
    // Every other flip in the first kilobyte: there the two commit slots lie.
    let within = if chance.below(2) == 0 { used.min(1_024) } else { used };
    let (at, bit) = (chance.below(within), chance.below(8));
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
    format!("{name} byte {at} bit {bit}")
}

#[derive(Default, Debug)]
struct Found {
    without_effect: usize,
    state_rebuilt: usize,
    log_lost: usize,
    alone: usize,
}

fn check(dir: &Path, whole: &Whole, others: bool, said: &str, found: &mut Found) {
    let aside = |file: &str| dir.join(format!("{file}.corrupt-1")).exists();
    match recover::open(opening(dir, others)) {
        Ok(Opened::Whole(opened)) => {
            assert_eq!(all_of(&opened.log), whole.records, "{said}");
            assert_eq!(opened.log.mark(Mark::Vote).unwrap(), whole.vote, "{said}");
            assert_eq!(opened.log.mark(Mark::Committed).unwrap(), whole.committed, "{said}");
            let (index, purged) = (opened.replica.auth_index(), opened.log.purged().unwrap());
            assert!(index <= whole.index.max(whole.records.last().unwrap().index), "{said}");
            assert!(
                index >= purged.map_or(0, |p| p.index),
                "{said}: a hole between state and log"
            );
            // Tokens were minted in order: what is there is a beginning, and the log holds the rest.
            let tokens = tokens_of(&opened.replica);
            assert_eq!(tokens, (1..=tokens.len() as u8).collect(), "{said}");
            let behind = whole.records.iter().filter(|record| record.index > index).count();
            assert!(
                tokens.len() + behind >= usize::from(TOKENS),
                "{said}: {tokens:?} and {behind} entries"
            );
            if aside("state.redb") {
                found.state_rebuilt += 1;
            } else {
                found.without_effect += 1;
            }
            opened.log.close();
        }
        Ok(Opened::LogLost(lost)) => {
            assert!(others, "{said}");
            assert!(
                aside(LOG_FILE) && dir.join("raft-log.lost").exists(),
                "{said}: {}",
                lost.why
            );
            found.log_lost += 1;
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!others && text.contains("restore"), "{said}: {text}");
            assert!(!aside(LOG_FILE), "{said}: nothing may be changed");
            found.alone += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flipped_bit_and_no_cut_makes_a_store_tell_something_else() {
    let flips: usize = std::env::var("MCP_FLIPS").map_or(200, |n| n.parse().expect("MCP_FLIPS is a number"));
    let mut found = Found::default();
    for closed in [true, false] {
        let (good, whole) = stores(closed).await;
        assert!(
            !whole.records.is_empty() && whole.records[0].index > 1,
            "the log was purged"
        );
        let mut files = vec![good.path().join(LOG_FILE), good.path().join("state.redb")];
        files.extend(snapshots(good.path()));
        files.push(good.path().join("raft-log.acked"));
        for round in 0..flips / 2 {
            let seed = (round * 2 + usize::from(closed)) as u64;
            let mut chance = Chance(seed);
            let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
            copy_stores(good.path(), dir.path());
            // The log most often, the state next.
            let file = &files[[0, 0, 0, 1, 1, 2, 3][chance.below(7)]];
            let said = damage(&dir.path().join(file.strip_prefix(good.path()).unwrap()), &mut chance);
            let others = round % 3 > 0;
            let said = format!("seed {seed}, closed {closed}, others {others}: {said}");
            check(dir.path(), &whole, others, &said, &mut found);
        }
    }
    println!("{flips} flips and cuts: {found:?}");
    assert!(
        found.log_lost > 0 && found.state_rebuilt > 0 && found.alone > 0,
        "{found:?}"
    );
}
