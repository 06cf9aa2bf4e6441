//! Files below redb: how they are opened, and how one that the disk has refused to write is brought back without a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError};

/// Bytes that must be free beyond a copy of the file, or the disk would be full again at once.
const SPARE_BYTES: usize = 256 * 1024;
/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// What is below a database: a file, or in tests a file that fails when it is told to.
#[derive(Clone, Default)]
pub(crate) enum Disk {
    #[default]
    Real,
    #[cfg(any(test, feature = "faults"))]
    Faulty(std::sync::Arc<crate::faults::Faults>),
}

impl Disk {
    /// Opens the database at `path`; an empty or missing file becomes a new one.
    pub(crate) fn create(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        self.open_file(builder, path, file)
    }

    /// Opens the database at `path`, which must be there.
    pub(crate) fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        self.open_file(builder, path, file)
    }

    fn open_file(&self, builder: &Builder, path: &Path, file: File) -> Result<Database, DatabaseError> {
        let file = FileBackend::new(file)?;
        // Only a disk that loses its power tells files apart.
        #[cfg(not(any(test, feature = "faults")))]
        let _ = path;
        match self {
            Disk::Real => builder.create_with_backend(file),
            #[cfg(any(test, feature = "faults"))]
            Disk::Faulty(faults) => builder.create_with_backend(crate::faults::FaultyFile::new(path, file, faults)),
        }
    }
}

/// Whose fault an error of redb is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk refuses at the moment. What it holds may be whole.
    Disk(String),
    /// Another process has the file.
    Taken,
    /// The file is not what was written.
    File(String),
}

/// Tells a disk that refuses from a file that is damaged. A file that ends too early is damaged, however the disk calls it.
pub(crate) fn fault_of(error: redb::Error) -> Fault {
    match error {
        redb::Error::Io(io) if is_the_files(io.kind()) => Fault::File(io.to_string()),
        error @ (redb::Error::Io(_) | redb::Error::PreviousIo) => Fault::Disk(error.to_string()),
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Fault::Taken,
        redb::Error::Corrupted(what) => Fault::File(what),
        other => Fault::File(other.to_string()),
    }
}

/// What a file that is too short, or no database, makes of reading it.
fn is_the_files(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

/// Puts a copy of a file in its place, written and synced anew.
///
/// After a failed sync the kernel may hold pages as clean that never reached the disk: to open the file again and see it whole
/// would prove nothing. What can still be read is therefore written once more, elsewhere, and only then takes the place. Fails, and
/// leaves everything as it was, while the disk has no room for it.
pub(crate) fn replace_by_copy(path: &Path) -> io::Result<()> {
    let beside = path.with_extension("mending");
    let copied = copy(path, &beside).and_then(|()| std::fs::rename(&beside, path));
    if copied.is_err() {
        // A full disk needs the room; that it stays behind when even that fails is no harm.
        let _removed = std::fs::remove_file(&beside);
    }
    copied?;
    sync_dir_of(path)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut length = 0;
    // By hand: `io::copy` may let the file system share the very blocks that are in doubt.
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        copy.write_all(&chunk[..read])?;
        length += u64::try_from(read).expect("a chunk is short");
    }
    copy.write_all(&vec![0; SPARE_BYTES])?;
    copy.sync_all()?;
    copy.set_len(length)?;
    copy.sync_all()
}

/// Makes a renamed file stay where it is.
pub(crate) fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

/// Renames a damaged file, so that it is out of the way and there for whoever wants to look into it. Says what it is called
/// now; `None` if there is no such file.
pub fn set_aside(path: &Path, now_ms: u64) -> io::Result<Option<PathBuf>> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".corrupt-{now_ms}"));
    let aside = path.with_file_name(name);
    match std::fs::rename(path, &aside) {
        Ok(()) => sync_dir_of(path).map(|()| Some(aside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_the_place_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 2 + 5).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        replace_by_copy(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_set_aside_is_kept_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        assert_eq!(set_aside(&path, 7).unwrap(), None);
        std::fs::write(&path, b"bad").unwrap();
        let aside = set_aside(&path, 7).unwrap().unwrap();
        assert!(aside.ends_with("state.redb.corrupt-7") && !path.exists());
        assert_eq!(std::fs::read(aside).unwrap(), b"bad");
    }
}
