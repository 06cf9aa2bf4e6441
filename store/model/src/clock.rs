//! Time as an argument. Leases are judged on two clocks at once, so that neither a slewed nor a standing clock can lengthen one.

use serde::{Deserialize, Serialize};

/// One look at the two clocks by which leases are judged, in nanoseconds.
///
/// `boot_ns` is CLOCK_BOOTTIME: it runs while the machine is suspended, but a time daemon may slew it by several percent.
/// `raw_ns` is CLOCK_MONOTONIC_RAW plus the time spent suspended: nobody slews it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reading {
    /// CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// CLOCK_MONOTONIC_RAW plus suspended time.
    pub raw_ns: u64,
}

impl Reading {
    /// A reading at which both clocks show the same.
    pub const fn both_ms(ms: u64) -> Reading {
        Reading {
            boot_ns: ms * 1_000_000,
            raw_ns: ms * 1_000_000,
        }
    }

    /// The reading `ms` milliseconds later, on both clocks.
    pub const fn plus_ms(self, ms: u64) -> Reading {
        let ns = ms.saturating_mul(1_000_000);
        Reading {
            boot_ns: self.boot_ns.saturating_add(ns),
            raw_ns: self.raw_ns.saturating_add(ns),
        }
    }

    /// Whether *either* clock says that `deadline` is reached: the holder of a lease must stop then.
    pub const fn either_passed(self, deadline: Reading) -> bool {
        self.boot_ns >= deadline.boot_ns || self.raw_ns >= deadline.raw_ns
    }

    /// Whether *both* clocks say that `deadline` is passed: only then may others count on it.
    pub const fn both_passed(self, deadline: Reading) -> bool {
        self.boot_ns > deadline.boot_ns && self.raw_ns > deadline.raw_ns
    }

    /// The later of two readings, clock by clock.
    pub fn max(self, other: Reading) -> Reading {
        Reading {
            boot_ns: self.boot_ns.max(other.boot_ns),
            raw_ns: self.raw_ns.max(other.raw_ns),
        }
    }

    /// Milliseconds from `earlier` to here by the slower of the two clocks, 0 if it lies ahead.
    pub fn ms_since(self, earlier: Reading) -> u64 {
        let boot = self.boot_ns.saturating_sub(earlier.boot_ns);
        boot.min(self.raw_ns.saturating_sub(earlier.raw_ns)) / 1_000_000
    }

    /// Milliseconds until both clocks have passed `deadline`, rounded up; 0 when they have.
    pub fn ms_until_both_passed(self, deadline: Reading) -> u64 {
        if self.both_passed(deadline) {
            return 0;
        }
        let boot = deadline.boot_ns.saturating_sub(self.boot_ns);
        boot.max(deadline.raw_ns.saturating_sub(self.raw_ns)) / 1_000_000 + 1
    }
}

/// Where the time comes from. One file per program implements it; everybody else is handed it.
pub trait Clock: Send + Sync {
    /// A fresh look at the two lease clocks. Never cached.
    fn reading(&self) -> Reading;
    /// The first of the two alone, ns: for how long something took, where nothing is decided by it.
    fn boot_ns(&self) -> u64 {
        self.reading().boot_ns
    }
    /// Wall time in milliseconds since 1970-01-01 UTC: for expiry and for people, never for leases.
    fn wall_ms(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_stops_at_the_first_clock_and_the_waiter_at_the_second() {
        let deadline = Reading::both_ms(100);
        let boot_slewed = Reading {
            boot_ns: 101_000_000,
            raw_ns: 93_000_000,
        };
        assert!(boot_slewed.either_passed(deadline));
        assert!(!boot_slewed.both_passed(deadline));
        assert!(
            deadline.either_passed(deadline),
            "a lease is over at its deadline, not after it"
        );
        assert!(!deadline.both_passed(deadline));
        assert_eq!(boot_slewed.ms_until_both_passed(deadline), 8);
        assert_eq!(Reading::both_ms(250).ms_since(deadline), 150);
    }
}
