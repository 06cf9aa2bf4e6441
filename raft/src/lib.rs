//! Agreement among replicas: one log, one leader, leases, and the barrier behind a revoke.
//!
//! The only package that names openraft; everything else sees [`Node`]. What openraft 0.9 lacks stands here: a campaign
//! that asks before it disturbs, leases that are not heartbeats, write batches, forwarding, and deadlines everywhere.
//!
//! In the order in which one would tell it: [`types`] are what travels; [`logs`] and [`machine`] connect openraft to the
//! store; [`tls`], [`link`], [`rpc`], [`server`] and [`network`] are how peers talk, [`lobby`] where whoever connects waits, [`strangers`] what is
//! said of others, and [`door`] where they may ask to be let in; [`messenger`] carries what the data planes of two nodes say to each other; [`office`] is what this process knows of its own leadership, [`reach`] what it
//! knows of the others; [`campaign`] is how it comes to lead; [`rounds`] and [`renew`] how leases are granted and held, [`fresh`] how
//! a node reads what was acknowledged;
//! [`write`] how commands get into the log; [`barrier`] when a revoke may be called effective; [`members`] makes the membership
//! what was decided, and [`removal`] is how a node goes that was taken out; [`outside`] is what a node is handed and says of itself; [`shared`] is what its tasks share, [`node`] puts all of it together, and
//! [`watchdog`] looks after the disk as [`disk`] judges it, [`mender`] brings the state back after a disk has refused it;
//! [`compare`] looks whether all replicas have the same state, and [`doubt`] is what a node notes that has another;
//! [`recover`] and [`readmit`] are what a node does that starts with damaged stores.

#![allow(
    clippy::result_large_err,
    reason = "openraft's traits return openraft's errors, and those are large"
)]

mod barrier;
mod campaign;
mod compare;
#[doc(hidden)]
pub mod decoders;
mod disk;
mod door;
mod doubt;
mod fresh;
mod link;
mod lobby;
mod logs;
mod machine;
mod members;
mod mender;
mod messenger;
mod network;
mod node;
mod office;
mod outside;
mod reach;
mod readmit;
pub mod recover;
mod removal;
mod renew;
mod rounds;
mod rpc;
mod server;
mod shared;
mod strangers;
pub mod tls;
mod types;
mod watchdog;
mod write;

pub use disk::DiskLimits;
pub use door::{Answering, Doorkeeper, JOIN_PATH};
pub use lobby::address_block;
pub use members::Standing;
pub use messenger::{Hearing, Listener, MESSAGE_BYTES_MAX, Unheard};
pub use node::Node;
pub use outside::{
    Begun, COMPARE_EVERY, Compared, KEPT_ENTRIES, Likeness, Member, MemberStatus, NodeOptions, SNAPSHOT_ENTRIES,
    StartError, Status,
};
pub use readmit::Returning;
pub use removal::Removal;
pub use rpc::WaitFor;
pub use strangers::Strangers;
pub use tls::PeerTls;
pub use write::{WriteFailed, Written};

#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod suite;
