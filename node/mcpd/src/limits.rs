//! Every limit of the control plane, with unit and meaning.

use std::time::Duration;

/// Largest body of a request, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bodies up to this size, in bytes, need no room among the larger ones, and no larger one is received from somebody without a
/// bearer.
pub const SMALL_BODY_BYTES: usize = 16 * 1024;
/// All larger bodies together that this node holds at once, in KiB. A request that finds no room is answered 429.
pub const BODIES_KIB_MAX: usize = 32 * 1024;
/// Requests that are received or worked on at once. One more is answered 429.
pub const REQUESTS_MAX: usize = 1_024;
/// Longest wait for a body to arrive.
pub const BODY_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for a write: longer than a failover and a lease together, so that a revoke is answered with a whole receipt
/// even when the leader has just died.
pub const WRITE_WAIT: Duration = Duration::from_secs(15);
/// Longest wait for a write that somebody may ask for, in seconds: a lease lasts a minute at most.
pub const WRITE_WAIT_SECONDS_MAX: u64 = 300;
/// Longest wait until this node has applied an index that a reader asked for, or that it wrote itself.
pub const INDEX_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for the leader's word on how far there is to apply.
pub const READ_INDEX_WAIT: Duration = Duration::from_secs(3);
/// Requests with an unknown bearer that ask the leader at the same time. Others are told to come back.
pub const UNKNOWN_BEARERS_MAX: usize = 32;
/// Passwords that are hashed at the same time: 19 MiB and one core each.
pub const HASHING_MAX: usize = 2;
/// Longest wait for a turn to have a password hashed.
pub const HASHING_WAIT: Duration = Duration::from_secs(5);
/// Longest password, in bytes: hashing takes time by length.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Shortest password of a new user, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// How long a session lasts, ms: 24 hours.
pub const SESSION_MS: u64 = 24 * 3_600_000;
/// Longest session of a service account, ms: 90 days.
pub const SERVICE_SESSION_MS_MAX: u64 = 90 * 24 * 3_600_000;
/// Logins that may fail before the next one has to wait.
pub const LOGIN_FAILURES_FREE: u32 = 5;
/// Longest wait after failed logins, ms.
pub const LOGIN_PENALTY_MS_MAX: u64 = 60_000;
/// After this time without a failed login they are forgotten, ms.
pub const LOGIN_FORGET_MS: u64 = 15 * 60_000;
/// Users and addresses whose failed logins are remembered.
pub const LOGIN_ENTRIES_MAX: usize = 10_000;
/// Records that are looked through for one page of a list.
pub const SCAN_MAX: usize = 20_000;
/// Tries of a change that others keep overtaking.
pub const OVERTAKEN_MAX: u32 = 4;
/// Longest description or other free text, in bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Longest text for the model, in bytes.
pub const INSTRUCTIONS_BYTES_MAX: usize = 65_536;
/// Arguments, environment variables or headers of a server.
pub const SERVER_ENTRIES_MAX: usize = 200;
/// Longest deadline of a server, ms: an hour.
pub const SERVER_DEADLINE_MS_MAX: u64 = 3_600_000;
/// Faults that are listed in one answer.
pub const FAULTS_MAX: usize = 32;
/// How long a join token lets in if nothing is said.
pub const JOIN_TTL: &str = "1h";
/// How long at most, ms: 7 days.
pub const JOIN_TTL_MS_MAX: u64 = 7 * 86_400_000;
/// Longest wait until the membership says what was decided.
pub const SETTLE_WAIT: Duration = Duration::from_secs(5);
/// Backups that one node sends at a time.
pub const BACKUPS_MAX: usize = 1;
/// Nodes that are looked through.
pub const NODES_MAX: usize = 1_000;
