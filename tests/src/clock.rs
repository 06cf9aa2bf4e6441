//! The one file of this package that reads a clock.

use mcp_model::clock::{Clock, Reading};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds on a clock that nobody slews, for measuring.
pub fn now_ns() -> u64 {
    ns(ClockId::CLOCK_MONOTONIC_RAW)
}

/// The machine's clocks, read as a node reads them.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn reading(&self) -> Reading {
        let raw = ns(ClockId::CLOCK_MONOTONIC_RAW);
        let running = ns(ClockId::CLOCK_MONOTONIC);
        let boot = ns(ClockId::CLOCK_BOOTTIME);
        Reading {
            boot_ns: boot,
            raw_ns: raw + boot.saturating_sub(running),
        }
    }

    fn wall_ms(&self) -> u64 {
        ns(ClockId::CLOCK_REALTIME) / 1_000_000
    }
}

fn ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("Linux has this clock");
    let seconds = u64::try_from(time.tv_sec()).expect("clocks count up from 0");
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).expect("nanoseconds are not negative")
}
