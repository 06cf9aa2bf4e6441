//! The files of the audit: one JSON object per line, each ending with the hash of itself and its predecessor. A changed,
//! missing or swapped line breaks the chain from there on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain::{CHAIN, chained, continue_in, files, hex, segment_path};
use super::disk;
use super::line::{self, Members};

/// Room that a buffer of waiting records begins with.
const BUFFER_BYTES: usize = 8 << 10;
/// Room that one record is given to begin with.
const RECORD_BYTES: usize = 512;

/// The audit cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// It said no before.
    #[error("the audit failed earlier: {0}")]
    Failed(String),
    /// A line does not fit to the one before it.
    #[error("{}: the chain breaks at line {line}", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// The segments of one directory. Two locks, taken in this order where both are: `file` while records go to the disk, `line` for
/// the moments in which one is chained to the last. So a thread that writes holds nobody up who only has something to say, and
/// one `write(2)` takes along whatever others have said meanwhile.
pub(super) struct Segments {
    dir: PathBuf,
    segment_bytes: u64,
    bytes_max: u64,
    /// What stands between the time of a record and its number: the name of the node.
    node: String,
    line: Mutex<Line>,
    file: Mutex<Written>,
}

/// Records in their order, not written yet.
struct Line {
    chain: [u8; 32],
    /// Number of the next record.
    seq: u64,
    /// Number of the first record in `waiting`.
    first: u64,
    /// Whole lines.
    waiting: Vec<u8>,
    failed: Option<String>,
}

/// The newest segment.
struct Written {
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
    /// Every record below this number is in the file.
    below: u64,
    dirty: bool,
    /// Takes turns with the buffer that fills: empty, but for what the disk did not take.
    spare: Vec<u8>,
}

/// How soon a record must be in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before this returns.
    Now,
    /// With the next write, or when [`Segments::write_waiting`] is called.
    Soon,
}

impl Segments {
    pub(super) fn open(dir: &Path, node: &str, segment_bytes: u64, bytes_max: u64) -> Result<Segments, AuditError> {
        std::fs::create_dir_all(dir).map_err(|source| AuditError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let (chain, seq, path) = continue_in(dir)?;
        let file = append_to(&path)?;
        let bytes = file
            .metadata()
            .map_err(|source| AuditError::Io {
                path: path.clone(),
                source,
            })?
            .len();
        Ok(Segments {
            dir: dir.to_owned(),
            segment_bytes,
            bytes_max,
            node: format!(",\"node\":{},\"seq\":", serde_json::Value::from(node)),
            line: Mutex::new(Line {
                chain,
                seq,
                first: seq,
                waiting: Vec::with_capacity(BUFFER_BYTES),
                failed: None,
            }),
            file: Mutex::new(Written {
                path,
                file: Arc::new(file),
                bytes,
                below: seq,
                dirty: false,
                spare: Vec::with_capacity(BUFFER_BYTES),
            }),
        })
    }

    /// Chains a record to the last one and gives its number. What every record begins with (`time`, `node`, `seq`) is put before its
    /// members. When this returns, a record that was wanted [`When::Now`] has left the process.
    pub(super) fn append(&self, time_ms: u64, record: &impl Members, when: When) -> Result<u64, AuditError> {
        let mut members = String::with_capacity(RECORD_BYTES);
        record.write(&mut line::Line::after(&mut members));
        let seq = self.line().push(time_ms, &self.node, members.as_bytes())?;
        match when {
            When::Now => self.write_up_to(seq).map(|()| seq),
            When::Soon => Ok(seq),
        }
    }

    /// Writes what waits. That the audit has failed was said when it did.
    pub(super) fn write_waiting(&self) -> Result<(), AuditError> {
        let last = self.line().seq - 1;
        match self.write_up_to(last) {
            Err(AuditError::Failed(_)) => Ok(()),
            written => written,
        }
    }

    /// Sees to it that the record `seq`, and all before it, are in the file.
    fn write_up_to(&self, seq: u64) -> Result<(), AuditError> {
        let mut written = self.written();
        if written.below > seq {
            return Ok(());
        }
        let (first, below) = self.line().take(&mut written.spare)?;
        let full = written.bytes >= self.segment_bytes;
        let begun = if full { self.rotate(&mut written, first) } else { Ok(()) };
        begun.and_then(|()| written.write()).inspect_err(|error| {
            self.fail(&error.to_string());
        })?;
        written.below = below;
        Ok(())
    }

    /// Tries again after a failure. A segment whose disk refused something is cut off behind its last whole record and left; what
    /// could not be written, and what comes after it, goes to a new one. Says whether it works again.
    pub(super) fn retry(&self) -> Result<bool, AuditError> {
        let mut written = self.written();
        if self.line().failed.is_none() {
            return Ok(false);
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| AuditError::Io { path, source }
        };
        disk::set_len(&written.file, written.bytes).map_err(io(&written.path))?;
        let first = written.below;
        self.rotate(&mut written, first)?;
        written.write()?;
        disk::sync(&written.file).map_err(io(&written.path))?;
        let mut line = self.line();
        written.below = line.first;
        line.failed = None;
        Ok(true)
    }

    /// The file to sync, if anything was written since the last time.
    pub(super) fn take_unsynced(&self) -> Option<Arc<File>> {
        let mut written = self.written();
        std::mem::take(&mut written.dirty).then(|| written.file.clone())
    }

    /// Writes nothing any more, until [`Segments::retry`] succeeds.
    pub(super) fn fail(&self, why: &str) {
        self.line().failed.get_or_insert_with(|| why.to_owned());
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new segment, whose first record is `first`.
    fn rotate(&self, written: &mut Written, first: u64) -> Result<(), AuditError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| AuditError::Io { path, source }
        };
        disk::sync(&written.file).map_err(failed(&written.path))?;
        written.path = segment_path(&self.dir, first);
        let file = append_to(&written.path)?;
        // Not always a new one: the records of a try that the disk refused in the end, after it had taken them, stand in it already,
        // and cutting them off would take away what is acknowledged as soon as a later try succeeds.
        written.bytes = file.metadata().map_err(failed(&written.path))?.len();
        written.file = Arc::new(file);
        let segments = files(&self.dir)?;
        let mut total: u64 = 0;
        for path in segments.iter().rev() {
            total += std::fs::metadata(path).map_err(failed(path))?.len();
            if total > self.bytes_max {
                disk::remove(path).map_err(failed(path))?;
            }
        }
        disk::sync_dir(&self.dir).map_err(failed(&self.dir))
    }
}

