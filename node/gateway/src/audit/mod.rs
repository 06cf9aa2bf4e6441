//! The data-plane audit: who called what, when it began and how it ended, in append-only, hash-chained files of this node.
//!
//! A start record is written *before* anything reaches an upstream, and an end record before the answer is through: kill -9 loses
//! neither. Refusals of strangers follow within [`SOON_MS`]. A few times a second all is synced to disk. What cannot be audited is
//! not done.

mod chain;
mod disk;
mod line;
#[cfg(test)]
mod refusing_tests;
mod segment;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_model::clock::{Clock, Reading};
use mcp_model::ids::NodeId;
use mcp_model::token::TokenHash;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::chain::{Verified, verify};
#[doc(hidden)]
pub use self::chain::{last_seq_of, verify_text};
use self::line::{Line, Members};
pub use self::segment::AuditError;
use self::segment::{Segments, When};
use crate::admit::Permit;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// How long the refusal of a stranger may wait to be written, in milliseconds. One `write(2)` then serves many of them.
const SOON_MS: u64 = 5;

/// The audit of one node.
pub(crate) struct Audit {
    segments: Segments,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    denials: AtomicU64,
    denials_max: u64,
    sync_ms: u64,
    waiting: Notify,
}

/// One record as it is written, after its time, node and number. Fields that do not apply are left out.
#[derive(Default)]
struct Record<'a> {
    kind: &'static str,
    start: Option<u64>,
    session_id: Option<mcp_model::ids::Id>,
    request_id: Option<&'a str>,
    project: Option<&'a str>,
    server: Option<&'a str>,
    tool: Option<&'a str>,
    method: Option<&'a str>,
    user_name: Option<&'a str>,
    token_name: Option<&'a str>,
    token_sha: Option<[u8; 32]>,
    decision: &'static str,
    reason: Option<&'a str>,
    duration_us: Option<u64>,
    bytes: Option<u64>,
}

impl Members for Record<'_> {
    fn write(&self, line: &mut Line<'_>) {
        line.text("kind", self.kind);
        line.number("start", self.start);
        if let Some(id) = self.session_id {
            line.id("sessionId", id);
        }
        for (name, text) in [
            ("requestId", self.request_id),
            ("project", self.project),
            ("server", self.server),
            ("tool", self.tool),
            ("method", self.method),
            ("userName", self.user_name),
            ("tokenName", self.token_name),
        ] {
            if let Some(text) = text {
                line.text(name, text);
            }
        }
        if let Some(hash) = &self.token_sha {
            line.hex("tokenSha", hash);
        }
        line.text("decision", self.decision);
        if let Some(reason) = self.reason {
            line.text("reason", reason);
        }
        if let Some(us) = self.duration_us {
            line.ms_of_us("durationMs", us);
        }
        line.number("bytes", self.bytes);
    }
}

/// What a call is about, for its records.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About<'a> {
    pub(crate) session: Option<mcp_model::ids::Id>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) method: Option<&'a str>,
    pub(crate) server: Option<&'a str>,
    pub(crate) tool: Option<&'a str>,
}

/// A call under way whose start is on record. Its end is recorded when it is dropped, whatever happens.
pub(crate) struct Running {
    audit: Arc<Audit>,
    start: u64,
    began: Reading,
    bytes: u64,
    outcome: &'static str,
}

impl Audit {
    /// Opens the audit in `dir` and continues the chain of the last record there.
    pub(crate) fn open(
        dir: &Path,
        node: NodeId,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        limits: &Limits,
    ) -> Result<Audit, AuditError> {
        let segments = Segments::open(
            dir,
            &node.to_string(),
            limits.audit_segment_bytes,
            limits.audit_bytes_max,
        )?;
        Ok(Audit {
            segments,
            clock,
            metrics,
            denials: AtomicU64::new(0),
            denials_max: limits.audit_denials_max,
            sync_ms: limits.audit_sync_ms,
            waiting: Notify::new(),
        })
    }

    /// Records that a call begins, at the moment at which it was admitted. Only then may it reach an upstream.
    pub(crate) fn start(self: &Arc<Self>, permit: &Permit, about: About<'_>) -> Result<Running, AuditError> {
        let record = Record {
            kind: "start",
            decision: "allow",
            ..with(permit, about)
        };
        let start = self.write(permit.at_ms(), &record, When::Now)?;
        Ok(Running {
            audit: self.clone(),
            start,
            began: permit.at(),
            bytes: 0,
            outcome: "abandoned",
        })
    }

