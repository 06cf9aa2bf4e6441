//! A client without a socket: requests go straight into the router.

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::node::{Mood, Node};

/// A caller of one node's API.
#[derive(Clone)]
pub(crate) struct Client {
    router: Router,
    bearer: Option<String>,
    headers: Vec<(&'static str, String)>,
    version: Version,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) raw: String,
    pub(crate) bytes: Vec<u8>,
}

impl Client {
    /// The administrator.
    pub(crate) fn admin(node: &Node) -> Client {
        Client::anybody(node).bearer(&node.session)
    }

    pub(crate) fn anybody(node: &Node) -> Client {
        Client {
            router: node.router(),
            bearer: None,
            headers: Vec::new(),
            version: Version::HTTP_11,
        }
    }

    pub(crate) fn bearer(&self, bearer: &str) -> Client {
        Client {
            bearer: Some(bearer.to_owned()),
            ..self.clone()
        }
    }

    pub(crate) fn header(&self, name: &'static str, value: impl Into<String>) -> Client {
        let mut client = self.clone();
        client.headers.push((name, value.into()));
        client
    }

    /// The same over HTTP/2.
    pub(crate) fn http2(&self) -> Client {
        Client {
            version: Version::HTTP_2,
            ..self.clone()
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send("POST", path, Some(body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.send("PUT", path, Some(body.to_string())).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send("PATCH", path, Some(body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, None).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<String>) -> Reply {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/api/v1/{path}")
        };
        let mut request = Request::builder().method(method).uri(&path).version(self.version);
        let has = |name: &str| self.headers.iter().any(|(n, _)| *n == name);
        if !has("host") {
            request = request.header("host", "127.0.0.1:3100");
        }
        if body.is_some() && !has("content-type") {
            request = request.header("content-type", "application/json");
        }
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Body::from(body.unwrap_or_default())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let raw = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&raw).unwrap_or(Value::Null);
        let reply = Reply {
            status: head.status,
            headers: head.headers,
            body,
            raw,
            bytes,
        };
        crate::openapi::conforms(method, &path, &reply);
        reply
    }
}

impl Reply {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Reply {
        assert_eq!(self.status.as_u16(), status, "{}", self.raw);
        self
    }

    /// Checks that this is a complete problem with this status and code.
    #[track_caller]
    pub(crate) fn refuses(self, status: u16, code: &str) -> Reply {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.raw
        );
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("urn:mcpctl:problem:{code}"));
        assert_eq!(
            self.body["requestId"].as_str().unwrap(),
            self.headers["x-request-id"].to_str().unwrap()
        );
        assert!(!self.body["detail"].as_str().unwrap().is_empty());
        self
    }

    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.raw))
            .to_owned()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap())
            .collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(crate) fn fields(&self) -> Vec<&str> {
        self.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["field"].as_str().unwrap())
            .collect()
    }
}

/// A user with these bindings, and a client of theirs.
pub(crate) async fn user(node: &Node, email: &str, bindings: &[&str]) -> Client {
    node.mood(Mood::Fine);
    let admin = Client::admin(node);
    let made = admin.post("users", serde_json::json!({"email": email})).await.is(201);
    if !bindings.is_empty() {
        let bindings: Vec<Value> = bindings
            .iter()
            .map(|b| serde_json::to_value(mcp_api::rbac::RoleBindingBody::parse(b).unwrap()).unwrap())
            .collect();
        let name = email.replace(['@', '.'], "-");
        let body =
            serde_json::json!({"name": name, "subjects": [{"kind": "User", "name": email}], "roleBindings": bindings});
        admin.post("rbac", body).await.is(201);
    }
    Client::anybody(node).bearer(&node.session_of(made.text("id").parse().unwrap()))
}
