//! How a machine joins: what it asks at the door of the peers' listener, and what it is answered. Both sides speak JSON, so
//! that each can understand one that is a little older or newer.

pub(crate) mod guest;
pub(crate) mod host;
mod pinned;

use serde::{Deserialize, Serialize};

/// What is spoken here. Another version is refused.
pub(crate) const VERSION: u32 = 1;

/// A machine asks to be let in. Its private keys stay where they are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Question {
    pub(crate) version: u32,
    /// The one-time secret of the join token.
    pub(crate) secret: String,
    pub(crate) node: String,
    pub(crate) name: String,
    /// Where its peers will connect to.
    pub(crate) peer_address: String,
    /// Certificate request for its peers, PEM.
    pub(crate) peer_request: String,
    /// Certificate request for its listeners, PEM, and the hosts that it is to name.
    pub(crate) listener_request: String,
    pub(crate) hosts: Vec<String>,
}

/// It is let in. The only message that carries the data key: it goes over a connection whose end was checked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    pub(crate) cluster: String,
    /// Whether it votes once it has caught up.
    pub(crate) voter: bool,
    pub(crate) authority: String,
    pub(crate) peer_certificate: String,
    pub(crate) listener_certificate: String,
    /// Base64.
    pub(crate) data_key: String,
}

/// It is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct No {
    pub(crate) code: Code,
    /// Why.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    /// The question cannot be understood.
    BadQuestion,
    /// The token does not let in.
    BadToken,
    /// Its name or address is somebody's already, or cannot be one.
    BadNode,
    /// Not now.
    Unavailable,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}
