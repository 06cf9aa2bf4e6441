//! How the API says no: `application/problem+json` (RFC 9457) with a stable code.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An answer that is not the one that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:mcpctl:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means, in a few words; the same for every answer with this code.
    pub title: String,
    /// The HTTP status again.
    pub status: u16,
    /// Stable, in snake case: what programs look at. More may come.
    #[schema(value_type = Code)]
    pub code: String,
    /// What happened, with the name of the object.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What to quote when one asks for help.
    pub request_id: String,
    /// Every fault of the request, with its field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldFault>,
}

/// One fault of a request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct FieldFault {
    /// Where: `roleBindings[1].role`.
    pub field: String,
    /// Why.
    pub detail: String,
}

impl FieldFault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, detail: impl std::fmt::Display) -> FieldFault {
        FieldFault {
            field: field.into(),
            detail: detail.to_string(),
        }
    }
}

/// Every code, with its HTTP status and its title. Append-only: programs rely on codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is its title")]
pub enum Code {
    BadRequest,
    NotAuthenticated,
    BadCredentials,
    Forbidden,
    HostNotAllowed,
    NotFound,
    NoSuchRoute,
    MethodNotAllowed,
    NameTaken,
    VersionMismatch,
    TooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    NoLeader,
    NoLease,
    NotProposed,
    OutcomeUnknown,
    IndexNotReached,
    StoreFailed,
    OriginNotAllowed,
    WouldLoseQuorum,
    HostMisdirected,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 23] = [
        Code::BadRequest,
        Code::NotAuthenticated,
        Code::BadCredentials,
        Code::Forbidden,
        Code::HostNotAllowed,
        Code::NotFound,
        Code::NoSuchRoute,
        Code::MethodNotAllowed,
        Code::NameTaken,
        Code::VersionMismatch,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::Invalid,
        Code::TooManyRequests,
        Code::NoLeader,
        Code::NoLease,
        Code::NotProposed,
        Code::OutcomeUnknown,
        Code::IndexNotReached,
        Code::StoreFailed,
        Code::OriginNotAllowed,
        Code::WouldLoseQuorum,
        Code::HostMisdirected,
    ];

    /// The code as text, its HTTP status and its title.
    pub const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Code::BadRequest => ("bad_request", 400, "the request cannot be read"),
            Code::NotAuthenticated => ("not_authenticated", 401, "not logged in"),
            Code::BadCredentials => ("bad_credentials", 401, "wrong e-mail or password"),
            Code::Forbidden => ("forbidden", 403, "not allowed"),
            Code::HostNotAllowed => ("host_not_allowed", 403, "this host name is not served here"),
            Code::NotFound => ("not_found", 404, "no such object"),
            Code::NoSuchRoute => ("no_such_route", 404, "no such route"),
            Code::MethodNotAllowed => ("method_not_allowed", 405, "this route does not take this method"),
            Code::NameTaken => ("name_taken", 409, "the name is in use"),
            Code::VersionMismatch => ("version_mismatch", 409, "the object was changed in between"),
            Code::TooLarge => ("too_large", 413, "the request is too large"),
            Code::UnsupportedMediaType => ("unsupported_media_type", 415, "the body must be JSON"),
            Code::Invalid => ("invalid", 422, "the request has faults"),
            Code::TooManyRequests => ("too_many_requests", 429, "too many requests"),
            Code::NoLeader => ("no_leader", 503, "the cluster has no leader right now"),
            Code::NoLease => ("no_lease", 503, "this node may not answer right now"),
            Code::NotProposed => ("not_proposed", 503, "nothing was changed"),
            Code::OutcomeUnknown => ("outcome_unknown", 504, "whether the change was made is not known"),
            Code::IndexNotReached => ("index_not_reached", 503, "this node is behind"),
            Code::StoreFailed => ("store_failed", 500, "this node's store failed"),
            Code::OriginNotAllowed => ("origin_not_allowed", 403, "pages of this origin may not call"),
            Code::WouldLoseQuorum => ("would_lose_quorum", 409, "too few voters would be left to decide"),
            Code::HostMisdirected => (
                "host_misdirected",
                421,
                "this host name is not served on this connection",
            ),
        }
    }

    /// The code as text.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Its HTTP status.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// The code with this text.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl Problem {
    /// A problem without hint and field faults.
    pub fn new(code: Code, detail: impl Into<String>, request_id: &str) -> Problem {
        let (text, status, title) = code.row();
        Problem {
            kind: format!("urn:mcpctl:problem:{text}"),
            title: title.to_owned(),
            status,
            code: text.to_owned(),
            detail: detail.into(),
            hint: None,
            request_id: request_id.to_owned(),
            errors: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert!((400..600).contains(&code.status()), "{code:?}");
        }
    }

    #[test]
    fn a_problem_has_its_fields_in_camel_case_and_leaves_out_what_is_empty() {
        let problem = Problem::new(Code::NotFound, "project \"demo\" does not exist", "r1");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:mcpctl:problem:not_found");
        assert_eq!(json["requestId"], "r1");
        assert_eq!(json.as_object().unwrap().len(), 6);
    }
}
