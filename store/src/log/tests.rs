//! Tales of the log, on real files; the disk that hangs or refuses is a real file behind a switch.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{LogError, LogRecord, Mark, Purged, RaftLog, Ticks, open, writer};
use crate::disk::Disk;
use crate::faults::{Faults, HOW, How, quick_dir};

const NO_CAP: usize = usize::MAX;
const PATIENCE: Duration = Duration::from_secs(20);

fn ticks() -> Ticks {
    let now = AtomicU64::new(0);
    Arc::new(move || now.fetch_add(1_000_000, Ordering::Relaxed))
}

fn record(index: u64) -> LogRecord {
    LogRecord {
        index,
        bytes: format!("record {index}").into_bytes(),
    }
}

fn records(range: std::ops::RangeInclusive<u64>) -> Vec<LogRecord> {
    range.map(record).collect()
}

/// A log on a disk that can be told to fail; both files stay at `path`.
fn log_on(faults: &Arc<Faults>, path: &Path) -> RaftLog {
    let opened = open::open_or_create(path, Disk::Faulty(Arc::clone(faults))).unwrap();
    RaftLog::start(opened, ticks(), writer::Order::Strict).unwrap()
}

fn log_on_a_faulty_disk() -> (RaftLog, Arc<Faults>, tempfile::TempDir) {
    let dir = quick_dir();
    let faults = Arc::new(Faults::default());
    let log = log_on(&faults, &dir.path().join("raft-log.redb"));
    (log, faults, dir)
}

/// Submits one write and returns where its verdict will arrive.
fn submit(write: impl FnOnce(super::Completion)) -> mpsc::Receiver<Result<(), LogError>> {
    let (tx, rx) = mpsc::channel();
    write(Box::new(move |result| tx.send(result).unwrap()));
    rx
}

fn wait(write: impl FnOnce(super::Completion)) -> Result<(), LogError> {
    submit(write).recv_timeout(PATIENCE).unwrap()
}

fn indexes(log: &RaftLog) -> Vec<u64> {
    log.read(0..u64::MAX, NO_CAP)
        .unwrap()
        .into_iter()
        .map(|record| record.index)
        .collect()
}

#[test]
fn what_was_completed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft-log.redb");
    let log = RaftLog::open_or_create(&path, ticks()).unwrap();
    wait(|done| log.append(records(0..=9), done)).unwrap();
    wait(|done| log.put_mark(Mark::Vote, b"vote".to_vec(), done)).unwrap();
    wait(|done| log.put_mark(Mark::Committed, b"committed".to_vec(), done)).unwrap();
    wait(|done| log.truncate(8, done)).unwrap();
    wait(|done| {
        log.purge(
            Purged {
                index: 2,
                bytes: b"two".to_vec(),
            },
            done,
        )
    })
    .unwrap();
    log.close();
    assert!(matches!(log.last(), Err(LogError::Closed)));

    let log = RaftLog::open_existing(&path, ticks()).unwrap();
    assert_eq!(log.read(0..100, NO_CAP).unwrap(), records(3..=7));
    assert_eq!(log.last().unwrap(), Some(record(7)));
    assert_eq!(log.mark(Mark::Vote).unwrap().as_deref(), Some(&b"vote"[..]));
    assert_eq!(log.mark(Mark::Committed).unwrap().as_deref(), Some(&b"committed"[..]));
    assert_eq!(
        log.purged().unwrap(),
        Some(Purged {
            index: 2,
            bytes: b"two".to_vec()
        })
    );
}

#[test]
fn a_read_stops_at_its_byte_cap_but_never_returns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open_or_create(&dir.path().join("log"), ticks()).unwrap();
    wait(|done| log.append(records(1..=5), done)).unwrap();
    let length = record(1).bytes.len();
    for (range, cap, expected) in [
        (1..6, 0, 1..=1),
        (1..6, length, 1..=1),
        (1..6, 2 * length, 1..=2),
        (1..6, 2 * length + 1, 1..=2),
        (2..4, NO_CAP, 2..=3),
    ] {
        assert_eq!(
            log.read(range.clone(), cap).unwrap(),
            records(expected),
            "{range:?} with cap {cap}"
        );
    }
    assert_eq!(log.read(6..9, NO_CAP).unwrap(), []);
    assert_eq!(log.read(3..3, NO_CAP).unwrap(), []);
}

