//! What users write about how much may be used: of a server, and by the tokens of a project. `None` means that the node decides.

use serde::{Deserialize, Serialize};

use crate::frame::Framed;
use crate::ids::Id;
use crate::tables::{Key, Stored, Table};

/// How a server is to be spared, and how long it is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(into = "KeptServerLimits", from = "KeptServerLimits")]
pub struct ServerLimits {
    /// Longest wait for the first byte of an answer, ms.
    pub first_byte_ms: Option<u64>,
    /// Longest silence within an answer, ms.
    pub idle_ms: Option<u64>,
    /// Calls at once, on each node.
    pub calls: Option<u32>,
    /// Calls that wait for a place, on each node.
    pub queue: Option<u32>,
    /// Sessions that a node opens with it.
    pub sessions: Option<u32>,
    /// Largest answer, in bytes.
    pub answer_bytes: Option<u64>,
    /// How long nobody may have used a child before it is stopped, ms; zero: it is not.
    pub idle_stop_ms: Option<u64>,
}

/// The bytes of [`ServerLimits`]. Where the largest answer was last and may have been left out, four cases stand now: the first two
/// have the bytes that it had, so that whatever was written before reads as it did.
#[derive(Serialize, Deserialize)]
struct KeptServerLimits {
    first_byte_ms: Option<u64>,
    idle_ms: Option<u64>,
    calls: Option<u32>,
    queue: Option<u32>,
    sessions: Option<u32>,
    last: Last,
}

/// Append-only.
#[derive(Serialize, Deserialize)]
enum Last {
    Nothing,
    AnswerBytes(u64),
    IdleStop(u64),
    Both { answer_bytes: u64, idle_stop_ms: u64 },
}

impl From<ServerLimits> for KeptServerLimits {
    fn from(limits: ServerLimits) -> KeptServerLimits {
        KeptServerLimits {
            first_byte_ms: limits.first_byte_ms,
            idle_ms: limits.idle_ms,
            calls: limits.calls,
            queue: limits.queue,
            sessions: limits.sessions,
            last: match (limits.answer_bytes, limits.idle_stop_ms) {
                (None, None) => Last::Nothing,
                (Some(answer_bytes), None) => Last::AnswerBytes(answer_bytes),
                (None, Some(idle_stop_ms)) => Last::IdleStop(idle_stop_ms),
                (Some(answer_bytes), Some(idle_stop_ms)) => Last::Both {
                    answer_bytes,
                    idle_stop_ms,
                },
            },
        }
    }
}

impl From<KeptServerLimits> for ServerLimits {
    fn from(kept: KeptServerLimits) -> ServerLimits {
        let (answer_bytes, idle_stop_ms) = match kept.last {
            Last::Nothing => (None, None),
            Last::AnswerBytes(answer_bytes) => (Some(answer_bytes), None),
            Last::IdleStop(idle_stop_ms) => (None, Some(idle_stop_ms)),
            Last::Both {
                answer_bytes,
                idle_stop_ms,
            } => (Some(answer_bytes), Some(idle_stop_ms)),
        };
        ServerLimits {
            first_byte_ms: kept.first_byte_ms,
            idle_ms: kept.idle_ms,
            calls: kept.calls,
            queue: kept.queue,
            sessions: kept.sessions,
            answer_bytes,
            idle_stop_ms,
        }
    }
}

/// What one token, or all of a project together, may use on each node. Zero: nothing at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Requests per second.
    pub rate: Option<u32>,
    /// Requests at once.
    pub requests: Option<u32>,
    /// Streams held open.
    pub streams: Option<u32>,
    /// Sessions.
    pub sessions: Option<u32>,
}

/// What a project's tokens may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProjectLimits {
    /// Each of them.
    pub token: Quota,
    /// All of them together.
    pub project: Quota,
    /// Largest request body, in bytes.
    pub body_bytes: Option<u64>,
    /// How long a session may be idle, ms.
    pub session_idle_ms: Option<u64>,
}

/// The limits of one server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerLimitsRecord {
    /// Whose.
    pub server: Id,
    /// What they are.
    pub limits: ServerLimits,
}

/// The limits of one project.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProjectLimitsRecord {
    /// Whose.
    pub project: Id,
    /// What they are.
    pub limits: ProjectLimits,
}

impl Framed for ServerLimitsRecord {
    const KIND: u8 = 41;
}

impl Stored for ServerLimitsRecord {
    const TABLE: Table = Table::ServerLimits;
    fn key(&self) -> Key {
        Key::from(self.server.to_bytes())
    }
}

impl Framed for ProjectLimitsRecord {
    const KIND: u8 = 42;
}

impl Stored for ProjectLimitsRecord {
    const TABLE: Table = Table::ProjectLimits;
    fn key(&self) -> Key {
        Key::from(self.project.to_bytes())
    }
}
