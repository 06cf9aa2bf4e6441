//! Limits of the wire: every size and wait in one table, with unit and meaning. Callers may pass others where a
//! setting of theirs says so; nothing is without one.

/// Deepest nesting of a message, in levels.
pub const DEPTH_MAX: usize = 128;
/// Longest request id or progress token, in bytes of raw JSON. Both are repeated in every frame.
pub const ID_BYTES_MAX: usize = 1024;
/// Largest request body, in bytes.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Largest message an upstream may send (a JSON body, one event, one stdio line), in bytes.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// What one call may leave unread from a shared stdio upstream, in bytes, before the call is given up: a slow client
/// must not make the others wait or fill the memory.
pub const BACKLOG_BYTES_MAX: usize = 16 << 20;
/// Requests of a server that wait for an answer within one call.
pub const ASKED_MAX: usize = 16;
/// Requests of a server in one call altogether: people and models are not asked more often for one thing.
pub const ASKED_IN_ALL_MAX: usize = 1024;
/// Answers under way to what an HTTP upstream asks of us (pings, requests that are refused). It gets no more while so many are.
pub const ANSWERS_ASIDE_MAX: usize = 32;
/// Messages waiting to be written to a stdio upstream.
pub const STDIN_QUEUE_MAX: usize = 256;
/// Lines of stderr kept per stdio upstream.
pub const STDERR_LINES_MAX: usize = 200;
/// Longest kept line of stderr, in bytes; the rest of the line is dropped.
pub const STDERR_LINE_BYTES_MAX: usize = 2048;
/// Wait for a TCP connection and for a TLS handshake, in milliseconds.
pub const CONNECT_MS: u64 = 5_000;
/// Wait for the opening exchange with an upstream, in milliseconds. Long enough for `npx` to fetch a package.
pub const HANDSHAKE_MS: u64 = 60_000;
/// Longest silence within one call, in milliseconds: to the first frame, and between frames.
pub const IDLE_MS: u64 = 120_000;
/// Longest call, in milliseconds, progress or not.
pub const TOTAL_MS: u64 = 3_600_000;
/// Idle pooled connections per upstream host.
pub const POOL_IDLE_MAX: usize = 256;
/// Largest read from an HTTP upstream, and so the largest head of an answer, in bytes: what one connection keeps, and how much of a flood
/// is looked at before others have their turn.
pub const READ_BYTES_MAX: usize = 64 << 10;
/// How long an idle pooled connection is kept, in milliseconds. Below the usual keep-alive of servers is better:
/// a connection that the server closes at the moment of use costs a call.
pub const POOL_IDLE_MS: u64 = 4_000;
/// Redirects followed within one origin.
pub const REDIRECTS_MAX: usize = 3;
/// First wait before a dead stdio upstream is started again, in milliseconds; doubled each time.
pub const RESTART_FIRST_MS: u64 = 200;
/// Longest wait before a restart, in milliseconds.
pub const RESTART_MAX_MS: u64 = 30_000;
/// A stdio upstream that ran this long starts again without a wait, in milliseconds.
pub const RESTART_FORGIVEN_MS: u64 = 10_000;
/// How long what a stdio upstream said last is read after it has left, in milliseconds.
pub const LAST_WORDS_MS: u64 = 200;
/// How long a stdio upstream may take to leave after its stdin was closed, in milliseconds.
pub const LEAVE_MS: u64 = 2_000;
/// Pages of one list.
pub const LIST_PAGES_MAX: usize = 100;
/// Bytes of all lists of one upstream together.
pub const LISTS_BYTES_MAX: usize = 2 << 20;
