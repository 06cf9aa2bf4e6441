//! The wire against real sockets and real child processes. The peers are plain axum servers and a small Python script
//! that know nothing of this crate.

#![allow(clippy::unwrap_used)] // Helpers of tests, which may.

mod client;
mod http;
mod sessions;
mod stdio;

use bytes::Bytes;
use mcp_wire::message::Message;
use mcp_wire::upstream::{Frame, Frames, UpstreamError};
use serde_json::Value;

fn message(text: &str) -> Message {
    Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

fn call_of(id: &str, tool: &str, token: Option<&str>) -> Message {
    let meta = token
        .map(|token| format!(r#""_meta":{{"progressToken":{token}}},"#))
        .unwrap_or_default();
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{{meta}"name":"{tool}","arguments":{{"id":{id}}}}}}}"#
    ))
}

/// All frames of a call, as JSON.
async fn drain(mut frames: Frames) -> Result<Vec<Value>, UpstreamError> {
    let mut all = Vec::new();
    while let Some(frame) = frames.next().await? {
        let bytes = match frame {
            Frame::Notification(bytes) | Frame::Response { bytes, .. } => bytes,
            Frame::Request(asked) => {
                frames.refuse(&asked);
                continue;
            }
            Frame::Withdrawn(_) => continue,
        };
        all.push(serde_json::from_slice(&bytes).unwrap());
    }
    Ok(all)
}

/// Waits until something holds, at most ten seconds.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    for _ in 0..1000 {
        if let Some(found) = probe().await {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}
