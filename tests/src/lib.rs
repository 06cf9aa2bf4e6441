//! What tests and benchmarks share: a cluster to work on, a plain HTTP connection, the figures of a process, chance that can be
//! repeated; the benchmark, the crash test and the chaos runs. And the model of the revocation protocol, which needs none of it.

#[cfg(feature = "harness")]
pub mod api;
#[cfg(feature = "harness")]
pub mod bench;
#[cfg(feature = "harness")]
pub mod chaos;
pub mod clock;
#[cfg(feature = "harness")]
pub mod cluster;
#[cfg(feature = "harness")]
pub mod connection;
#[cfg(feature = "harness")]
pub mod crash;
#[cfg(feature = "fixture")]
pub mod fixture;
pub mod model;
#[cfg(feature = "harness")]
pub mod process;
#[cfg(feature = "harness")]
pub mod random;
#[cfg(feature = "harness")]
pub mod sim;
