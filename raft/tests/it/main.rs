//! Clusters of real nodes in one process: real sockets, real TLS, real files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod damage;
mod disks;
mod flips;
mod leases;
mod members;
mod peers;
mod refusals;
mod regressions;
mod states;
mod writes;
