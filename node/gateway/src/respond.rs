//! Answers: the one place where denials and refusals become HTTP.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use mcp_model::admission::Denial;
use mcp_wire::refusal::{INTERNAL_ERROR, NOT_ALLOWED, Refusal};

use crate::quotas::OverQuota;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Tells a proxy in front of us not to hold events back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A JSON body.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A status and nothing else.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A short text, for health checks.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// A stream of server-sent events.
pub(crate) fn events(stream: impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENTS);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// A refusal of a message.
pub(crate) fn refusal(refusal: &Refusal, id: Option<&str>) -> Response {
    json(refusal.status, refusal.body(id))
}

/// A method that this path does not know.
pub(crate) fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A request that was not admitted. Its reader learns little; the audit knows more.
pub(crate) fn denial(denial: Denial, retry_after_s: u64, id: Option<&str>) -> Response {
    let (status, code, message) = match denial {
        Denial::NoBearer => (StatusCode::UNAUTHORIZED, NOT_ALLOWED, "a bearer token is required"),
        Denial::UnknownToken | Denial::Expired | Denial::OwnerDisabled => {
            (StatusCode::UNAUTHORIZED, NOT_ALLOWED, "the bearer token is not valid")
        }
        Denial::WrongProject => (
            StatusCode::FORBIDDEN,
            NOT_ALLOWED,
            "the bearer token is not for this project",
        ),
        Denial::NoLease => (
            StatusCode::SERVICE_UNAVAILABLE,
            INTERNAL_ERROR,
            "this replica cannot decide on tokens at the moment",
        ),
        Denial::TooMany => (StatusCode::TOO_MANY_REQUESTS, INTERNAL_ERROR, "too many requests"),
    };
    let mut response = refusal(&Refusal::bad(code, message).with_status(status), id);
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = if denial == Denial::NoBearer {
            "Bearer"
        } else {
            "Bearer error=\"invalid_token\""
        };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if matches!(denial, Denial::NoLease | Denial::TooMany) {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    }
    response
}

/// More than a token, or its project, may use.
pub(crate) fn over_quota(over: &OverQuota, id: Option<&str>) -> Response {
    let message = format!("too many {}", over.what);
    let data = serde_json::json!({"quota": over.what, "retryAfterSeconds": over.retry_after_s});
    let refused = Refusal::bad(INTERNAL_ERROR, message).with_status(StatusCode::TOO_MANY_REQUESTS);
    let mut response = refusal(&refused.with_data(data), id);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(over.retry_after_s));
    response
}

/// This node is too busy, or cannot audit. `id` is the request's, where that has been read.
pub(crate) fn overloaded(why: &str, retry_after_s: u64, id: Option<&str>) -> Response {
    let refused = Refusal::bad(INTERNAL_ERROR, why).with_status(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = refusal(&refused, id);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    response
}
