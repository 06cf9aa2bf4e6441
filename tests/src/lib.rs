//! What tests and benchmarks share: a cluster to work on, a plain HTTP connection, the figures of a process, chance that can be
//! repeated; the benchmark, the crash test and the chaos runs.

pub mod api;
pub mod bench;
pub mod chaos;
pub mod clock;
pub mod cluster;
pub mod connection;
pub mod crash;
pub mod process;
pub mod random;
