//! The one file of `mcpnode` that reads a clock. Everybody else is handed the time.

use mcp_model::clock::{Clock, Reading};
use nix::time::{ClockId, clock_gettime};

/// Longest time in which the clocks of one reading are looked at.
const LOOK_NS_MAX: u64 = 1_000_000;

/// The machine's clocks, through libc: a test can shift them with libfaketime.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn reading(&self) -> Reading {
        // The sum of clocks is only worth something if nothing happened between looking at them: neither a suspension nor a
        // long pause of this thread. What remains is well within the margin that others wait.
        loop {
            let boot = ns(ClockId::CLOCK_BOOTTIME);
            let running = ns(ClockId::CLOCK_MONOTONIC);
            let raw = ns(ClockId::CLOCK_MONOTONIC_RAW);
            if ns(ClockId::CLOCK_BOOTTIME).saturating_sub(boot) <= LOOK_NS_MAX {
                let raw_ns = raw + boot.saturating_sub(running);
                return Reading { boot_ns: boot, raw_ns };
            }
        }
    }

    fn boot_ns(&self) -> u64 {
        ns(ClockId::CLOCK_BOOTTIME)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lease_clocks_go_forward_together() {
        let first = SystemClock.reading();
        let second = SystemClock.reading();
        assert!(second.boot_ns >= first.boot_ns && second.raw_ns + 1_000_000 >= first.raw_ns);
        assert!(second.ms_since(first) < 60_000);
        assert!(SystemClock.wall_ms() > 1_700_000_000_000);
    }
}
