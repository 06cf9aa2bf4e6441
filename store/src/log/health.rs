//! How the disk is doing, for the watchdog that makes a leader with a slow or dead disk resign.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Ticks;

const NS_PER_US: u64 = 1_000;
/// A new flush counts for one eighth of the average.
const EWMA_SHIFT: u32 = 3;

/// A look at the flushes of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHealth {
    /// How long the latest finished flush took, microseconds; 0 before the first one.
    pub last_flush_us: u64,
    /// Moving average of the flush time, microseconds.
    pub average_flush_us: u64,
    /// How long the flush that is under way has taken so far, microseconds; 0 if none is. A hung disk shows here only.
    pub pending_flush_us: u64,
    /// Flushes finished since the log was opened.
    pub flushes: u64,
    /// Why the log takes no more writes, if so.
    pub failed: Option<String>,
}

pub(super) struct Flushes {
    ticks: Ticks,
    began_ns: AtomicU64,
    last_us: AtomicU64,
    average_us: AtomicU64,
    count: AtomicU64,
}

impl Flushes {
    pub(super) fn new(ticks: Ticks) -> Flushes {
        Flushes {
            ticks,
            began_ns: AtomicU64::new(0),
            last_us: AtomicU64::new(0),
            average_us: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }

    pub(super) fn begin(&self) {
        // Zero means "none under way", so a clock that reads zero is nudged.
        self.began_ns.store((self.ticks)().max(1), Ordering::Release);
    }

    pub(super) fn end(&self) {
        let began_ns = self.began_ns.swap(0, Ordering::AcqRel);
        let took_us = (self.ticks)().saturating_sub(began_ns) / NS_PER_US;
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let average = self.average_us.load(Ordering::Relaxed);
        let next = if before == 0 {
            took_us
        } else {
            average - (average >> EWMA_SHIFT) + (took_us >> EWMA_SHIFT)
        };
        self.last_us.store(took_us, Ordering::Relaxed);
        self.average_us.store(next, Ordering::Relaxed);
    }

    pub(super) fn health(&self, failed: Option<String>) -> LogHealth {
        let began_ns = self.began_ns.load(Ordering::Acquire);
        let pending_flush_us = match began_ns {
            0 => 0,
            began_ns => (self.ticks)().saturating_sub(began_ns) / NS_PER_US,
        };
        LogHealth {
            last_flush_us: self.last_us.load(Ordering::Relaxed),
            average_flush_us: self.average_us.load(Ordering::Relaxed),
            pending_flush_us,
            flushes: self.count.load(Ordering::Relaxed),
            failed,
        }
    }
}
