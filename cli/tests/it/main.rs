//! The program `mcpctl` as its users start it, against a real API on real sockets.
#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "../../../node/mcpd/tests/it/node.rs"]
#[allow(dead_code, reason = "shared with the tests of the API, which use other parts of it")]
mod node;

mod gateways;
mod mcp_server;
mod world;

mod apply;
mod backup;
mod bridge;
mod cluster;
mod connect;
mod contexts;
mod help;
mod nodes;
mod objects;
mod original;
mod people;
mod refusals;
mod snapshots;
mod test_mcp;
mod tokens;
mod tools;
mod waiting;
mod waits;
