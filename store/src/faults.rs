//! A disk that does what a test tells it: works, hangs in its flush, or refuses the n-th operation that changes something. What it
//! has refused once it goes on refusing until it is told to work again.
//!
//! Or it loses its power at the n-th operation: from then on it does nothing, and what its files hold afterwards is what was synced, and of
//! the writes since then as many as a test wants.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::FileBackend;

const PATIENCE: Duration = Duration::from_secs(20);

/// How an operation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "each test tells it something else"))]
pub(crate) enum How {
    /// Nothing of it is done: `EIO`.
    Fails,
    /// Nothing of it is done: `ENOSPC`.
    Full,
    /// The first half of a write reaches the file; a flush is done and reported as failed all the same.
    Torn,
}

/// All ways.
#[cfg(test)]
pub(crate) const HOW: [How; 3] = [How::Fails, How::Full, How::Torn];

/// Which of the writes since its last sync a file holds after the power is back. redb must cope with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// Every other one, beginning with the first: they reach a disk in no order.
    EveryOther,
    /// The last one alone.
    Last,
    /// All, of the last one half.
    Torn,
}

/// All ways.
pub const KEPT: [Kept; 5] = [
    Kept::Nothing,
    Kept::Everything,
    Kept::EveryOther,
    Kept::Last,
    Kept::Torn,
];

/// What is told to the disk.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

/// A file as its disk holds it, and what was written to it since.
#[derive(Default, Clone)]
struct Held {
    durable: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    let at = |n: u64| usize::try_from(n).unwrap();
    match change {
        Change::Length(length) => bytes.resize(at(*length), 0),
        Change::Write(offset, data) => {
            let end = at(*offset) + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at(*offset)..end].copy_from_slice(data);
        }
    }
}

impl Held {
    fn sync(&mut self) {
        for one in std::mem::take(&mut self.since) {
            change(&mut self.durable, &one);
        }
    }

    fn after(&self, kept: Kept) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let last = self.since.len().saturating_sub(1);
        for (nth, one) in self.since.iter().enumerate() {
            let stays = match kept {
                Kept::Nothing => false,
                Kept::Everything | Kept::Torn => true,
                Kept::EveryOther => nth % 2 == 0,
                Kept::Last => nth == last,
            };
            match one {
                _ if !stays => {}
                Change::Write(offset, data) if kept == Kept::Torn && nth == last => {
                    change(&mut bytes, &Change::Write(*offset, data[..data.len() / 2].to_vec()));
                }
                one => change(&mut bytes, one),
            }
        }
        bytes
    }
}

#[derive(Default)]
struct State {
    /// Operations that change something, since it was last told what to do.
    done: u64,
    refuse: Option<(u64, How)>,
    /// The operation at which the power goes, and the files until then; none: nothing is kept for that.
    cut_at: Option<u64>,
    cut: bool,
    files: BTreeMap<PathBuf, Held>,
    hang: bool,
    hanging: bool,
}

#[cfg_attr(not(test), allow(dead_code, reason = "each test tells it something else"))]
impl Faults {
    /// Works from now on.
    pub(crate) fn work(&self) {
        let mut state = self.state();
        state.refuse = None;
        state.hang = false;
        state.done = 0;
        self.changed.notify_all();
    }

    /// Does `after` more operations and refuses from then on.
    pub(crate) fn refuse_after(&self, after: u64, how: How) {
        let mut state = self.state();
        state.done = 0;
        state.refuse = Some((after, how));
    }

    /// Does `after` more operations and loses its power then. To be said before files are opened.
    pub fn cut_after(&self, after: u64) {
        let mut state = self.state();
        state.done = 0;
        state.cut_at = Some(after);
    }

    /// Whether the power has gone.
    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// Writes what its files hold after the power is back into `dir`, under their names.
    pub fn write_what_is_left(&self, dir: &Path, kept: Kept) {
        for (path, held) in &self.state().files {
            std::fs::write(dir.join(path.file_name().unwrap()), held.after(kept)).unwrap();
        }
    }

    fn opened(&self, path: &Path, file: &FileBackend) {
        let mut state = self.state();
        if state.cut_at.is_none() || state.cut {
            return;
        }
        let mut durable = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read(0, &mut durable).unwrap();
        let held = Held {
            durable,
            since: Vec::new(),
        };
        state.files.insert(path.to_owned(), held);
    }

    /// Hangs in the next flush.
    pub(crate) fn hang(&self) {
        self.state().hang = true;
    }

    pub(crate) fn wait_until_hanging(&self) {
        let state = self.state();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.hanging)
            .unwrap();
        assert!(state.hanging, "no flush came");
    }

    /// Operations that changed something, since it was last told what to do.
    pub fn done(&self) -> u64 {
        self.state().done
    }

    /// Without power nothing is read either.
    fn powered(&self) -> io::Result<()> {
        match self.state().cut {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }

    /// Whether an operation is done; if so it is noted at once, so that no other one comes between.
    fn pass(&self, path: &Path, refused: impl FnOnce(How), done: impl FnOnce(&mut Held)) -> io::Result<()> {
        let mut state = self.state();
        state.done += 1;
        state.cut |= state.cut_at.is_some_and(|at| state.done > at);
        if state.cut {
            return Err(io::Error::from_raw_os_error(5));
        }
        let Some((after, how)) = state.refuse.filter(|(after, _)| state.done > *after) else {
            if let Some(held) = state.files.get_mut(path) {
                done(held);
            }
            return Ok(());
        };
        // Only the first one is torn: the others are not done at all.
        if state.done == after + 1 {
            refused(how);
        }
        match how {
            How::Full => Err(io::Error::from_raw_os_error(28)),
            How::Fails | How::Torn => Err(io::Error::from_raw_os_error(5)),
        }
    }

    fn linger(&self) {
        let mut state = self.state();
        state.hanging = state.hang;
        self.changed.notify_all();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.hang)
            .unwrap();
        state.hanging = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A directory in memory where there is one: sweeps over hundreds of lives would wait for the real disk all the time, and what fails
/// here is this module's doing anyway.
#[cfg(test)]
pub(crate) fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A file on such a disk.
pub(crate) struct FaultyFile {
    path: PathBuf,
    file: FileBackend,
    faults: Arc<Faults>,
}

impl FaultyFile {
    pub(crate) fn new(path: &Path, file: FileBackend, faults: &Arc<Faults>) -> FaultyFile {
        faults.opened(path, &file);
        FaultyFile {
            path: path.to_owned(),
            file,
            faults: Arc::clone(faults),
        }
    }
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyFile")
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.faults.powered()?;
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.faults.powered()?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults
            .pass(&self.path, |_| (), |held| held.since.push(Change::Length(len)))?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.linger();
        let done = |how| {
            if how == How::Torn {
                self.file.sync_data().unwrap();
            }
        };
        self.faults.pass(&self.path, done, Held::sync)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let torn = |how| {
            if how == How::Torn {
                self.file.write(offset, &data[..data.len() / 2]).unwrap();
            }
        };
        let written = |held: &mut Held| held.since.push(Change::Write(offset, data.to_vec()));
        self.faults.pass(&self.path, torn, written)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
