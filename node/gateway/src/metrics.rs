//! Counters. The node exports them; nothing here knows how.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mcp_model::admission::Denial;

/// Upper bounds of the buckets of call durations, in milliseconds.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000, 300_000];

/// The counters of one gateway.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests that were admitted.
    pub admitted: AtomicU64,
    denied: [AtomicU64; 7],
    /// Messages that were refused as malformed.
    pub malformed: AtomicU64,
    /// Calls that went to an upstream.
    pub calls: AtomicU64,
    /// Calls that an upstream did not answer.
    pub calls_failed: AtomicU64,
    /// Calls that ended because the token was taken away.
    pub calls_cut: AtomicU64,
    /// Calls that the client gave up.
    pub calls_cancelled: AtomicU64,
    /// Calls refused for want of a right.
    pub calls_forbidden: AtomicU64,
    /// Requests and streams refused because a quota is used up.
    pub over_quota: AtomicU64,
    /// Requests of servers that were put to clients.
    pub asked: AtomicU64,
    /// Requests of servers that no client could be asked.
    pub asked_refused: AtomicU64,
    /// Requests of servers that a client did not answer in time.
    pub asked_late: AtomicU64,
    /// Messages of clients that were handed to the node that runs the call.
    pub relayed: AtomicU64,
    /// Lists answered from the cache.
    pub lists: AtomicU64,
    /// Probes of upstreams.
    pub probes: AtomicU64,
    /// Probes that failed.
    pub probes_failed: AtomicU64,
    /// Lists replicated because they changed.
    pub lists_published: AtomicU64,
    /// Times an unknown token made this replica ask for newer state.
    pub freshened: AtomicU64,
    /// Audit records written.
    pub audit_records: AtomicU64,
    /// Denials that were counted and not audited.
    pub audit_denials_skipped: AtomicU64,
    /// Audit records that could not be written.
    pub audit_failed: AtomicU64,
    /// Event streams open now.
    pub streams: AtomicI64,
    durations: [AtomicU64; BUCKETS_MS.len() + 1],
    duration_sum_us: AtomicU64,
}

/// One exported value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Name of the metric, without the unit's or the counter's suffix of any format.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// One label, if it has any.
    pub label: Option<(&'static str, &'static str)>,
    /// Its value.
    pub value: i64,
    /// Whether it only rises.
    pub is_counter: bool,
}

/// Durations of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durations {
    /// Upper bound in milliseconds and number of calls up to it; the last bound is none.
    pub buckets: Vec<(Option<u64>, u64)>,
    /// Sum of all, in microseconds.
    pub sum_us: u64,
}

impl Metrics {
    /// Counts one more.
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn deny(&self, denial: Denial) {
        Metrics::add(&self.denied[DENIALS.iter().position(|d| *d == denial).unwrap_or(0)]);
    }

    pub(crate) fn took(&self, duration_us: u64) {
        let ms = duration_us.div_ceil(1_000);
        let at = BUCKETS_MS
            .iter()
            .position(|most| ms <= *most)
            .unwrap_or(BUCKETS_MS.len());
        Metrics::add(&self.durations[at]);
        self.duration_sum_us.fetch_add(duration_us, Ordering::Relaxed);
    }

    /// Durations of calls to upstreams.
    pub fn durations(&self) -> Durations {
        let mut total = 0;
        let bounds = BUCKETS_MS.iter().map(|bound| Some(*bound)).chain([None]);
        let buckets = bounds.zip(&self.durations).map(|(bound, count)| {
            total += count.load(Ordering::Relaxed);
            (bound, total)
        });
        Durations {
            buckets: buckets.collect(),
            sum_us: self.duration_sum_us.load(Ordering::Relaxed),
        }
    }

    /// Every counter and gauge.
    pub fn samples(&self) -> Vec<Sample> {
        let counter = |name, help, value: &AtomicU64| Sample {
            name,
            help,
            label: None,
            value: i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX),
            is_counter: true,
        };
        let mut samples = vec![
            counter("gateway_admitted", "Requests that were admitted", &self.admitted),
            counter(
                "gateway_malformed",
                "Messages that were refused as malformed",
                &self.malformed,
            ),
            counter("gateway_calls", "Calls that went to an upstream", &self.calls),
            counter(
                "gateway_calls_failed",
                "Calls that an upstream did not answer",
                &self.calls_failed,
            ),
            counter(
                "gateway_calls_cut",
                "Calls that ended because the token was taken away",
                &self.calls_cut,
            ),
            counter(
                "gateway_calls_cancelled",
                "Calls that the client gave up",
                &self.calls_cancelled,
            ),
            counter(
                "gateway_calls_forbidden",
                "Calls refused for want of a right",
                &self.calls_forbidden,
            ),
            counter(
                "gateway_over_quota",
                "Requests refused because a quota is used up",
                &self.over_quota,
            ),
            counter(
                "gateway_asked",
                "Requests of servers that were put to clients",
                &self.asked,
            ),
            counter(
                "gateway_asked_refused",
                "Requests of servers that no client could be asked",
                &self.asked_refused,
            ),
            counter(
                "gateway_asked_late",
                "Requests of servers that a client did not answer in time",
                &self.asked_late,
            ),
            counter(
                "gateway_relayed",
                "Messages of clients handed to the node that runs the call",
                &self.relayed,
            ),
            counter("gateway_lists", "Lists answered from the cache", &self.lists),
            counter("gateway_probes", "Probes of upstreams", &self.probes),
            counter("gateway_probes_failed", "Probes that failed", &self.probes_failed),
            counter(
                "gateway_lists_published",
                "Lists replicated because they changed",
                &self.lists_published,
            ),
            counter(
                "gateway_freshened",
                "Times an unknown token asked for newer state",
                &self.freshened,
            ),
            counter("gateway_audit_records", "Audit records written", &self.audit_records),
            counter(
                "gateway_audit_denials_skipped",
                "Denials that were not audited",
                &self.audit_denials_skipped,
            ),
            counter(
                "gateway_audit_failed",
                "Audit records that could not be written",
                &self.audit_failed,
            ),
        ];
        for (denial, count) in DENIALS.iter().zip(&self.denied) {
            let sample = counter("gateway_denied", "Requests that were not admitted", count);
            samples.push(Sample {
                label: Some(("reason", denial.reason())),
                ..sample
            });
        }
        samples.push(Sample {
            name: "gateway_streams",
            help: "Event streams open now",
            label: None,
            value: self.streams.load(Ordering::Relaxed),
            is_counter: false,
        });
        samples
    }
}

const DENIALS: [Denial; 7] = [
    Denial::NoBearer,
    Denial::UnknownToken,
    Denial::Expired,
    Denial::OwnerDisabled,
    Denial::WrongProject,
    Denial::NoLease,
    Denial::TooMany,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_cumulative_and_denials_have_a_reason() {
        let metrics = Metrics::default();
        metrics.took(900);
        metrics.took(1_500);
        metrics.took(u64::MAX / 2);
        let buckets = metrics.durations().buckets;
        assert_eq!(
            (buckets[0], buckets[1], buckets[12]),
            ((Some(1), 1), (Some(2), 2), (None, 3))
        );
        metrics.deny(Denial::WrongProject);
        let denied = metrics
            .samples()
            .into_iter()
            .find(|s| s.label == Some(("reason", "wrong_project")));
        assert_eq!(denied.unwrap().value, 1);
    }
}