#[test]
fn a_record_that_leaves_a_hole_is_refused_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open_or_create(&dir.path().join("log"), ticks()).unwrap();
    wait(|done| log.append(records(1..=3), done)).unwrap();
    for index in [5, 3, 1] {
        let refused = wait(|done| log.append(vec![record(index)], done));
        assert!(
            matches!(refused, Err(LogError::Gap { last: Some(3), .. })),
            "{index}: {refused:?}"
        );
    }
    wait(|done| log.append(vec![record(4)], done)).unwrap();
    wait(|done| {
        log.purge(
            Purged {
                index: 10,
                bytes: Vec::new(),
            },
            done,
        )
    })
    .unwrap();
    assert!(matches!(
        wait(|done| log.append(vec![record(5)], done)),
        Err(LogError::Gap {
            last: Some(10),
            index: 5
        })
    ));
    wait(|done| log.append(vec![record(11)], done)).unwrap();
    assert_eq!(indexes(&log), [11]);
    assert_eq!(log.health().failed, None);
}

#[test]
fn what_queues_up_behind_a_flush_shares_the_next_one() {
    let (log, faults, _dir) = log_on_a_faulty_disk();
    let before = log.health().flushes;
    faults.hang();
    let first = submit(|done| log.append(vec![record(1)], done));
    faults.wait_until_hanging();
    let behind: Vec<_> = (2..=200)
        .map(|index| submit(|done| log.append(vec![record(index)], done)))
        .collect();
    let bad = submit(|done| log.append(vec![record(999)], done));
    let after_bad = submit(|done| log.append(vec![record(201)], done));

    assert!(first.try_recv().is_err(), "completed before the flush");
    assert!(log.health().pending_flush_us > 0, "a hanging disk shows");
    faults.work();
    first.recv_timeout(PATIENCE).unwrap().unwrap();
    for verdict in behind {
        verdict.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    // The hole breaks up its batch, so the exact number of flushes is checked in the next round.
    assert!(matches!(bad.recv_timeout(PATIENCE).unwrap(), Err(LogError::Gap { .. })));
    after_bad.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(indexes(&log).len(), 201);
    assert!(log.health().flushes > before);

    let before = log.health().flushes;
    faults.hang();
    let first = submit(|done| log.append(vec![record(202)], done));
    faults.wait_until_hanging();
    let behind: Vec<_> = (203..=400)
        .map(|index| submit(|done| log.append(vec![record(index)], done)))
        .collect();
    faults.work();
    first.recv_timeout(PATIENCE).unwrap().unwrap();
    for verdict in behind {
        verdict.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(log.health().flushes, before + 2);
    assert_eq!(log.health().pending_flush_us, 0);
}

#[test]
fn a_write_that_the_disk_refuses_waits_until_it_takes_it_and_the_watchdog_hears_of_both() {
    for how in HOW {
        let (log, faults, dir) = log_on_a_faulty_disk();
        wait(|done| log.append(vec![record(1)], done)).unwrap();
        let mut failed = log.failed();
        assert_eq!(*failed.borrow_and_update(), None);

        faults.refuse_after(0, how);
        let second = submit(|done| log.append(vec![record(2)], done));
        let vote = submit(|done| log.put_mark(Mark::Vote, vec![1], done));
        until("the refusal is known", || failed.borrow().is_some());
        assert!(log.health().failed.is_some());
        assert!(
            second.try_recv().is_err() && vote.try_recv().is_err(),
            "{how:?}: too early"
        );

        faults.work();
        second.recv_timeout(PATIENCE).unwrap().unwrap();
        vote.recv_timeout(PATIENCE).unwrap().unwrap();
        until("the log is well again", || failed.borrow().is_none());
        assert_eq!(indexes(&log), [1, 2], "{how:?}");
        log.close();
        let log = RaftLog::open_existing(&dir.path().join("raft-log.redb"), ticks()).unwrap();
        assert_eq!(log.read(0..9, NO_CAP).unwrap(), records(1..=2));
        assert_eq!(log.mark(Mark::Vote).unwrap(), Some(vec![1]));
    }
}

#[test]
fn a_log_can_be_closed_while_the_disk_refuses() {
    let (log, faults, dir) = log_on_a_faulty_disk();
    wait(|done| log.append(vec![record(1)], done)).unwrap();
    faults.refuse_after(0, How::Full);
    let refused = submit(|done| log.append(vec![record(2)], done));
    let mut failed = log.failed();
    until("the refusal is known", || failed.borrow_and_update().is_some());
    log.close();
    assert!(matches!(
        refused.recv_timeout(PATIENCE).unwrap(),
        Err(LogError::Failed(_))
    ));
    let log = RaftLog::open_existing(&dir.path().join("raft-log.redb"), ticks()).unwrap();
    assert_eq!(indexes(&log), [1]);
}

/// Each operation of a scripted life of the log is refused in turn, in each way. Twice over: the process ends there and starts
/// again, and it goes on when the disk does. What was acknowledged is there, and nothing that was never written.
#[test]
fn whichever_operation_the_disk_refuses_nothing_acknowledged_is_missing() {
    let operations = {
        let (log, faults, _dir) = log_on_a_faulty_disk();
        faults.work();
        life(&log)
            .into_iter()
            .for_each(|verdict| verdict.recv().unwrap().unwrap());
        faults.done()
    };
    assert!(operations > 20, "the script touches the disk {operations} times only");
    for after in 0..operations {
        for how in HOW {
            a_life_that_ends(after, how);
            a_life_that_goes_on(after, how);
        }
    }
}

/// Appends, writes over, purges, and marks; one step after the other is acknowledged, until the disk refuses.
fn life(log: &RaftLog) -> Vec<mpsc::Receiver<Result<(), LogError>>> {
    let purged = Purged {
        index: 3,
        bytes: b"three".to_vec(),
    };
    let steps: [Box<dyn Fn(super::Completion)>; 8] = [
        Box::new(|done| log.append(records(1..=4), done)),
        Box::new(|done| log.put_mark(Mark::Vote, vec![7; 20], done)),
        Box::new(|done| log.append(big_records(5..=8), done)),
        Box::new(|done| log.truncate(7, done)),
        Box::new(|done| log.append(big_records(7..=9), done)),
        Box::new(|done| log.put_mark(Mark::Committed, vec![8; 20], done)),
        Box::new(|done| log.purge(purged.clone(), done)),
        Box::new(|done| log.append(records(10..=11), done)),
    ];
    let failed = log.failed();
    let steps = steps.iter().map(|step| {
        let verdict = submit(step);
        let (again, passed_on) = mpsc::channel();
        until("a verdict or a refusal", || match verdict.try_recv() {
            Ok(verdict) => again.send(verdict).is_ok(),
            Err(_) => failed.borrow().is_some(),
        });
        match passed_on.try_recv() {
            Ok(result) => submit(|done| done(result)),
            Err(_) => verdict,
        }
    });
    steps.collect()
}

fn big_records(range: std::ops::RangeInclusive<u64>) -> Vec<LogRecord> {
    let big = |index: u64| LogRecord {
        index,
        bytes: vec![index as u8; 9_000],
    };
    range.map(big).collect()
}

/// What the log must hold after so many steps of [`life`].
fn expect(steps: usize) -> Vec<u64> {
    match steps {
        0 => vec![],
        1 | 2 => (1..=4).collect(),
        3 => (1..=8).collect(),
        4 => (1..=6).collect(),
        5 | 6 => (1..=9).collect(),
        7 => (4..=9).collect(),
        _ => (4..=11).collect(),
    }
}

fn a_life_that_ends(after: u64, how: How) {
    let (log, faults, dir) = log_on_a_faulty_disk();
    faults.refuse_after(after, how);
    let verdicts = life(&log);
    let mut failed = log.failed();
    until("the disk has refused", || failed.borrow_and_update().is_some());
    log.close();
    let acknowledged = verdicts
        .iter()
        .take_while(|verdict| verdict.recv_timeout(PATIENCE).unwrap().is_ok())
        .count();
    let log = RaftLog::open_existing(&dir.path().join("raft-log.redb"), ticks()).unwrap();
    let found = indexes(&log);
    // Steps that share a transaction come together or not at all.
    let possible: Vec<Vec<u64>> = (acknowledged..=8).map(expect).collect();
    assert!(
        possible.contains(&found),
        "refused after {after} ({how:?}): {acknowledged} steps acknowledged, found {found:?}"
    );
    let vote = log.mark(Mark::Vote).unwrap();
    assert!(vote == Some(vec![7; 20]) || (vote.is_none() && acknowledged < 2));
    assert_eq!(
        log.purged().unwrap().map(|p| p.index),
        (!found.contains(&1) && found.len() > 3).then_some(3)
    );
}

fn a_life_that_goes_on(after: u64, how: How) {
    let (log, faults, dir) = log_on_a_faulty_disk();
    faults.refuse_after(after, how);
    let verdicts = life(&log);
    let mut failed = log.failed();
    until("the disk has refused", || failed.borrow_and_update().is_some());
    faults.work();
    for verdict in verdicts {
        verdict.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(indexes(&log), expect(8), "refused after {after} ({how:?})");
    log.close();
    let log = RaftLog::open_existing(&dir.path().join("raft-log.redb"), ticks()).unwrap();
    assert_eq!(indexes(&log), expect(8), "refused after {after} ({how:?}), reopened");
}

/// Waits for a condition that another thread brings about.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let (_never, pause) = mpsc::channel::<()>();
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        let _paused = pause.recv_timeout(Duration::from_millis(1));
    }
    panic!("{what}: not in time");
}

/// What kill -9 leaves behind, with a bit of the last transaction flipped: redb would come up with the transaction before.
#[test]
fn a_log_that_comes_up_shorter_than_what_it_acknowledged_is_refused() {
    let dir = quick_dir();
    let path = dir.path().join("raft-log.redb");
    let log = RaftLog::open_or_create(&path, ticks()).unwrap();
    for index in 1..=20 {
        wait(|done| log.append(big_records(index..=index), done)).unwrap();
    }
    let (crashed, acked) = (std::fs::read(&path).unwrap(), path.with_extension("acked"));
    let noted = std::fs::read(&acked).unwrap();
    log.close();
    let open_a_copy = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(&acked, &noted).unwrap();
        RaftLog::open_existing(&path, ticks())
    };
    assert_eq!(indexes(&open_a_copy(&crashed).unwrap()).len(), 20);
    let (mut lost, mut refused) = (0, 0);
    let used = crashed.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (0..=used).step_by(509) {
        let mut bad = crashed.clone();
        bad[at] ^= 0x40;
        match open_a_copy(&bad) {
            Ok(log) => assert_eq!(log.read(0..99, NO_CAP).unwrap(), big_records(1..=20), "byte {at}"),
            Err(LogError::Corrupt(why)) if why.contains("acknowledged") => lost += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(lost > 0 && refused > 0, "{lost} fell back, {refused} refused");
}

#[test]
fn a_node_that_had_data_does_not_start_with_a_new_log() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let empty = dir.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    let other = dir.path().join("other");
    drop(redb::Database::create(&other).unwrap());
    let junk = dir.path().join("junk");
    std::fs::write(&junk, vec![7_u8; 100_000]).unwrap();

    for path in [&gone, &empty, &other] {
        let refused = RaftLog::open_existing(path, ticks()).map(drop);
        assert!(
            matches!(refused, Err(LogError::Missing { .. })),
            "{path:?}: {refused:?}"
        );
    }
    RaftLog::open_existing(&junk, ticks()).map(drop).unwrap_err();
    RaftLog::open_or_create(&junk, ticks()).map(drop).unwrap_err();
    assert!(!gone.exists());
}

/// Flips one byte at a time all over the file. Each time the log either refuses to open, refuses to read, or returns
/// exactly what was written: never something else.
#[test]
fn a_flipped_bit_never_becomes_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = RaftLog::open_or_create(&path, ticks()).unwrap();
    let written: Vec<_> = (1..=40)
        .map(|index| LogRecord {
            index,
            bytes: vec![index as u8; 700],
        })
        .collect();
    wait(|done| log.append(written.clone(), done)).unwrap();
    wait(|done| log.put_mark(Mark::Vote, vec![9; 64], done)).unwrap();
    log.close();
    let good = std::fs::read(&path).unwrap();

    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    let mut found = 0;
    for at in (0..=used).step_by(used / 150) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let bad_path = dir.path().join("bad");
        std::fs::write(&bad_path, &bad).unwrap();
        let Ok(log) = RaftLog::open_existing(&bad_path, ticks()) else {
            found += 1;
            continue;
        };
        match log.read(0..100, NO_CAP) {
            Ok(records) => assert_eq!(records, written, "byte {at}"),
            Err(_) => found += 1,
        }
        if let Ok(vote) = log.mark(Mark::Vote) {
            assert_eq!(vote, Some(vec![9; 64]), "byte {at}");
        }
        log.close();
    }
    assert!(found > 10, "the flips hit live data only {found} times");
}
