//! Tales of the log, on real files; the disk that hangs or fails is a real file behind a switch.

mod disk;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use disk::Switch;

use super::{LogError, LogRecord, Mark, Purged, RaftLog, Ticks};

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
    let (log, switch, _dir) = disk::log_on_a_switchable_disk(ticks());
    let before = log.health().flushes;
    switch.set(Switch::HANG);
    let first = submit(|done| log.append(vec![record(1)], done));
    switch.wait_until_hanging();
    let behind: Vec<_> = (2..=200)
        .map(|index| submit(|done| log.append(vec![record(index)], done)))
        .collect();
    let bad = submit(|done| log.append(vec![record(999)], done));
    let after_bad = submit(|done| log.append(vec![record(201)], done));

    assert!(first.try_recv().is_err(), "completed before the flush");
    assert!(log.health().pending_flush_us > 0, "a hanging disk shows");
    switch.set(Switch::WORK);
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
    switch.set(Switch::HANG);
    let first = submit(|done| log.append(vec![record(202)], done));
    switch.wait_until_hanging();
    let behind: Vec<_> = (203..=400)
        .map(|index| submit(|done| log.append(vec![record(index)], done)))
        .collect();
    switch.set(Switch::WORK);
    first.recv_timeout(PATIENCE).unwrap().unwrap();
    for verdict in behind {
        verdict.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(log.health().flushes, before + 2);
    assert_eq!(log.health().pending_flush_us, 0);
}

#[test]
fn a_failed_write_is_final_and_the_watchdog_hears_of_it() {
    let (log, switch, _dir) = disk::log_on_a_switchable_disk(ticks());
    wait(|done| log.append(vec![record(1)], done)).unwrap();
    let failed = log.failed();
    assert_eq!(*failed.borrow(), None);

    switch.set(Switch::FAIL);
    assert!(matches!(
        wait(|done| log.append(vec![record(2)], done)),
        Err(LogError::Failed(_))
    ));
    switch.set(Switch::WORK);
    assert!(matches!(
        wait(|done| log.append(vec![record(2)], done)),
        Err(LogError::Failed(_))
    ));
    assert!(matches!(
        wait(|done| log.put_mark(Mark::Vote, vec![1], done)),
        Err(LogError::Failed(_))
    ));
    assert!(failed.has_changed().unwrap());
    assert!(failed.borrow().is_some());
    assert!(log.health().failed.is_some());
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
