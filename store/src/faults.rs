//! A disk that does what a test tells it: works, hangs in its flush, or refuses the n-th operation that changes something. What it
//! has refused once it goes on refusing until it is told to work again.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::FileBackend;

const PATIENCE: Duration = Duration::from_secs(20);

/// How an operation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Nothing of it is done: `EIO`.
    Fails,
    /// Nothing of it is done: `ENOSPC`.
    Full,
    /// The first half of a write reaches the file; a flush is done and reported as failed all the same.
    Torn,
}

/// All ways.
pub(crate) const HOW: [How; 3] = [How::Fails, How::Full, How::Torn];

#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Operations that change something, since it was last told what to do.
    done: u64,
    refuse: Option<(u64, How)>,
    hang: bool,
    hanging: bool,
}

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
    pub(crate) fn done(&self) -> u64 {
        self.state().done
    }

    fn pass(&self, refused: impl FnOnce(How)) -> io::Result<()> {
        let mut state = self.state();
        state.done += 1;
        let Some((after, how)) = state.refuse.filter(|(after, _)| state.done > *after) else {
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
pub(crate) fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A file on such a disk.
pub(crate) struct FaultyFile {
    file: FileBackend,
    faults: Arc<Faults>,
}

impl FaultyFile {
    pub(crate) fn new(file: FileBackend, faults: &Arc<Faults>) -> FaultyFile {
        FaultyFile {
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
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.pass(|_| ())?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.linger();
        let done = |how| {
            if how == How::Torn {
                self.file.sync_data().unwrap();
            }
        };
        self.faults.pass(done)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let torn = |how| {
            if how == How::Torn {
                self.file.write(offset, &data[..data.len() / 2]).unwrap();
            }
        };
        self.faults.pass(torn)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
