//! What tests and benchmarks share: a cluster to work on, a plain HTTP connection, the figures of a process; and the benchmark.

pub mod api;
pub mod bench;
pub mod clock;
pub mod cluster;
pub mod connection;
pub mod process;