impl Written {
    /// Writes what was taken over. If the disk does not take all of it, it stays.
    fn write(&mut self) -> Result<(), AuditError> {
        disk::write_all(&self.file, &self.spare).map_err(|source| AuditError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.bytes += u64::try_from(self.spare.len()).unwrap_or(u64::MAX);
        self.spare.clear();
        self.dirty = true;
        Ok(())
    }
}

impl Line {
    fn push(&mut self, time_ms: u64, node: &str, members: &[u8]) -> Result<u64, AuditError> {
        self.refuse_failed()?;
        let (begin, seq) = (self.waiting.len(), self.seq);
        self.waiting.extend_from_slice(b"{\"time\":");
        self.waiting
            .extend_from_slice(itoa::Buffer::new().format(time_ms).as_bytes());
        self.waiting.extend_from_slice(node.as_bytes());
        self.waiting
            .extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
        self.waiting.extend_from_slice(members);
        self.chain = chained(&self.chain, &self.waiting[begin..]);
        self.waiting.extend_from_slice(CHAIN.as_bytes());
        self.waiting.extend_from_slice(&hex(&self.chain));
        self.waiting.extend_from_slice(b"\"}\n");
        self.seq += 1;
        Ok(seq)
    }

    /// Hands over what waits in exchange for an empty buffer, with the number of the first record in it and that of the first
    /// that is not.
    fn take(&mut self, empty: &mut Vec<u8>) -> Result<(u64, u64), AuditError> {
        self.refuse_failed()?;
        std::mem::swap(&mut self.waiting, empty);
        Ok((std::mem::replace(&mut self.first, self.seq), self.seq))
    }

