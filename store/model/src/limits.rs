//! What users write about how much may be used: of a server, and by the tokens of a project. `None` means that the node decides.

use serde::{Deserialize, Serialize};

use crate::frame::Framed;
use crate::ids::Id;
use crate::tables::{Key, Stored, Table};

/// How a server is to be spared, and how long it is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
