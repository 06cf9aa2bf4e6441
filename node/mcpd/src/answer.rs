//! A yes on its way to the client.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use mcp_api::headers::MCP_INDEX;
use serde::Serialize;

/// What stands in an answer.
#[derive(Debug)]
enum Content {
    Json(Vec<u8>),
    /// Bytes, and how many they will be.
    File(Body, u64),
}

/// What a handler answers.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    index: Option<u64>,
    version: Option<String>,
    body: Content,
}

impl Answer {
    pub(crate) fn ok(body: &impl Serialize) -> Answer {
        Answer {
            status: StatusCode::OK,
            index: None,
            version: None,
            body: Content::Json(serde_json::to_vec(body).expect("bodies are plain data")),
        }
    }

    /// A file of `length` bytes.
    pub(crate) fn file(body: Body, length: u64) -> Answer {
        Answer {
            status: StatusCode::OK,
            index: None,
            version: None,
            body: Content::File(body, length),
        }
    }

    pub(crate) fn status(mut self, status: StatusCode) -> Answer {
        self.status = status;
        self
    }

    /// The log index of the change that this answers.
    pub(crate) fn index(mut self, index: u64) -> Answer {
        self.index = Some(index);
        self
    }

    /// What `If-Match` takes.
    pub(crate) fn version(mut self, version: &str) -> Answer {
        self.version = Some(format!("\"{version}\""));
        self
    }

    /// The response; `applied_index` is what a reader may count on having seen.
    pub(crate) fn into_response(self, applied_index: u64) -> Response {
        let (body, kind, length) = match self.body {
            Content::Json(bytes) => (Body::from(bytes), "application/json", None),
            Content::File(body, length) => (body, "application/octet-stream", Some(length)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        headers.insert(MCP_INDEX, HeaderValue::from(self.index.unwrap_or(applied_index)));
        if let Some(tag) = self.version.and_then(|v| HeaderValue::from_str(&v).ok()) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}
