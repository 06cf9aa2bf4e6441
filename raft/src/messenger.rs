//! What the data planes of two nodes say to each other: the reply of a client that came to another replica than the one that
//! asked. It is not consensus' business, so it travels as bytes, on a connection of its own, and the node hands in who hears it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use mcp_model::ids::NodeId;

use crate::link::Lane;
use crate::node::Core;
use crate::rpc::TELL;

/// Longest message, in bytes: a request body of a client at its largest, and what is said about it.
pub const MESSAGE_BYTES_MAX: usize = 6 * 1024 * 1024;

/// An answer that is on its way.
pub type Hearing<'a> = Pin<Box<dyn Future<Output = Vec<u8>> + Send + 'a>>;

/// Hears what other members say.
pub trait Listener: Send + Sync + 'static {
    /// Answers a message of this member.
    fn hear(&self, from: NodeId, message: Bytes) -> Hearing<'_>;
}

/// The other node did not answer: it is no member, cannot be reached, or took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {0} cannot be reached")]
pub struct Unheard(pub NodeId);

/// Tells a member something and waits for its answer.
pub(crate) async fn tell(core: &Core, to: NodeId, message: Vec<u8>, wait: Duration) -> Result<Vec<u8>, Unheard> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Unheard(to));
    }
    let link = core.link(to).ok_or(Unheard(to))?;
    let told = link.call(Lane::Calls, TELL, &message, wait).await;
    told.map_err(|error| {
        tracing::debug!(%error, "a message to a peer was not answered");
        Unheard(to)
    })
}

/// What this node answers. Nobody hears before the gateway is there.
pub(crate) async fn hear(core: &Arc<Core>, from: NodeId, message: Vec<u8>) -> Result<Vec<u8>, StatusCode> {
    let listener = core.listener.get().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(listener.hear(from, Bytes::from(message)).await)
}
