//! The one place where a no becomes an HTTP answer.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use mcp_api::headers::PROBLEM_JSON;
use mcp_api::problem::{Code, FieldFault, Problem};
use mcp_model::command::Refusal;
use mcp_store::StoreError;

use crate::port::WriteFailed;

/// A no on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    code: Code,
    detail: String,
    hint: Option<String>,
    errors: Vec<FieldFault>,
    retry_after_s: Option<u64>,
    allow: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Fault {
        let unavailable = matches!(
            code,
            Code::NoLeader | Code::NoLease | Code::NotProposed | Code::IndexNotReached
        );
        Fault {
            code,
            detail: detail.into(),
            hint: None,
            errors: Vec::new(),
            retry_after_s: unavailable.then_some(1),
            allow: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn retry_after_s(mut self, seconds: u64) -> Fault {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    pub(crate) fn allow(mut self, methods: String) -> Fault {
        self.allow = Some(methods);
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn invalid(errors: Vec<FieldFault>) -> Fault {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.field, one.detail),
            many => format!("{} fields have faults", many.len()),
        };
        Fault {
            errors,
            ..Fault::new(Code::Invalid, detail)
        }
    }

    pub(crate) fn not_authenticated(detail: &str) -> Fault {
        Fault::new(Code::NotAuthenticated, detail).hint("run: mcpctl login")
    }

    pub(crate) fn not_found(kind: &str, name: &str) -> Fault {
        let list = match kind {
            "rbac" => "get rbac".to_owned(),
            "join token" => "cluster join-token list".to_owned(),
            kind => format!("get {kind}s"),
        };
        Fault::new(Code::NotFound, format!("{kind} {name:?} does not exist")).hint(format!("run: mcpctl {list}"))
    }

    /// `shut`: why the node admits nobody, if it is more than that.
    pub(crate) fn no_lease(shut: Option<String>) -> Fault {
        let Some(why) = shut else {
            let detail = "this node holds no lease, so it cannot vouch for what it knows";
            return Fault::new(Code::NoLease, detail).hint("try again in a moment, or ask another node");
        };
        Fault::new(Code::NoLease, format!("this node admits nobody: {why}")).hint("ask another node")
    }

    pub(crate) fn into_response(self, request_id: &str) -> Response {
        let problem = Problem {
            hint: self.hint,
            errors: self.errors,
            ..Problem::new(self.code, self.detail, request_id)
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self.code, Code::NotAuthenticated | Code::BadCredentials) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(methods) = self.allow.and_then(|m| HeaderValue::from_str(&m).ok()) {
            headers.insert(header::ALLOW, methods);
        }
        response
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        let detail = refusal.to_string();
        match refusal {
            Refusal::NotFound { kind, name } => Fault::not_found(&kind, &name),
            Refusal::NameTaken { kind, name } => Fault::new(Code::NameTaken, detail).hint(match kind.as_str() {
                "mcptoken" => "--force revokes the active token of that name and makes a new one".to_owned(),
                "project" => "--force updates it and keeps its tokens".to_owned(),
                _ => format!("choose another name, or see: mcpctl describe {kind} {name}"),
            }),
            Refusal::VersionMismatch { .. } => {
                Fault::new(Code::VersionMismatch, detail).hint("read it again and repeat the change")
            }
            Refusal::LooksOtherwise { kind, name, .. } => Fault::new(Code::VersionMismatch, detail)
                .hint(format!("look at what it is now: mcpctl describe {kind} {name}")),
            Refusal::NotAuthenticated => Fault::not_authenticated(&detail),
            Refusal::Forbidden { who, need } => {
                let binding = need.split(' ').next().unwrap_or_default();
                let subject = match who.as_str() {
                    who if who.starts_with("ServiceAccount:") => who.to_owned(),
                    who if who.contains('@') => format!("User:{who}"),
                    // A token gets no more than it was made with: its owner makes another.
                    _ => "User:EMAIL".to_owned(),
                };
                Fault::new(Code::Forbidden, detail).hint(format!(
                    "an administrator can grant it: mcpctl create rbac NAME --subject {subject} --roleBindings {binding}"
                ))
            }
            Refusal::Invalid { field, why } => Fault::invalid(vec![FieldFault::new(field, why)]),
            Refusal::Reserved => Fault::new(Code::Forbidden, detail),
            Refusal::AlreadyInitialised => Fault::new(Code::NameTaken, detail),
            Refusal::Join(_) => Fault::new(Code::Forbidden, detail).hint("run: mcpctl cluster join-token"),
        }
    }
}

impl From<WriteFailed> for Fault {
    fn from(failed: WriteFailed) -> Fault {
        let detail = failed.to_string();
        match failed {
            WriteFailed::NoLeader => {
                Fault::new(Code::NoLeader, format!("{detail}: nothing was changed")).hint("try again in a moment")
            }
            WriteFailed::NotProposed(_) => Fault::new(Code::NotProposed, detail).hint("try again in a moment"),
            WriteFailed::OutcomeUnknown(_) => Fault::new(Code::OutcomeUnknown, detail)
                .hint("repeat the request with the same Idempotency-Key: it is carried out once"),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        tracing::error!(%error, "the API cannot read the store");
        Fault::new(Code::StoreFailed, "this node cannot read its store")
            .hint("ask another node; this one needs attention")
    }
}
