//! Roles, resources, patterns and bindings: what a grant says and what it covers. Denied unless granted.
//!
//! [`words`] are the names that people write, [`pattern`] says which objects are meant, [`binding`] is one line of a grant and
//! how it is read, [`subject`] who is granted something, and [`grants`] what several lines allow and cover together.

mod binding;
mod grants;
mod pattern;
mod subject;
mod words;

pub use binding::{BindingError, RoleBinding};
pub use grants::Grants;
pub use pattern::{PATTERN_BYTES_MAX, Pattern};
pub use subject::Subject;
pub use words::{Action, Resource, Role, Verb};
