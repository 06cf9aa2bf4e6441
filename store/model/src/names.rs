//! Names of records and e-mail addresses of users, valid once parsed.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Id;

/// Longest name, in bytes. A DNS label, so that a name can stand in a host name, a path and a tool prefix.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest e-mail address, in bytes (RFC 5321 allows a path of 256 with its brackets).
pub const EMAIL_BYTES_MAX: usize = 254;

/// The name of a project, server, token or other record: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, and not of the form of a
/// uuid, so that a name and an id can stand in the same place of a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Name, NameError> {
        Name::parse(&text)
    }
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a name must not be empty")]
    Empty,
    /// It is longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most 63 characters")]
    TooLong,
    /// It holds something else than `a-z`, `0-9` and inner `-`.
    #[error("a name is made of a-z, 0-9 and -, and begins and ends with a letter or digit")]
    Shape,
    /// It reads as a uuid.
    #[error("a name must not look like an id (a uuid)")]
    LooksLikeId,
}

impl Name {
    /// Reads a name strictly: nothing is trimmed, folded or decoded.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !text.bytes().all(inner) || text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Shape);
        }
        if text.parse::<Id>().is_ok() {
            return Err(NameError::LooksLikeId);
        }
        Ok(Name(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A user's e-mail address, lower-cased. It identifies a user in bindings and never changes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Email(String);

impl TryFrom<String> for Email {
    type Error = NotAnEmail;

    fn try_from(text: String) -> Result<Email, NotAnEmail> {
        Email::parse(&text)
    }
}

/// The text is no e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address (such as alice@example.com)")]
pub struct NotAnEmail;

impl Email {
    /// Reads and lower-cases an address of the form `local@domain`.
    pub fn parse(text: &str) -> Result<Email, NotAnEmail> {
        let (local, domain) = text.split_once('@').ok_or(NotAnEmail)?;
        let printable = text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b',' | b';' | b'\\'));
        if !printable || local.is_empty() || domain.is_empty() || domain.contains('@') || text.len() > EMAIL_BYTES_MAX {
            return Err(NotAnEmail);
        }
        Ok(Email(text.to_ascii_lowercase()))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_strict() {
        for good in ["a", "7", "demo", "my-ha", "a--b", &"x".repeat(63)] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        let cases = [
            ("", NameError::Empty),
            (&*"x".repeat(64), NameError::TooLong),
            ("-a", NameError::Shape),
            ("a-", NameError::Shape),
            ("A", NameError::Shape),
            ("a b", NameError::Shape),
            ("a/b", NameError::Shape),
            ("a\0", NameError::Shape),
            ("é", NameError::Shape),
            ("01890a5d-ac96-774b-bcce-b302099a8057", NameError::LooksLikeId),
        ];
        for (bad, why) in cases {
            assert_eq!(Name::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn emails_are_lower_cased_and_plain() {
        assert_eq!(Email::parse("Alice@Test.com").unwrap().as_str(), "alice@test.com");
        for bad in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\n", "\"a\"@b", "a,b@c"] {
            assert_eq!(Email::parse(bad), Err(NotAnEmail), "{bad:?}");
        }
    }
}