    fn refuse_failed(&self) -> Result<(), AuditError> {
        match &self.failed {
            Some(why) => Err(AuditError::Failed(why.clone())),
            None => Ok(()),
        }
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        if let Err(error) = self.write_waiting() {
            tracing::error!(%error, "the last audit records were not written");
        }
    }
}

fn append_to(path: &Path) -> Result<File, AuditError> {
    disk::open_append(path).map_err(|source| AuditError::Io {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;
    use crate::audit::chain::verify;

    /// A record of one member.
    struct Tool<'a>(&'a str);

    impl Members for Tool<'_> {
        fn write(&self, line: &mut line::Line<'_>) {
            line.text("tool", self.0);
        }
    }

    fn write(dir: &Path, count: u64) -> u64 {
        let segments = Segments::open(dir, "n", 500, 1 << 20).unwrap();
        for _ in 0..count {
            segments.append(7, &Tool("x"), When::Now).unwrap();
        }
        segments.line().seq
    }

    #[test]
    fn the_chain_goes_on_over_segments_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write(dir.path(), 20), 21);
        assert_eq!(write(dir.path(), 5), 26);
        let verified = verify(dir.path()).unwrap();
        assert_eq!(verified.records, 25);
        assert!(verified.segments > 3);
    }

    #[test]
    fn a_torn_record_is_cut_off_and_a_changed_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 3);
        let path = files(dir.path()).unwrap().pop().unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"seq\":4,\"to")
            .unwrap();
        assert_eq!(write(dir.path(), 1), 5);
        assert_eq!(verify(dir.path()).unwrap().records, 4);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"tool\":\"x\"", "\"tool\":\"y\"", 1)).unwrap();
        assert!(matches!(verify(dir.path()), Err(AuditError::Broken { line: 1, .. })));
    }

    #[test]
    fn the_oldest_segments_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path(), "n", 500, 2_000).unwrap();
        for _ in 1..200 {
            segments.append(7, &Tool("x"), When::Now).unwrap();
        }
        let kept: u64 = files(dir.path())
            .unwrap()
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum();
        assert!(kept < 3_000, "{kept}");
        verify(dir.path()).unwrap();
    }

    #[test]
    fn a_failed_disk_takes_no_more_records() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path(), "n", 500, 2_000).unwrap();
        segments.fail("gone");
        for when in [When::Now, When::Soon] {
            assert!(matches!(
                segments.append(7, &Tool("x"), when),
                Err(AuditError::Failed(_))
            ));
        }
    }

    #[test]
    fn after_a_failure_the_chain_goes_on_in_a_new_segment() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path(), "n", 1 << 20, 1 << 30).unwrap();
        let append = |when| segments.append(7, &Tool("x"), when);
        append(When::Now).unwrap();
        assert!(!segments.retry().unwrap());
        // What waits when the disk fails is not lost.
        append(When::Soon).unwrap();
        // A file that cannot be written to stands for a disk that is full.
        let full = File::open(segments.written().path.clone()).unwrap();
        let disk = std::mem::replace(&mut segments.written().file, Arc::new(full));
        assert!(matches!(append(When::Now), Err(AuditError::Io { .. })));
        assert!(matches!(append(When::Now), Err(AuditError::Failed(_))));
        assert!(segments.retry().is_err());
        segments.written().file = disk;
        assert!(segments.retry().unwrap());
        append(When::Now).unwrap();
        let verified = verify(dir.path()).unwrap();
        assert_eq!((verified.segments, verified.records), (2, 4));
    }

    #[test]
    fn many_writers_make_one_chain_and_each_finds_its_record_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path(), "n", 20_000, 1 << 30).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (segments, dir) = (&segments, dir.path());
                scope.spawn(move || {
                    for round in 0..100 {
                        let mark = format!("{writer}-{round}");
                        let seq = segments.append(7, &Tool(&mark), When::Now).unwrap();
                        let line = format!("\"seq\":{seq},\"tool\":\"{mark}\"");
                        let found = files(dir)
                            .unwrap()
                            .iter()
                            .rev()
                            .any(|path| std::fs::read_to_string(path).unwrap().contains(&line));
                        assert!(found, "{line}");
                    }
                });
            }
        });
        assert_eq!(verify(dir.path()).unwrap().records, 400);
    }

    /// Bits that flip and files that end too early: the audit opens all the same, goes on with a number that was never given, and
    /// a check of what is left either breaks, or finds every record but those of what was set aside.
    #[test]
    fn a_damaged_segment_is_set_aside_and_the_audit_goes_on() {
        let flips: usize = std::env::var("MCP_FLIPS").map_or(200, |n| n.parse().unwrap());
        let good = tempfile::tempdir().unwrap();
        let next = write(good.path(), 12);
        let names: Vec<_> = files(good.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        let (mut set_aside, mut broken) = (0, 0);
        for round in 0..flips {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
            for name in &names {
                std::fs::copy(good.path().join(name), dir.path().join(name)).unwrap();
            }
            // The newest segment is the one that is continued: it is damaged every other time.
            let name = if round % 2 == 0 {
                names.last().unwrap()
            } else {
                &names[round % names.len()]
            };
            let path = dir.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = round * 7_919 % bytes.len();
            let cut = round % 5 == 0;
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << (round % 8);
            }
            std::fs::write(&path, &bytes).unwrap();
            let segments = Segments::open(dir.path(), "n", 500, 1 << 20).unwrap();
            let seq = segments.append(7, &Tool("x"), When::Now).unwrap();
            drop(segments);
            let aside = std::fs::read_dir(dir.path())
                .unwrap()
                .any(|entry| entry.unwrap().path().extension().is_some_and(|e| e == "corrupt"));
            // A cut behind a whole record looks like a crash: those records were lost, and their numbers are given again.
            assert!(cut || seq >= next, "round {round}: number {seq} was given before");
            match verify(dir.path()) {
                Err(AuditError::Broken { .. }) => broken += 1,
                Ok(verified) => assert!(aside || cut || verified.records == next, "round {round}"),
                Err(error) => panic!("round {round}: {error}"),
            }
            set_aside += usize::from(aside);
        }
        println!("{flips} flips and cuts of segments: {set_aside} set aside, {broken} found broken by the check");
        assert!(set_aside > 0 && broken > 0, "{set_aside} set aside, {broken} broken");
    }
}
