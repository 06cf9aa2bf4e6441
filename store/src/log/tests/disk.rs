//! A disk with a switch: it works, hangs in its flush, or fails it.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use redb::backends::FileBackend;
use redb::{Builder, StorageBackend};

use super::super::{RaftLog, Ticks, open};
use super::PATIENCE;

#[derive(Default)]
pub(super) struct Switch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    mode: u8,
    hanging: bool,
}

impl Switch {
    pub(super) const WORK: u8 = 0;
    pub(super) const HANG: u8 = 1;
    pub(super) const FAIL: u8 = 2;

    pub(super) fn set(&self, mode: u8) {
        self.state.lock().unwrap().mode = mode;
        self.changed.notify_all();
    }

    pub(super) fn wait_until_hanging(&self) {
        let state = self.state.lock().unwrap();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.hanging)
            .unwrap();
        assert!(state.hanging, "no flush came");
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.hanging = state.mode == Switch::HANG;
        self.changed.notify_all();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.mode == Switch::HANG)
            .unwrap();
        state.hanging = false;
        match state.mode {
            Switch::FAIL => Err(io::Error::other("no more disk")),
            _ => Ok(()),
        }
    }
}

struct SwitchableDisk {
    file: FileBackend,
    switch: Arc<Switch>,
}

impl fmt::Debug for SwitchableDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwitchableDisk")
    }
}

impl StorageBackend for SwitchableDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.switch.pass()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

pub(super) fn log_on_a_switchable_disk(ticks: Ticks) -> (RaftLog, Arc<Switch>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    let switch = Arc::new(Switch::default());
    let disk = SwitchableDisk {
        file: FileBackend::new(file).unwrap(),
        switch: Arc::clone(&switch),
    };
    let db = Builder::new().create_with_backend(disk).unwrap();
    open::lay_out(&db).unwrap();
    (
        RaftLog::start(db, ticks, crate::log::writer::Order::Strict).unwrap(),
        switch,
        dir,
    )
}
