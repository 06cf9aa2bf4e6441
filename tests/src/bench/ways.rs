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

pub(super) const LEGACY: &str = "2025-11-25";
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
    /// The way that the gateway is compared with: what any gateway costs at least for calls; for lists, which it answers
    /// itself, the server that has them.
    pub(super) fn measured_against(self) -> &'static str {
        match self {
            What::Call => "forwarder",
            What::List => "direct",
        }
    }

    fn method(self) -> &'static str {
        match self {
            What::Call => "tools/call",
            What::List => "tools/list",
        }
    }
}

/// Servers in the project whose lists are measured.
const LIST_SERVERS: usize = 10;
/// Tools of each of them; the upstream lists all of them in one.
const LIST_TOOLS: usize = 10;

/// Tells the gateway about the upstream, and gives the three ways to it: for calls, and for lists.
pub(super) async fn ways(
    cluster: &Cluster,
    upstream: &Helper,
    forwarder: &Helper,
) -> anyhow::Result<(Vec<Way>, Vec<Way>)> {
    let mut api = cluster.api(0).await?;
    let server = |name: &str, path: &str| {
        let url = format!("http://{}{path}", upstream.address);
        json!({ "name": name, "transport": "http", "url": url })
    };
    api.must("POST", "servers", &server("bench", "/mcp")).await?;
    let listed: Vec<String> = (0..LIST_SERVERS).map(|n| format!("list-{n}")).collect();
    for name in &listed {
        let path = format!("/mcp/{LIST_TOOLS}");
        api.must("POST", "servers", &server(name, &path)).await?;
    }
    let calls = project(cluster, &mut api, "bench", &["bench".to_owned()], 1).await?;
    let lists = project(cluster, &mut api, "lists", &listed, LIST_SERVERS * LIST_TOOLS).await?;
    let all = format!("/mcp/{}", LIST_SERVERS * LIST_TOOLS);
    let around = |gateway: Way, path: &str| {
        let plain = |name, helper: &Helper| {
            anyhow::Ok(Way {
                name,
                pid: helper.pid()?,
                address: helper.address.clone(),
                path: path.to_owned(),
                headers: gateway.headers.clone(),
                tool: "work",
            })
        };
        let (direct, forwarder) = (plain("direct", upstream)?, plain("forwarder", forwarder)?);
        anyhow::Ok(vec![direct, forwarder, gateway])
    };
    Ok((around(calls, "/mcp")?, around(lists, &all)?))
}

/// A project of these servers, and the way to it through the gateway, once `tools` of its tools are listed.
async fn project(
    cluster: &Cluster,
    api: &mut Api,
    name: &str,
    servers: &[String],
    tools: usize,
) -> anyhow::Result<Way> {
    api.must("POST", "projects", &json!({ "name": name, "servers": servers }))
        .await?;
    let (_, token) = api.mint("load", name).await?;
    wait_until_listed(api, name, tools).await?;
    let mut headers: Vec<(String, String)> = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", &format!("Bearer {token}")),
        ("mcp-protocol-version", LEGACY),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let node = &cluster.nodes[0];
    let address = host_of(&node.gateway_url)?.to_owned();
    let path = format!("/projects/{name}/mcp");
    if let Some(session) = open_session(&address, &path, &headers).await? {
        headers.push(("mcp-session-id".to_owned(), session));
    }
    Ok(Way {
        name: "gateway",
        pid: node.pid,
        address,
        path,
        headers,
        tool: "bench__work",
    })
}

/// The handshake of a legacy client; gives the session's id.
pub(super) async fn open_session(
    address: &str,
    path: &str,
    headers: &[(String, String)],
) -> anyhow::Result<Option<String>> {
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

pub(super) async fn wait_until_listed(api: &mut Api, project: &str, tools: usize) -> anyhow::Result<()> {
    let listed = async {
        loop {
            let found = api
                .must("GET", &format!("projects/{project}/tools"), &Value::Null)
                .await?;
            if found["items"].as_array().is_some_and(|items| items.len() >= tools) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LISTED_WAIT, listed)
        .await
        .with_context(|| format!("{tools} tools of project {project} were not listed in time"))?
}
