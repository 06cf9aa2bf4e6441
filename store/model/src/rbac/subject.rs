//! Who is granted something.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BindingError;
use crate::names::{Email, Name};
use crate::token::TokenHash;

/// Who a definition grants to. Append-only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Subject {
    /// A person.
    User(Email),
    /// Everybody in a group.
    Group(Name),
    /// A program with sessions of its own.
    ServiceAccount(Name),
    /// One token, by the hash of its bearer.
    McpToken(TokenHash),
}

impl FromStr for Subject {
    type Err = BindingError;

    fn from_str(text: &str) -> Result<Subject, BindingError> {
        let bad = || BindingError::BadSubject(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        match kind.trim() {
            "User" => Email::parse(name.trim()).map(Subject::User).map_err(|_| bad()),
            "Group" => Name::parse(name.trim()).map(Subject::Group).map_err(|_| bad()),
            "ServiceAccount" => Name::parse(name.trim()).map(Subject::ServiceAccount).map_err(|_| bad()),
            "McpToken" => TokenHash::from_hex(name.trim()).map(Subject::McpToken).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(email) => write!(f, "User:{email}"),
            Subject::Group(name) => write!(f, "Group:{name}"),
            Subject::ServiceAccount(name) => write!(f, "ServiceAccount:{name}"),
            Subject::McpToken(hash) => write!(f, "McpToken:{hash}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_read_back() {
        let sha = TokenHash::of("x").to_string();
        for text in [
            "User:alice@test.com",
            "Group:devs",
            "ServiceAccount:ci",
            &format!("McpToken:{sha}"),
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for bad in ["alice", "User:", "user:alice@test.com", "Group:A B", "McpToken:12"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
    }
}
