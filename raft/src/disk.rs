//! Whether the disk is good enough: to lead, and to be sent requests.

use mcp_model::clock::Reading;
use mcp_store::log::LogHealth;

/// When a disk is no longer good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    /// Longest flush of the raft log, ms. A lease round waits for flushes, so this must lie well below a lease; too high, and a
    /// leader with a slow disk holds everybody up.
    pub flush_ms_max: u64,
    /// Free bytes where the data is, below which the node steps aside. Too low, and the disk is full before anybody else leads.
    pub free_bytes_min: u64,
}

impl Default for DiskLimits {
    fn default() -> DiskLimits {
        DiskLimits {
            flush_ms_max: 1_000,
            free_bytes_min: 64 * 1024 * 1024,
        }
    }
}

/// How long a disk must behave after a slow flush before it is trusted again: a leader must not come and go with every flush.
const TRUST_AFTER_MS: u64 = 5_000;

/// Remembers what a look at the disk does not show any more.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// The last slow flush: how long it took, and when it was seen.
    slow: Option<(u64, Reading)>,
    seen_flushes: u64,
    full: bool,
}

impl Judge {
    /// What is wrong with the disk, in words for people; nothing if it is good enough.
    pub(crate) fn look(
        &mut self,
        limits: &DiskLimits,
        health: &LogHealth,
        free_bytes: Option<u64>,
        now: Reading,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(why) = &health.failed {
            wrong.push(format!("the disk refuses the raft log: {why}"));
        }
        wrong.extend(self.look_at_flushes(limits, health, now));
        wrong.extend(free_bytes.and_then(|free| self.look_at_space(limits, free)));
        wrong
    }

    fn look_at_flushes(&mut self, limits: &DiskLimits, health: &LogHealth, now: Reading) -> Option<String> {
        let finished_us = if health.flushes == self.seen_flushes {
            0
        } else {
            health.last_flush_us
        };
        self.seen_flushes = health.flushes;
        let took_ms = health.pending_flush_us.max(finished_us) / 1_000;
        if took_ms > limits.flush_ms_max {
            self.slow = Some((took_ms, now));
        }
        let (took_ms, seen) = self.slow?;
        if now.ms_since(seen) > TRUST_AFTER_MS {
            self.slow = None;
            return None;
        }
        let most = limits.flush_ms_max;
        Some(format!(
            "a flush of the raft log takes {took_ms} ms, at most {most} ms are good enough"
        ))
    }

    /// Once full, it is not until a quarter more than the least is free: what is near the limit must not flap.
    fn look_at_space(&mut self, limits: &DiskLimits, free: u64) -> Option<String> {
        let least = limits.free_bytes_min;
        let enough = if self.full {
            least.saturating_add(least / 4)
        } else {
            least
        };
        self.full = free < enough;
        self.full
            .then(|| format!("{free} bytes are free where the data is, at least {enough} are wanted"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DiskLimits = DiskLimits {
        flush_ms_max: 100,
        free_bytes_min: 1_000,
    };

    fn health(flushes: u64, last_ms: u64, pending_ms: u64) -> LogHealth {
        LogHealth {
            last_flush_us: last_ms * 1_000,
            average_flush_us: 0,
            pending_flush_us: pending_ms * 1_000,
            flushes,
            failed: None,
        }
    }

    #[test]
    fn a_slow_flush_is_held_against_the_disk_for_a_while() {
        let mut judge = Judge::default();
        let rows = [
            (1, 5, 0, 0, true),
            (1, 5, 101, 100, false), // it hangs
            (2, 150, 0, 200, false), // it was slow
            (2, 150, 0, 4_000, false),
            (3, 5, 0, 5_200, false),
            (4, 5, 0, 5_201, true), // and has behaved since
            (4, 150, 0, 9_000, true),
            (5, 100, 100, 9_001, true), // just good enough
        ];
        for (flushes, last, pending, at, good) in rows {
            let wrong = judge.look(&LIMITS, &health(flushes, last, pending), None, Reading::both_ms(at));
            assert_eq!(wrong.is_empty(), good, "at {at}: {wrong:?}");
        }
    }

    #[test]
    fn a_disk_near_its_limit_does_not_flap() {
        let mut judge = Judge::default();
        for (free, good) in [
            (1_000, true),
            (999, false),
            (1_000, false),
            (1_249, false),
            (1_250, true),
            (1_000, true),
        ] {
            let wrong = judge.look(&LIMITS, &health(0, 0, 0), Some(free), Reading::both_ms(1));
            assert_eq!(wrong.is_empty(), good, "{free}: {wrong:?}");
        }
    }

    #[test]
    fn a_disk_that_refuses_is_named() {
        let failed = Some("No space left on device".to_owned());
        let health = LogHealth {
            failed,
            ..health(0, 0, 0)
        };
        let wrong = Judge::default().look(&LIMITS, &health, Some(5_000), Reading::both_ms(1));
        assert!(wrong.len() == 1 && wrong[0].contains("No space left"), "{wrong:?}");
    }
}
