//! Reads all lists of an upstream, page by page, and keeps the entries as they were sent.

use serde_json::value::RawValue;

use super::{Cause, Upstream, UpstreamError};
use crate::fields::read_fields;
use crate::limits;

/// The lists of an upstream: each a raw JSON array, `[]` where the server has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// Its tools.
    pub tools: String,
    /// Its prompts.
    pub prompts: String,
    /// Its resources.
    pub resources: String,
    /// Its resource templates.
    pub templates: String,
    /// Its instructions, if it has any.
    pub instructions: Option<String>,
    /// Whether it serves `completion/complete`.
    pub completes: bool,
}

/// Fetches every list for which the server declares a capability.
pub(super) async fn fetch(upstream: &Upstream) -> Result<Lists, UpstreamError> {
    let opened = upstream.open().await?;
    let mut room = limits::LISTS_BYTES_MAX;
    let mut lists = [const { String::new() }; 4];
    let wanted = [
        ("tools", "tools/list", &["tools", "nextCursor"]),
        ("prompts", "prompts/list", &["prompts", "nextCursor"]),
        ("resources", "resources/list", &["resources", "nextCursor"]),
        (
            "resources",
            "resources/templates/list",
            &["resourceTemplates", "nextCursor"],
        ),
    ];
    for (list, (capability, method, names)) in lists.iter_mut().zip(wanted) {
        *list = match opened.can(capability) {
            true => one(upstream, method, names, &mut room).await?,
            false => "[]".to_owned(),
        };
    }
    let [tools, prompts, resources, templates] = lists;
    let completes = opened.can("completions");
    Ok(Lists {
        tools,
        prompts,
        resources,
        templates,
        instructions: opened.instructions.clone(),
        completes,
    })
}

/// One list, all pages. A server that declares the capability and does not know the method has an empty list.
async fn one(
    upstream: &Upstream,
    method: &str,
    names: &'static [&'static str; 2],
    room: &mut usize,
) -> Result<String, UpstreamError> {
    let mut entries: Vec<Box<RawValue>> = Vec::new();
    let mut params = "{}".to_owned();
    for _ in 0..limits::LIST_PAGES_MAX {
        let response = match upstream.request(method, &params).await {
            Ok(response) => response,
            Err(UpstreamError {
                cause: Cause::Refused(error),
                ..
            }) if error.contains("-32601") => break,
            Err(error) => return Err(error),
        };
        let result = response.result().unwrap_or("{}");
        *room = room
            .checked_sub(result.len())
            .ok_or_else(|| UpstreamError::after(Cause::TooMuch(limits::LISTS_BYTES_MAX)))?;
        let rubbish = |why: String| UpstreamError::after(Cause::Rubbish(format!("{method}: {why}")));
        let [page, cursor] = read_fields(result, names).map_err(|fault| rubbish(format!("{fault:?}")))?;
        let page = page.unwrap_or("null");
        let page: Vec<Box<RawValue>> = serde_json::from_str(page).map_err(|error| rubbish(error.to_string()))?;
        entries.extend(page);
        match cursor {
            Some(cursor) if cursor.starts_with('"') => params = format!(r#"{{"cursor":{cursor}}}"#),
            Some(_) | None => return Ok(joined(&entries)),
        }
    }
    Ok(joined(&entries))
}

fn joined(entries: &[Box<RawValue>]) -> String {
    let entries: Vec<&str> = entries.iter().map(|entry| entry.get()).collect();
    format!("[{}]", entries.join(","))
}
