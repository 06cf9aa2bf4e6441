//! What a name may be, for those who want to know before they ask.

use mcp_model::names::{Email, Name};

/// The name that this text is, or why it is none.
pub fn name(text: &str) -> Result<String, String> {
    Name::parse(text).map(|n| n.to_string()).map_err(|e| e.to_string())
}

/// The e-mail that this text is, in lower case, or why it is none.
pub fn email(text: &str) -> Result<String, String> {
    Email::parse(text).map(|e| e.to_string()).map_err(|e| e.to_string())
}
