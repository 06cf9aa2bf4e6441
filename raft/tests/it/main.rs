//! Clusters of real nodes in one process: real sockets, real TLS, real files.

mod cluster;
mod leases;
mod writes;
