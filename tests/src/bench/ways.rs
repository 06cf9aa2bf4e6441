//! The ways to the upstream: the processes behind them, and what is sent to each.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::generator::{ID, Job};
use crate::api::{Api, host_of, request};
use crate::cluster::Cluster;
use crate::connection::Connection;

const LEGACY: &str = "2025-11-25";
const LISTED_WAIT: Duration = Duration::from_secs(30);

/// A helper process that says on its first line where it listens. It ends with this value.
pub(super) struct Helper {
    child: Child,
    pub(super) address: String,
}

impl Helper {
    pub(super) async fn start(args: &[&str]) -> anyhow::Result<Helper> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let address = BufReader::new(stdout)
            .lines()
            .next_line()
            .await?
            .with_context(|| format!("{args:?} ended at once"))?;
        Ok(Helper { child, address })
    }

    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("a helper ended")
    }
}

/// A way to the upstream.
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) pid: u32,
    address: String,
    path: String,
    headers: Vec<(String, String)>,
    tool: &'static str,
}

impl Way {
    pub(super) fn job(&self, what: What, connections: usize, run_ms: u64) -> Job {
        let params = match what {
            What::Call => json!({ "name": self.tool, "arguments": { "n": 1 } }),
            What::List => json!({}),
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{ID},"method":"{}","params":{params}}}"#,
            what.method()
        );
        let (address, path, headers) = (self.address.clone(), self.path.clone(), self.headers.clone());
        Job {
            address,
            path,
            headers,
            body,
            connections,
            run_ms,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Call,
    List,
}

impl What {
    fn method(self) -> &'static str {
        match self {
            What::Call => "tools/call",
            What::List => "tools/list",
        }
    }
}

/// Tells the gateway about the upstream, and gives the three ways to it.
pub(super) async fn ways(cluster: &Cluster, upstream: &Helper, forwarder: &Helper) -> anyhow::Result<Vec<Way>> {
    let node = &cluster.nodes[0];
    let mut api = cluster.api(0).await?;
    let url = format!("http://{}/mcp", upstream.address);
    api.must(
        "POST",
        "servers",
        &json!({ "name": "bench", "transport": "http", "url": url }),
    )
    .await?;
    api.must("POST", "projects", &json!({ "name": "bench", "servers": ["bench"] }))
        .await?;
    let (_, token) = api.mint("load", "bench").await?;
    wait_until_listed(&mut api).await?;

    let mut headers: Vec<(String, String)> = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", &format!("Bearer {token}")),
        ("mcp-protocol-version", LEGACY),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let address = host_of(&node.gateway_url)?.to_owned();
    let path = "/projects/bench/mcp".to_owned();
    if let Some(session) = open_session(&address, &path, &headers).await? {
        headers.push(("mcp-session-id".to_owned(), session));
    }
    let plain = |name, helper: &Helper| {
        let (address, path, headers) = (helper.address.clone(), "/mcp".to_owned(), headers.clone());
        anyhow::Ok(Way {
            name,
            pid: helper.pid()?,
            address,
            path,
            headers,
            tool: "work",
        })
    };
    Ok(vec![
        plain("direct", upstream)?,
        plain("forwarder", forwarder)?,
        Way {
            name: "gateway",
            pid: node.pid,
            address,
            path,
            headers: headers.clone(),
            tool: "bench__work",
        },
    ])
}

/// The handshake of a legacy client; gives the session's id.
async fn open_session(address: &str, path: &str, headers: &[(String, String)]) -> anyhow::Result<Option<String>> {
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let client =
        json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": { "name": "bench", "version": "1" } });
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client }).to_string();
    let mut connection = Connection::open(address).await?;
    let answer = connection
        .ask(&request("POST", address, path, &headers, hello.as_bytes()))
        .await?;
    if answer.status != 200 {
        bail!(
            "initialize: HTTP {}: {}",
            answer.status,
            String::from_utf8_lossy(answer.body)
        );
    }
    Ok(answer.header("mcp-session-id").map(str::to_owned))
}

async fn wait_until_listed(api: &mut Api) -> anyhow::Result<()> {
    let listed = async {
        loop {
            let tools = api.must("GET", "projects/bench/tools", &Value::Null).await?;
            if tools["items"].as_array().is_some_and(|items| !items.is_empty()) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LISTED_WAIT, listed)
        .await
        .context("the upstream was not listed in time")?
}
