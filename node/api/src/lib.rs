//! Bodies of `/api/v1`, as the API sends and takes them. Used by the API and by the command line.
//!
//! No logic of the control plane and no I/O: what a field may hold is checked by whoever takes it. These types are not the
//! stored ones, even where they look alike: a body may change with the API, a record only with a new version.
//!
//! Requests refuse fields that they do not know. A field that a request leaves out takes its default, so that a fault is
//! reported with all others instead of alone.

pub mod auth;
pub mod backup;
pub mod cluster;
pub mod groups;
pub mod headers;
pub mod limits;
pub mod list;
pub mod logs;
pub mod names;
pub mod nodes;
pub mod problem;
pub mod projects;
pub mod rbac;
pub mod receipt;
pub mod secrets;
pub mod servers;
pub mod serviceaccounts;
pub mod sessions;
pub mod tokens;
pub mod ttl;
pub mod users;
pub mod version;
pub mod write;

mod time;
mod told;
mod visible;

pub use list::List;
pub use problem::Problem;
pub use time::{parse_time, show_time};
pub use told::told;
pub use visible::{visible, visible_json};
