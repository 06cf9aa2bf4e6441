//! Which names a binding is about, and which of them another one is about too.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::BindingError;

/// Which names a binding is about: one, or all that begin alike (`list_*`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Pattern {
    text: String,
    open: bool,
}

/// Longest pattern: two names, a slash and room for a tool's name.
pub const PATTERN_BYTES_MAX: usize = 256;

impl Pattern {
    /// Reads `name`, `prefix*` or `*`.
    pub fn parse(text: &str) -> Result<Pattern, BindingError> {
        let open = text.ends_with('*');
        let text = text.strip_suffix('*').unwrap_or(text);
        if text.contains('*') {
            return Err(BindingError::StarInside);
        }
        if text.len() > PATTERN_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(BindingError::BadName);
        }
        let text = text.to_owned();
        Ok(Pattern { text, open })
    }

    /// The same for what servers offer: `server__tool` is read as `server/tool`.
    pub(super) fn parse_offered(text: &str) -> Result<Pattern, BindingError> {
        let mut pattern = Pattern::parse(text)?;
        if !pattern.text.contains('/') {
            pattern.text = pattern.text.replacen("__", "/", 1);
        }
        Ok(pattern)
    }

    /// Whether `name` is one of these names.
    pub fn matches(&self, name: &str) -> bool {
        if self.open {
            name.starts_with(&self.text)
        } else {
            name == self.text
        }
    }

    /// Whether every name of `other` is one of these.
    pub fn covers(&self, other: &Pattern) -> bool {
        if self.open {
            other.text.starts_with(&self.text)
        } else {
            !other.open && other.text == self.text
        }
    }

    /// Whether every name is one of these.
    pub(super) fn covers_all(&self) -> bool {
        self.open && self.text.is_empty()
    }

    /// The part before the first `/`, as a pattern of servers: what `tools: server/tool` says about servers.
    pub(super) fn server_part(&self) -> Pattern {
        match self.text.split_once('/') {
            Some((server, _)) => Pattern {
                text: server.to_owned(),
                open: false,
            },
            None => self.clone(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.open { "*" } else { "" })
    }
}
