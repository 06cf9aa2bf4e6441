//! The audit on a disk that refuses operation n, for every n: what was acknowledged is there, the failure is said, it goes on.

use std::collections::BTreeSet;
use std::path::Path;

use super::chain::{files, verify};
use super::disk::faults::{Arrived, done, refuse};
use super::line::{Line, Members};
use super::segment::{AuditError, Segments, When};

const ARRIVED: [Arrived; 3] = [Arrived::Nothing, Arrived::Half, Arrived::All];
/// Records of a run.
const RECORDS: usize = 20;
/// Tries of a run that are enough for every fault in it.
const TRIES: usize = 60;

struct Call;

impl Members for Call {
    fn write(&self, line: &mut Line<'_>) {
        line.text("tool", "x");
    }
}

/// What is done when the audit has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Retry,
    Restart,
}

fn open(dir: &Path) -> Option<Segments> {
    // Two or three records to a segment, so that most kinds of operations happen in a run.
    Segments::open(dir, "n", 400, 1 << 20).ok()
}

/// Writes records, whatever the disk says, and gives the numbers of those that were acknowledged.
fn run(dir: &Path, then: Then, why: &str) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    let mut segments = None;
    for _ in 0..TRIES {
        if acknowledged.len() == RECORDS {
            drop(segments);
            return acknowledged;
        }
        let Some(audit) = segments.take().or_else(|| open(dir)) else {
            continue;
        };
        if acknowledged.len() % 3 == 1 {
            // One that waits: with the next write, or after the failure.
            let _waits = audit.append(7, &Call, When::Soon);
        }
        match audit.append(7, &Call, When::Now) {
            Ok(seq) => assert!(acknowledged.insert(seq), "{why}: number {seq} was given twice"),
            Err(_) => {
                // It says so, to whoever comes next as well, and nothing is acknowledged until it is whole again.
                for when in [When::Now, When::Soon] {
                    let next = audit.append(7, &Call, when);
                    assert!(matches!(next, Err(AuditError::Failed(_))), "{why}: {next:?}");
                }
                match then {
                    Then::Restart => continue,
                    Then::Retry => assert!((0..TRIES).any(|_| audit.retry().is_ok()), "{why}: it never recovers"),
                }
            }
        }
        segments = Some(audit);
    }
    panic!("{why}: it does not go on");
}

fn numbers(dir: &Path) -> Vec<u64> {
    let texts = files(dir)
        .unwrap()
        .into_iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    let of_text = |text: String| -> Vec<u64> {
        let records = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.map(|record| record["seq"].as_u64().unwrap()).collect()
    };
    texts.flat_map(of_text).collect()
}

/// One run on a disk that refuses these operations.
fn check(refused: &[u64], arrived: Arrived, then: Then) -> u64 {
    let why = format!("operations {refused:?} refused, {arrived:?} of a write arrived, then {then:?}");
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    refuse(refused.iter().copied(), arrived);
    let acknowledged = run(dir.path(), then, &why);
    let operations = done();
    refuse([], Arrived::Nothing);
    let found = numbers(dir.path());
    let once: BTreeSet<u64> = found.iter().copied().collect();
    assert_eq!(once.len(), found.len(), "{why}: a record is there twice: {found:?}");
    let missing: Vec<_> = acknowledged.difference(&once).collect();
    assert!(missing.is_empty(), "{why}: acknowledged and not there: {missing:?}");
    let verified = verify(dir.path()).unwrap_or_else(|error| panic!("{why}: {error}"));
    assert_eq!(verified.records, found.len() as u64, "{why}");
    // The next start finds all of it, and goes on.
    let seq = open(dir.path()).unwrap().append(7, &Call, When::Now).unwrap();
    assert_eq!(Some(&(seq - 1)), once.last(), "{why}");
    verify(dir.path()).unwrap_or_else(|error| panic!("{why}, and after the next start: {error}"));
    operations
}

#[test]
fn whatever_operation_the_disk_refuses_no_acknowledged_record_is_missing() {
    let operations = check(&[], Arrived::Nothing, Then::Retry);
    assert!(operations > 30, "{operations}");
    let mut runs = 0;
    for arrived in ARRIVED {
        for then in [Then::Retry, Then::Restart] {
            for n in 1..=operations {
                check(&[n], arrived, then);
                // And once more a little later: while it is being mended, or soon after.
                for later in 1..=8 {
                    check(&[n, n + later], arrived, then);
                    runs += 1;
                }
                // And for a while.
                check(&[n, n + 1, n + 2, n + 3], arrived, then);
                runs += 2;
            }
        }
    }
    // What mends it is refused at each of its steps, and then what comes after it.
    for n in 1..=operations {
        for (later, last) in (1..=8).flat_map(|later| (1..=10).map(move |last| (later, last))) {
            check(&[n, n + later, n + later + last], Arrived::Half, Then::Retry);
            runs += 1;
        }
    }
    println!("{runs} runs on a disk that refuses");
}
