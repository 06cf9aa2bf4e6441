//! Every limit of the gateway in one table: default, unit, range, meaning. The wire's own limits stand in
//! `mcp_wire::limits`.

use mcp_model::limits::{ProjectLimits, Quota};

/// Bodies up to this size need no room among the larger ones: [`Limits::requests_max`] bounds them. Bytes.
pub const SMALL_BODY_BYTES: usize = 8 << 10;

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// All larger bodies together that this node holds, in bytes: what clients can make it remember. A body above
    /// [`SMALL_BODY_BYTES`] takes its announced size of it (or, unannounced, the largest) until its request is answered, and only
    /// for a token that is admitted before it is received; a request that finds no room is answered 503.
    pub bodies_bytes_max: usize,
    /// How long a client may take to send its body, in milliseconds.
    pub body_ms: u64,
    /// Within this time a body comes, as a rule; who takes longer has to be admitted first, in milliseconds.
    pub body_soon_ms: u64,
    /// Requests being worked on at once, on this node.
    pub requests_max: usize,
    /// Event streams held open at once, on this node.
    pub streams_max: usize,
    /// Requests with unknown tokens that ask for newer state at once, on this node.
    pub unknown_tokens_max: usize,
    /// Wait for a first frame before the answer becomes a stream, in milliseconds.
    pub first_frame_ms: u64,
    /// Between two comments on a quiet stream, in milliseconds.
    pub comment_every_ms: u64,
    /// How long a stream may wait for this node's lease to come back, in milliseconds.
    pub lease_wait_ms: u64,
    /// What `Retry-After` says when there is no lease, in seconds.
    pub retry_after_s: u64,
    /// How long a session is good for, in milliseconds.
    pub session_ms: u64,
    /// Ended sessions that are remembered, on this node.
    pub ended_sessions_max: usize,
    /// How long a client may take to answer a server's request (sampling, elicitation, roots), in milliseconds. A person may be
    /// asked. The server is told when it is over.
    pub client_reply_ms: u64,
    /// Calls of modern clients at legacy servers that wait for the client to come back with answers, on this node.
    pub held_max: usize,
    /// Longest call, in milliseconds, progress or not.
    pub call_ms: u64,
    /// Largest answer of an upstream, in bytes.
    pub answer_bytes_max: usize,
    /// Longest tool or prompt name shown to clients, in bytes.
    pub name_bytes_max: usize,
    /// How long a list is good that an upstream gave, in milliseconds.
    pub list_ms: u64,
    /// How long it is until an upstream that did not answer is asked again, in milliseconds.
    pub list_retry_ms: u64,
    /// Longest probe of one upstream, in milliseconds.
    pub probe_ms: u64,
    /// Probes at once, on this node.
    pub probes_max: usize,
    /// Largest list that is replicated, in bytes.
    pub list_bytes_max: usize,
    /// What clients are told about how long a list is good, in milliseconds.
    pub list_ttl_ms: u64,
    /// After a change notice, wait for more of them, in milliseconds.
    pub debounce_ms: u64,
    /// Rendered lists that are kept, on this node.
    pub rendered_max: usize,
    /// Size of an audit segment, in bytes.
    pub audit_segment_bytes: u64,
    /// Size of all audit segments together, in bytes; the oldest go first.
    pub audit_bytes_max: u64,
    /// Between two syncs of the audit to disk, in milliseconds: what a power cut can lose.
    pub audit_sync_ms: u64,
    /// Denials without a known token that are audited between two syncs; the rest is only counted.
    pub audit_denials_max: u64,
    /// Calls of one upstream at once, on this node, where its server says nothing else.
    pub upstream_calls_max: usize,
    /// Calls that wait for a place with one upstream, on this node, where its server says nothing else.
    pub upstream_queue_max: usize,
    /// Longest wait for such a place, in milliseconds.
    pub upstream_wait_ms: u64,
    /// How long nobody may have used a child process before it is stopped, in milliseconds, where its server says nothing else; zero:
    /// it is not.
    pub child_idle_ms: u64,
    /// The same for a child that one session has alone, which loses what it remembers.
    pub session_child_idle_ms: u64,
    /// Sessions that may have a child of one server, on this node, where the server says nothing else.
    pub session_children_max: usize,
    /// What each token, and each project, may use of this node, where the project says nothing else.
    pub quotas: ProjectLimits,
    /// Between two looks for sessions that were abandoned and counters that nobody needs, in milliseconds.
    pub sweep_ms: u64,
    /// Between two replications of when tokens were last used, in milliseconds.
    pub token_use_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: 4 << 20,
            bodies_bytes_max: 64 << 20,
            body_ms: 30_000,
            body_soon_ms: 500,
            requests_max: 4_096,
            streams_max: 16_384,
            unknown_tokens_max: 256,
            first_frame_ms: 5_000,
            comment_every_ms: 15_000,
            lease_wait_ms: 10_000,
            retry_after_s: 1,
            session_ms: 7 * 24 * 3_600_000,
            ended_sessions_max: 10_000,
            client_reply_ms: 600_000,
            held_max: 1_024,
            call_ms: 3_600_000,
            answer_bytes_max: 16 << 20,
            name_bytes_max: 64,
            list_ms: 300_000,
            list_retry_ms: 30_000,
            probe_ms: 60_000,
            probes_max: 8,
            list_bytes_max: 1 << 20,
            list_ttl_ms: 60_000,
            debounce_ms: 300,
            rendered_max: 4_096,
            audit_segment_bytes: 64 << 20,
            audit_bytes_max: 1 << 30,
            audit_sync_ms: 200,
            audit_denials_max: 100,
            upstream_calls_max: 1_024,
            upstream_queue_max: 1_024,
            upstream_wait_ms: 10_000,
            child_idle_ms: 600_000,
            session_child_idle_ms: 1_800_000,
            session_children_max: 64,
            quotas: usual_quotas(),
            sweep_ms: 30_000,
            token_use_ms: 60_000,
        }
    }
}

