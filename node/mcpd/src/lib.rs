//! The control plane: `/api/v1` on every node.
//!
//! It reads this node's replica and writes through a port ([`port::Writer`]) that the node wires to raft. Nothing on the data
//! path ever asks it anything. No sockets, no clock, no randomness of its own: all three are handed in.
//!
//! In the order in which a request meets them: [`router`] takes it in, [`routes`] says which right it takes, `caller` finds
//! out who asks, one module per noun answers, `write` hands changes to the cluster, `fault` says no.

#[doc(hidden)]
pub mod decoders;
pub mod hosts;
mod limited;
pub mod limits;
pub mod openapi;
pub mod passwords;
pub mod port;
pub mod router;
pub mod routes;

mod answer;
mod body;
mod call;
mod caller;
mod fault;
mod noun;
mod page;
mod read;
mod throttle;
mod write;

mod auth;
mod backup;
mod can_i;
mod cluster;
mod groups;
mod logs;
mod mcptokens;
mod nodes;
mod projects;
mod rbac;
mod secrets;
mod servers;
mod serviceaccounts;
mod sessions;
mod tools;
mod users;

pub use port::{
    Children, ClusterStatus, Compared, LogLine, LogsWanted, Member, MemberRole, NodeLogs, Pending, Standing, WaitFor,
    WriteFailed, Writer, Written,
};
pub use router::{Options, Parts, router};
