//! The one place where `mcpctl` reads a clock.

use nix::time::{ClockId, clock_gettime};

/// Wall time in milliseconds since 1970, for ages and expiry dates.
pub(crate) fn wall_ms() -> u64 {
    read_ms(ClockId::CLOCK_REALTIME)
}

/// Milliseconds on a clock that nobody sets, for durations.
pub(crate) fn steady_ms() -> u64 {
    read_ms(ClockId::CLOCK_MONOTONIC)
}

fn read_ms(clock: ClockId) -> u64 {
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let (seconds, nanos) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec()));
    seconds.unwrap_or(0) * 1_000 + nanos.unwrap_or(0) / 1_000_000
}
