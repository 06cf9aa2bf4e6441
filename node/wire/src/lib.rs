//! The wire: JSON-RPC envelopes, MCP headers, event and line framing, and the connections to upstreams.
//!
//! No policy: nothing here knows of tokens, projects or rights. No clock is read; waits are timers.
//!
//! Told in the order in which a message travels: [`message`] reads it, [`version`] decides its era, [`headers`] and
//! [`mirrored`] compare it with its HTTP headers, [`splice`] prepares it for an [`upstream`], [`sse`] carries what
//! comes back, [`refusal`] says no, [`can`] who may be asked and [`rounds`] how the modern era does that. [`client`] is the other side: an MCP client for the command line.

pub mod limits;
pub mod version;

pub mod can;

mod fields;
pub mod headers;
pub mod level;
pub mod message;
pub mod mirrored;
pub mod refusal;
pub mod rounds;
mod scan;
pub mod splice;

pub mod lines;
pub mod sse;

pub mod hidden;

#[doc(hidden)]
pub mod decoders;

mod connect;
mod pool;
pub mod reach;
pub mod timers;
pub mod tls;

pub mod client;
pub mod upstream;

/// What we call ourselves towards upstreams: an MCP `Implementation` as raw JSON.
pub(crate) const OWN_INFO: &str = concat!(r#"{"name":"mcpnode","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
