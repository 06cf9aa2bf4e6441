//! The limits of servers and projects: from what people write to what is kept, and back.

use mcp_api::limits::{ProjectLimitsBody, QuotaBody, ServerLimitsBody};
use mcp_model::ids::Id;
use mcp_model::limits::{ProjectLimits, ProjectLimitsRecord, Quota, ServerLimits, ServerLimitsRecord};
use mcp_model::tables::{self, Tables};

use crate::body::Faults;
use crate::limits::SERVER_DEADLINE_MS_MAX;

/// Largest body or answer that a limit may allow, in bytes.
const BYTES_MAX: u64 = 256 << 20;
/// Least: a message has to fit.
const BYTES_MIN: u64 = 1 << 10;
/// Most of anything that is counted.
const COUNT_MAX: u32 = 1_000_000;
/// Sessions that one node opens with one server.
const SERVER_SESSIONS_MAX: u32 = 64;
/// Longest that a session may be idle, s: thirty days.
const IDLE_SECONDS_MAX: u64 = 30 * 86_400;

pub(crate) fn read_server(body: &ServerLimitsBody, faults: &mut Faults) -> ServerLimits {
    for (field, ms) in [
        ("limits.firstByteMs", body.first_byte_ms),
        ("limits.idleMs", body.idle_ms),
    ] {
        within(faults, field, ms, 1, SERVER_DEADLINE_MS_MAX);
    }
    let count = |count: Option<u32>| count.map(u64::from);
    within(
        faults,
        "limits.concurrentCalls",
        count(body.concurrent_calls),
        1,
        COUNT_MAX.into(),
    );
    within(
        faults,
        "limits.queuedCalls",
        count(body.queued_calls),
        0,
        COUNT_MAX.into(),
    );
    within(
        faults,
        "limits.sessions",
        count(body.sessions),
        1,
        SERVER_SESSIONS_MAX.into(),
    );
    within(faults, "limits.answerBytes", body.answer_bytes, BYTES_MIN, BYTES_MAX);
    let idle_stop = body.idle_stop_seconds;
    within(faults, "limits.idleStopSeconds", idle_stop, 0, IDLE_SECONDS_MAX);
    ServerLimits {
        first_byte_ms: body.first_byte_ms,
        idle_ms: body.idle_ms,
        calls: body.concurrent_calls,
        queue: body.queued_calls,
        sessions: body.sessions,
        answer_bytes: body.answer_bytes,
        idle_stop_ms: idle_stop.map(|seconds| seconds.saturating_mul(1_000)),
    }
}

pub(crate) fn show_server(tables: &dyn Tables, server: Id) -> ServerLimitsBody {
    let record: Option<ServerLimitsRecord> = tables::by_id(tables, server);
    let limits = record.map(|record| record.limits).unwrap_or_default();
    ServerLimitsBody {
        first_byte_ms: limits.first_byte_ms,
        idle_ms: limits.idle_ms,
        concurrent_calls: limits.calls,
        queued_calls: limits.queue,
        sessions: limits.sessions,
        answer_bytes: limits.answer_bytes,
        idle_stop_seconds: limits.idle_stop_ms.map(|ms| ms / 1_000),
    }
}

pub(crate) fn read_project(body: &ProjectLimitsBody, faults: &mut Faults) -> ProjectLimits {
    within(faults, "limits.bodyBytes", body.body_bytes, BYTES_MIN, BYTES_MAX);
    let idle = body.session_idle_seconds;
    within(faults, "limits.sessionIdleSeconds", idle, 1, IDLE_SECONDS_MAX);
    ProjectLimits {
        token: read_quota("limits.perToken", &body.per_token, faults),
        project: read_quota("limits.perProject", &body.per_project, faults),
        body_bytes: body.body_bytes,
        session_idle_ms: idle.map(|seconds| seconds.saturating_mul(1_000)),
    }
}

pub(crate) fn show_project(tables: &dyn Tables, project: Id) -> ProjectLimitsBody {
    let record: Option<ProjectLimitsRecord> = tables::by_id(tables, project);
    let limits = record.map(|record| record.limits).unwrap_or_default();
    ProjectLimitsBody {
        per_token: show_quota(&limits.token),
        per_project: show_quota(&limits.project),
        body_bytes: limits.body_bytes,
        session_idle_seconds: limits.session_idle_ms.map(|ms| ms / 1_000),
    }
}

fn read_quota(of: &str, body: &QuotaBody, faults: &mut Faults) -> Quota {
    for (field, count) in [
        ("requestsPerSecond", body.requests_per_second),
        ("concurrentRequests", body.concurrent_requests),
        ("streams", body.streams),
        ("sessions", body.sessions),
    ] {
        within(
            faults,
            &format!("{of}.{field}"),
            count.map(u64::from),
            0,
            COUNT_MAX.into(),
        );
    }
    Quota {
        rate: body.requests_per_second,
        requests: body.concurrent_requests,
        streams: body.streams,
        sessions: body.sessions,
    }
}

fn show_quota(quota: &Quota) -> QuotaBody {
    QuotaBody {
        requests_per_second: quota.rate,
        concurrent_requests: quota.requests,
        streams: quota.streams,
        sessions: quota.sessions,
    }
}

fn within(faults: &mut Faults, field: &str, value: Option<u64>, least: u64, most: u64) {
    if value.is_some_and(|value| value < least || value > most) {
        faults.add(field, format!("from {least} to {most}"));
    }
}
