//! A node's API as a test calls it: JSON in, JSON out.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::connection::Connection;

const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// One keep-alive connection to the API of one node, with a session.
pub struct Api {
    connection: Connection,
    host: String,
    session: String,
}

impl Api {
    /// Connects to `http://host:port`.
    pub async fn open(url: &str, session: &str) -> anyhow::Result<Api> {
        let host = host_of(url)?.to_owned();
        Ok(Api {
            connection: Connection::open(&host).await?,
            host,
            session: session.to_owned(),
        })
    }

    /// One request under `/api/v1/`; gives status and body.
    pub async fn send(&mut self, method: &str, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let bearer = format!("Bearer {}", self.session);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let request = request(
            method,
            &self.host,
            &format!("/api/v1/{path}"),
            &headers,
            body.as_bytes(),
        );
        let answer = tokio::time::timeout(ANSWER_WAIT, self.connection.ask(&request))
            .await
            .context("no answer in time")??;
        Ok((answer.status, answer.json()?))
    }

    /// A request that must succeed.
    pub async fn must(&mut self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        match self.send(method, path, body).await? {
            (200..=299, answer) => Ok(answer),
            (status, answer) => bail!("{method} {path}: HTTP {status}: {answer}"),
        }
    }

    /// Mints a token that may run everything of `project`; gives its id and the bearer.
    pub async fn mint(&mut self, name: &str, project: &str) -> anyhow::Result<(String, String)> {
        let bindings = json!([{ "role": "run", "resource": "servers" }]);
        let wanted = json!({ "name": name, "project": project, "roleBindings": bindings });
        let minted = self.must("POST", "mcptokens", &wanted).await?;
        let text = |field: &str| {
            minted[field]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {field} in the answer"))
        };
        Ok((text("id")?, text("token")?))
    }
}

/// A whole request as bytes.
pub fn request(method: &str, host: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// `host:port` of an URL.
pub fn host_of(url: &str) -> anyhow::Result<&str> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url} is not plain HTTP"))?;
    Ok(rest.split('/').next().unwrap_or(rest))
}
