//! The API as its clients see it, on a real replica.
#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

mod canary;
mod client;
mod node;

mod admission;
mod backup;
mod cluster;
mod logs;
mod objects;
mod openapi;
mod principals;
mod protocol;
mod repeated;
mod rights;
mod routes;
mod secrets;
mod tokens;
