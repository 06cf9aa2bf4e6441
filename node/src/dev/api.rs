//! `dev` as a client of its own cluster: it makes the demo through the API, as anybody would.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mcp_api::projects::ProjectSpecBody;
use mcp_api::rbac::RoleBindingBody;
use mcp_api::servers::ServerSpecBody;
use mcp_api::tokens::NewMcpToken;
use serde::Serialize;
use serde_json::Value;

const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// The client.
pub(super) struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Api {
    pub(super) fn new() -> Api {
        Api {
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(super) async fn is_ready(&self, base: &str) -> bool {
        let ready = self
            .send(Method::GET, format!("{base}/readyz"), None, None::<&()>)
            .await;
        matches!(ready, Ok((StatusCode::OK, _)))
    }

    pub(super) async fn login(&self, base: &str, email: &str, password: &str) -> anyhow::Result<String> {
        let body = mcp_api::auth::LoginRequest {
            email: email.to_owned(),
            password: password.trim().to_owned(),
        };
        let answer = self.post(base, "auth/login", None, &body).await?;
        let session = answer["token"]
            .as_str()
            .context("the login's answer holds no session")?;
        Ok(session.to_owned())
    }

    /// Sets the first password. `None`: that was done before.
    pub(super) async fn set_up(
        &self,
        base: &str,
        email: &str,
        secret: &str,
        password: &str,
    ) -> anyhow::Result<Option<String>> {
        let body = mcp_api::auth::SetupRequest {
            email: email.to_owned(),
            setup_secret: secret.trim().to_owned(),
            password: password.trim().to_owned(),
        };
        let url = format!("{base}/api/v1/auth/setup");
        let (status, answer) = self.send(Method::POST, url, None, Some(&body)).await?;
        if status == StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        if !status.is_success() {
            bail!(
                "POST /api/v1/auth/setup: {status}: {}",
                answer["detail"].as_str().unwrap_or_default()
            );
        }
        Ok(answer["token"].as_str().map(str::to_owned))
    }

    pub(super) async fn demo_is_listed(&self, base: &str, session: &str) -> bool {
        let url = format!("{base}/api/v1/projects/demo/tools");
        let listed = self.send(Method::GET, url, Some(session), None::<&()>).await;
        matches!(listed, Ok((StatusCode::OK, body)) if body["items"].as_array().is_some_and(|items| !items.is_empty()))
    }

    /// Makes the demo server, the project and a token that may use it.
    pub(super) async fn make_demo(&self, base: &str, session: &str) -> anyhow::Result<String> {
        let program = std::env::current_exe()?
            .to_str()
            .context("the path of mcpnode is not UTF-8")?
            .to_owned();
        let server = ServerSpecBody {
            name: "demo".to_owned(),
            description: "echo, add, time, a slow tool with progress, a resource and a prompt".to_owned(),
            transport: "stdio".to_owned(),
            command: Some(program),
            args: vec!["demo-server".to_owned()],
            ..ServerSpecBody::default()
        };
        self.make(base, "servers", session, &server).await?;
        let project = ProjectSpecBody {
            name: "demo".to_owned(),
            description: "The project of mcpnode dev".to_owned(),
            servers: vec!["demo".to_owned()],
            tool_naming: "plain".to_owned(),
            ..ProjectSpecBody::default()
        };
        self.make(base, "projects", session, &project).await?;
        let run = RoleBindingBody {
            role: Some("run".to_owned()),
            resource: Some("servers".to_owned()),
            ..RoleBindingBody::default()
        };
        let token = NewMcpToken {
            name: "demo".to_owned(),
            project: "demo".to_owned(),
            description: "The token of mcpnode dev".to_owned(),
            role_bindings: vec![run],
            force: true,
            ..NewMcpToken::default()
        };
        let minted = self.post(base, "mcptokens", Some(session), &token).await?;
        Ok(minted["token"]
            .as_str()
            .context("the answer holds no token")?
            .to_owned())
    }

    /// Makes what is not there yet: `dev` may have been interrupted half way.
    async fn make(&self, base: &str, what: &str, session: &str, body: &impl Serialize) -> anyhow::Result<()> {
        let url = format!("{base}/api/v1/{what}");
        let (status, answer) = self.send(Method::POST, url, Some(session), Some(body)).await?;
        if status.is_success() || status == StatusCode::CONFLICT {
            return Ok(());
        }
        bail!(
            "POST /api/v1/{what}: {status}: {}",
            answer["detail"].as_str().unwrap_or_default()
        )
    }

    async fn post(
        &self,
        base: &str,
        what: &str,
        session: Option<&str>,
        body: &impl Serialize,
    ) -> anyhow::Result<Value> {
        let url = format!("{base}/api/v1/{what}");
        let (status, answer) = self.send(Method::POST, url, session, Some(body)).await?;
        if !status.is_success() {
            bail!(
                "POST /api/v1/{what}: {status}: {}",
                answer["detail"].as_str().unwrap_or_default()
            );
        }
        Ok(answer)
    }

    async fn send(
        &self,
        method: Method,
        url: String,
        session: Option<&str>,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::ACCEPT, "application/json");
        if let Some(session) = session {
            request = request.header(header::AUTHORIZATION, format!("Bearer {session}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let answered = tokio::time::timeout(ANSWER_WAIT, self.client.request(request.body(Full::new(bytes))?)).await;
        let answer = answered.with_context(|| format!("{url} does not answer"))??;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| anyhow::anyhow!("{url}: {error}"))?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}