/// A quarter of the node for one token, sessions that no person needs, and a day of idleness. Rates and streams have no limit of their
/// own: how much is normal, only the operator knows.
fn usual_quotas() -> ProjectLimits {
    ProjectLimits {
        token: Quota {
            requests: Some(1_024),
            sessions: Some(10_000),
            ..Quota::default()
        },
        session_idle_ms: Some(24 * 3_600_000),
        ..ProjectLimits::default()
    }
}

/// One row of the table: a setting with the range in which it works.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// Least value.
    pub least: u64,
    /// Greatest value.
    pub most: u64,
}

impl Limits {
    /// The table.
    pub fn rows(&self) -> Vec<Row> {
        let row = |name, value, least, most| Row {
            name,
            value,
            least,
            most,
        };
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        vec![
            row("body_bytes_max", size(self.body_bytes_max), 1 << 10, 64 << 20),
            row("bodies_bytes_max", size(self.bodies_bytes_max), 64 << 20, 4 << 30),
            row("body_ms", self.body_ms, 100, 600_000),
            row("body_soon_ms", self.body_soon_ms, 10, 60_000),
            row("requests_max", size(self.requests_max), 1, 1_000_000),
            row("streams_max", size(self.streams_max), 1, 1_000_000),
            row("unknown_tokens_max", size(self.unknown_tokens_max), 1, 100_000),
            row("first_frame_ms", self.first_frame_ms, 10, 60_000),
            row("comment_every_ms", self.comment_every_ms, 100, 60_000),
            row("lease_wait_ms", self.lease_wait_ms, 0, 60_000),
            row("retry_after_s", self.retry_after_s, 1, 60),
            row("session_ms", self.session_ms, 60_000, 365 * 24 * 3_600_000),
            row("ended_sessions_max", size(self.ended_sessions_max), 1, 1_000_000),
            row("client_reply_ms", self.client_reply_ms, 10, 24 * 3_600_000),
            row("held_max", size(self.held_max), 0, 100_000),
            row("call_ms", self.call_ms, 100, 24 * 3_600_000),
            row("answer_bytes_max", size(self.answer_bytes_max), 1 << 10, 256 << 20),
            row("name_bytes_max", size(self.name_bytes_max), 32, 128),
            row("list_ms", self.list_ms, 100, 3_600_000),
            row("list_retry_ms", self.list_retry_ms, 100, 3_600_000),
            row("probe_ms", self.probe_ms, 100, 600_000),
            row("probes_max", size(self.probes_max), 1, 256),
            row("list_bytes_max", size(self.list_bytes_max), 1 << 10, 8 << 20),
            row("list_ttl_ms", self.list_ttl_ms, 0, 60_000),
            row("debounce_ms", self.debounce_ms, 0, 60_000),
            row("rendered_max", size(self.rendered_max), 1, 1_000_000),
            row("audit_segment_bytes", self.audit_segment_bytes, 64 << 10, 1 << 30),
            row("audit_bytes_max", self.audit_bytes_max, 1 << 20, 1 << 40),
            row("audit_sync_ms", self.audit_sync_ms, 1, 10_000),
            row("audit_denials_max", self.audit_denials_max, 0, 1_000_000),
            row("upstream_calls_max", size(self.upstream_calls_max), 1, 1_000_000),
            row("upstream_queue_max", size(self.upstream_queue_max), 0, 1_000_000),
            row("upstream_wait_ms", self.upstream_wait_ms, 1, 600_000),
            row("child_idle_ms", self.child_idle_ms, 0, 30 * 24 * 3_600_000),
            row(
                "session_child_idle_ms",
                self.session_child_idle_ms,
                0,
                30 * 24 * 3_600_000,
            ),
            row("session_children_max", size(self.session_children_max), 1, 100_000),
            row("sweep_ms", self.sweep_ms, 10, 3_600_000),
            row("token_use_ms", self.token_use_ms, 100, 3_600_000),
        ]
    }

    /// The first setting outside its range, if there is one.
    pub fn fault(&self) -> Option<String> {
        let outside = |row: &Row| row.value < row.least || row.value > row.most;
        let row = self.rows().into_iter().find(outside)?;
        Some(format!(
            "{} is {}: it must be between {} and {}",
            row.name, row.value, row.least, row.most
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_ranges_and_what_is_outside_is_named() {
        assert_eq!(Limits::default().fault(), None);
        let wrong = Limits {
            audit_sync_ms: 0,
            ..Limits::default()
        };
        assert!(wrong.fault().unwrap().starts_with("audit_sync_ms is 0"));
    }
}
