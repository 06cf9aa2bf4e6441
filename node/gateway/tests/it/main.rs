//! The gateway in this process, on real replicas and real sockets, with a cluster that is a list of commands.

#![allow(clippy::unwrap_used)] // Helpers of tests, which may.

mod admission;
mod asked;
mod board;
mod bodies;
mod calls;
mod eras;
mod http_sse;
mod lists;
mod messages;
mod peer;
mod pins;
mod principals;
mod probes;
mod quotas;
mod rounds;
mod secrets;
mod stateful;
mod streams;
mod told;
mod watched;
mod world;
