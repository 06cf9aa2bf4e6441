//! Small texts that several kinds show.

use mcp_api::rbac::RoleBindingBody;

use super::ago;

pub(super) fn bindings(bindings: &[RoleBindingBody], between: &str) -> String {
    bindings
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(between)
}

pub(super) fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(",")
    }
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

pub(super) fn by(time: &str, who: &str, now_ms: u64) -> String {
    format!("{time} ({}) by {who}", ago(time, now_ms))
}

pub(super) fn at(time: Option<&String>, now_ms: u64) -> String {
    time.map_or_else(|| "never".to_owned(), |t| format!("{t} ({})", ago(t, now_ms)))
}
