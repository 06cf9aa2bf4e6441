//! Lists, page by page.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Part of a list: what the caller may see of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The objects.
    pub items: Vec<T>,
    /// Given where there is more: `?continue=` fetches it.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
    /// The log index that the list shows, as a decimal string.
    pub resource_version: String,
}

/// Objects on one page when the caller does not say.
pub const PAGE_DEFAULT: usize = 500;
/// Objects on one page, at most.
pub const PAGE_MAX: usize = 1_000;
