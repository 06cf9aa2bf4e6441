//! The rules of the gateway, as pure functions and plain data.
//!
//! No I/O, no clock, no randomness, no threads, no async: whatever varies is an argument. Every replica runs this code over
//! the same ordered commands and arrives at the same state, and a test can run a year of it in a millisecond.
//!
//! The story, in the order in which one would tell it: what things are called ([`names`], [`ids`], [`token`]); what is kept
//! of them ([`records`], [`limits`], [`watch`], [`tables`], [`secrets`], [`backup`]), under which names tools are shown ([`toolnames`]); how a change is asked for ([`command`]) and carried out ([`apply`]); who may do what
//! ([`rbac`], [`authority`]); who is let in ([`admission`]); and for how long a replica may say so: the [`rules`], on a
//! [`clock`], for the holder of a [`lease`], for the [`office`] that grants it with its [`ledger`], for the [`barrier`] behind a revoke and
//! its [`receipt`], and for whoever comes to lead ([`campaign`]); and whether replicas have arrived at the same state at all ([`agreement`]).

pub mod admission;
pub mod agreement;
pub mod apply;
pub mod authority;
pub mod backup;
pub mod barrier;
pub mod campaign;
pub mod clock;
pub mod command;
pub mod frame;
pub mod ids;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod names;
pub mod office;
pub mod rbac;
pub mod receipt;
pub mod records;
pub mod refusal;
pub mod reply;
pub mod rules;
pub mod secrets;
pub mod tables;
pub mod timers;
pub mod token;
pub mod toolnames;
pub mod watch;
