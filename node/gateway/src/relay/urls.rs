//! Calls of modern clients that a legacy server refuses until the user has visited a URL (`-32042`). Such a client is asked by the result
//! of its request, and answers with another request, which any replica may get: that one makes the call anew. Nothing is kept
//! meanwhile, because the server has done nothing.

use mcp_wire::rounds::Retry;

use super::held::{HeldId, seal_for};
use crate::Inner;
use crate::calls::Target;
use crate::dispatch::Request;

const PURPOSE: &[u8] = b"mcp required urls 1";

/// The state under which the client comes back; none if the system has no random bytes.
pub(crate) fn state(gateway: &Inner, request: &Request, target: &Target) -> Option<String> {
    seal_for(gateway, PURPOSE, &HeldId::nothing(gateway, request, target))
}

/// Whether a client comes back with this to what it was asked; `false`: to something else than this request.
pub(crate) fn is_answer(gateway: &Inner, request: &Request, target: &Target, retry: &Retry) -> Option<bool> {
    let plain = gateway.relay.seals.open_bytes(PURPOSE, &retry.state)?;
    let id: HeldId = postcard::from_bytes(&plain).ok()?;
    Some(id.is_about(request, target))
}
