//! What one node keeps: the raft log on disk, the replicated state on disk, and the part of it in memory that admits requests.
//!
//! The only package that names redb. Nobody writes state but [`replica::Replica::apply`], which carries out commands that
//! the cluster has agreed on.
//!
//! In the order in which one would tell it: [`log`] holds what is agreed; [`rows`] the state that it leads to; [`view`] the
//! part of that which decides about bearers, in memory; [`gate`] whether this replica may decide at all; [`cuts`] what is open
//! on behalf of whom; [`live`] how these change together, and [`admit`] how a request is decided on them; [`replica`] keeps state and memory together; [`snapshot`] packs the state for others, [`backup`] for keeping, and `digest` says what it hashes to; [`seal`] hides what the state must
//! not show.

pub mod admit;
pub mod backup;
mod checked;
pub mod cuts;
#[doc(hidden)]
pub mod decoders;
mod digest;
mod disk;
pub mod error;
#[cfg(any(test, feature = "faults"))]
#[doc(hidden)]
pub mod faults;
pub mod gate;
pub mod live;
pub mod log;
pub mod replica;
#[cfg(test)]
mod replica_tests;
mod rows;
pub mod seal;
pub mod snapshot;
pub mod view;

pub use digest::Pinned;
pub use disk::set_aside;
pub use error::StoreError;
pub use replica::{ApplyEntry, Replica, ReplicaOptions};
