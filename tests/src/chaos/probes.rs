//! Clients that call a tool through every node's gateway all the time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::history::{Line, Probe, Slot};
use super::machine::gateway;
use super::upstream::{TOOL, TOUCHED};
use super::world::{Token, World};
use crate::api::request;
use crate::clock::now_ns;
use crate::connection::Connection;
use crate::random::Random;

/// How long an answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The same for what is sent right after an acknowledgement: longer than a node is paused.
pub(super) const VOLLEY_WAIT: Duration = Duration::from_secs(8);
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// The pause after a connection was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Probes one node until the run stops, with a pause between two.
pub(super) async fn keep_probing(world: Arc<World>, slot: Slot, pause: Duration, seed: u64) {
    let mut random = Random::from_seed(seed);
    let mut client = Client::new(slot);
    while !world.is_stopping() {
        tokio::time::sleep(pause).await;
        let Some(token) = world.token(&mut random) else {
            continue;
        };
        if !client.probe(&world, &token, ANSWER_WAIT).await.sent {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

/// One probe per node with a token that was just revoked, so that it is the next thing that each finds.
pub(super) fn volley(world: &Arc<World>, token: &Token) {
    for slot in 0..world.slots {
        let (world, token) = (Arc::clone(world), token.clone());
        tokio::spawn(async move { Client::new(slot).probe(&world, &token, VOLLEY_WAIT).await });
    }
}

/// How far a probe came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probed {
    pub(super) sent: bool,
    pub(super) served: bool,
}

/// A connection to one gateway, made anew when it breaks.
pub(super) struct Client {
    slot: Slot,
    connection: Option<Connection>,
}

impl Client {
    pub(super) fn new(slot: Slot) -> Client {
        Client { slot, connection: None }
    }

    /// Sends one probe and writes it down.
    pub(super) async fn probe(&mut self, world: &World, token: &Token, wait: Duration) -> Probed {
        let host = gateway(self.slot);
        let id = world.next_probe();
        let bytes = call(&host, &token.bearer, id);
        let mut begin = now_ns();
        let connection = match self.connection.take() {
            Some(connection) => Some(connection),
            None => match tokio::time::timeout(CONNECT_WAIT.min(wait), Connection::open(&host)).await {
                Ok(Ok(connection)) => Some(connection),
                Ok(Err(_)) | Err(_) => None,
            },
        };
        let sent = connection.is_some();
        let (mut status, mut served) = (0, false);
        if let Some(mut connection) = connection {
            begin = now_ns();
            let answered = tokio::time::timeout(wait, connection.ask(&bytes)).await;
            if let Ok(Ok(answer)) = answered {
                (status, served) = (answer.status, answer.status == 200 && answer.holds(TOUCHED.as_bytes()));
                self.connection = Some(connection);
            }
        }
        world.recorder.record(Line::Probe(Probe {
            id,
            slot: self.slot,
            subject: token.subject,
            begin,
            end: now_ns(),
            status,
            served,
        }));
        Probed { sent, served }
    }
}

/// A call of the one tool, complete in itself: no session has to be opened first.
fn call(host: &str, bearer: &str, probe: u64) -> Vec<u8> {
    const VERSION: &str = "2026-07-28";
    let bearer = format!("Bearer {bearer}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", VERSION),
        ("mcp-method", "tools/call"),
        ("mcp-name", TOOL),
    ];
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientInfo": { "name": "chaos", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {}
    });
    let params = json!({ "name": TOOL, "arguments": { "probe": probe }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    request("POST", host, "/projects/chaos/mcp", &headers, body.as_bytes())
}