    /// Records that an admitted principal was refused something.
    pub(crate) fn deny(&self, permit: &Permit, about: About<'_>, reason: &str) {
        let record = Record {
            kind: "deny",
            decision: "deny",
            reason: Some(reason),
            ..with(permit, about)
        };
        self.write_or_count(record, When::Now);
    }

    /// Records something about an answer that was given.
    pub(crate) fn note(&self, permit: &Permit, about: About<'_>, reason: &str) {
        let record = Record {
            kind: "note",
            decision: "allow",
            reason: Some(reason),
            ..with(permit, about)
        };
        self.write_or_count(record, When::Soon);
    }

    /// Records that a request was not admitted. A flood of these is counted, not written.
    pub(crate) fn refuse(&self, hash: Option<TokenHash>, project: Option<&str>, reason: &str) {
        if self.denials.fetch_add(1, Ordering::Relaxed) >= self.denials_max {
            Metrics::add(&self.metrics.audit_denials_skipped);
            return;
        }
        let token_sha = hash.map(|hash| hash.0);
        let record = Record {
            kind: "refuse",
            decision: "deny",
            reason: Some(reason),
            project,
            token_sha,
            ..Record::default()
        };
        // A flood of strangers shares writes: a few milliseconds of their refusals are all that kill -9 can take.
        self.write_or_count(record, When::Soon);
    }

    fn write_or_count(&self, record: Record<'_>, when: When) {
        if let Err(error) = self.write(self.clock.wall_ms(), &record, when) {
            tracing::error!(%error, "audit record not written");
        }
        if when == When::Soon {
            self.waiting.notify_one();
        }
    }

    fn write(&self, time_ms: u64, record: &Record<'_>, when: When) -> Result<u64, AuditError> {
        let written = self.segments.append(time_ms, record, when);
        match &written {
            Ok(_) => Metrics::add(&self.metrics.audit_records),
            Err(_) => Metrics::add(&self.metrics.audit_failed),
        }
        written
    }

    /// Writes what waits and syncs what was written, again and again, until told to stop; then once more.
    pub(crate) async fn keep_synced(self: Arc<Self>, stop: CancellationToken) {
        let mut sync = tokio::time::interval(Duration::from_millis(self.sync_ms));
        loop {
            tokio::select! {
                biased;
                _ = sync.tick() => self.sync().await,
                () = stop.cancelled() => return self.sync().await,
                () = self.waiting.notified() => {
                    tokio::time::sleep(Duration::from_millis(SOON_MS)).await;
                    self.write_waiting();
                }
            }
        }
    }

    fn write_waiting(&self) {
        if let Err(error) = self.segments.write_waiting() {
            tracing::error!(%error, "audit records not written: calls are refused");
        }
    }

    /// A disk that had failed may have room again.
    fn retry(&self) {
        match self.segments.retry() {
            Ok(false) => {}
            Ok(true) => tracing::info!("the audit is written again: calls are answered"),
            Err(error) => tracing::debug!(%error, "the audit cannot be written yet"),
        }
    }

    async fn sync(&self) {
        self.denials.store(0, Ordering::Relaxed);
        self.retry();
        self.write_waiting();
        let Some(file) = self.segments.take_unsynced() else {
            return;
        };
        match tokio::task::spawn_blocking(move || disk::sync(&file)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(&error.to_string()),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// A disk that does not keep what it took cannot be audited to: nothing more is written, so nothing more is called, until
    /// it does.
    fn fail(&self, why: &str) {
        tracing::error!(why, "audit cannot be synced: calls are refused");
        self.segments.fail(why);
    }
}

fn with<'a>(permit: &'a Permit, about: About<'a>) -> Record<'a> {
    Record {
        session_id: about.session,
        request_id: about.request_id,
        project: Some(permit.project().name.as_str()),
        server: about.server,
        tool: about.tool,
        method: about.method,
        user_name: Some(&permit.owner().who),
        token_name: Some(&permit.token().name),
        token_sha: Some(permit.hash().0),
        ..Record::default()
    }
}

impl Running {
    /// Counts bytes of the answer.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// Says how it ended; recorded when this is dropped.
    pub(crate) fn ends(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now_ns = self.audit.clock.boot_ns();
        let took_us = now_ns.saturating_sub(self.began.boot_ns) / 1_000;
        self.audit.metrics.took(took_us);
        let record = Record {
            kind: "end",
            start: Some(self.start),
            decision: "allow",
            reason: Some(self.outcome),
            duration_us: Some(took_us),
            bytes: Some(self.bytes),
            ..Record::default()
        };
        self.audit.write_or_count(record, When::Now);
    }
}
