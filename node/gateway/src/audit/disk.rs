//! What the audit asks of its disk, in one place, so that a test can refuse each of it.

use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::path::Path;

pub(super) fn open_append(path: &Path) -> Result<File> {
    pass()?;
    OpenOptions::new().create(true).append(true).open(path)
}

pub(super) fn write_all(mut file: &File, bytes: &[u8]) -> Result<()> {
    #[cfg(test)]
    faults::pass_writing(file, bytes)?;
    file.write_all(bytes)
}

pub(super) fn set_len(file: &File, bytes: u64) -> Result<()> {
    pass()?;
    file.set_len(bytes)
}

pub(super) fn sync(file: &File) -> Result<()> {
    pass()?;
    file.sync_data()
}

pub(super) fn remove(path: &Path) -> Result<()> {
    pass()?;
    std::fs::remove_file(path)
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    pass()?;
    File::open(dir)?.sync_all()
}

#[cfg(not(test))]
#[inline]
#[allow(clippy::unnecessary_wraps, reason = "in tests it refuses")]
fn pass() -> Result<()> {
    Ok(())
}

#[cfg(test)]
use faults::pass;

/// A disk of this thread that refuses what it is told to.
#[cfg(test)]
pub(super) mod faults {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::io::{Error, Result, Write};

    /// How much of a write that is refused has arrived all the same.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Arrived {
        Nothing,
        Half,
        All,
    }

    struct Faults {
        done: u64,
        refused: BTreeSet<u64>,
        arrived: Arrived,
    }

    thread_local! {
        static FAULTS: RefCell<Faults> = const {
            RefCell::new(Faults { done: 0, refused: BTreeSet::new(), arrived: Arrived::Nothing })
        };
    }

    /// Counts anew, and refuses the operations with these numbers, from 1.
    pub(crate) fn refuse(refused: impl IntoIterator<Item = u64>, arrived: Arrived) {
        let refused = refused.into_iter().collect();
        FAULTS.set(Faults {
            done: 0,
            refused,
            arrived,
        });
    }

    /// Operations since then.
    pub(crate) fn done() -> u64 {
        FAULTS.with_borrow(|faults| faults.done)
    }

    pub(super) fn pass() -> Result<()> {
        FAULTS.with_borrow_mut(|faults| {
            faults.done += 1;
            match faults.refused.contains(&faults.done) {
                true => Err(Error::other("the disk refuses")),
                false => Ok(()),
            }
        })
    }

    pub(super) fn pass_writing(mut file: &File, bytes: &[u8]) -> Result<()> {
        pass().inspect_err(|_| {
            let arrives = match FAULTS.with_borrow(|faults| faults.arrived) {
                Arrived::Nothing => 0,
                Arrived::Half => bytes.len() / 2,
                Arrived::All => bytes.len(),
            };
            file.write_all(&bytes[..arrives]).unwrap();
        })
    }
}
