//! Answers to writes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::receipt::ReceiptBody;

/// The object after a write. Where the write took a right away and was waited for, its receipt stands with it; status 202
/// says that the receipt is partial: committed, but not yet effective on every replica.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Written<T> {
    /// The object.
    #[serde(flatten)]
    pub object: T,
    /// Why no replica admits any more what was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptBody>,
}

/// An object that is gone, or refused from now on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// `mcptoken`.
    pub kind: String,
    /// Its name: that of a token is `project/name`.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Whether this was so before.
    #[serde(default)]
    pub already: bool,
}
