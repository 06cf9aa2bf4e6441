//! A cluster of real processes on this machine, made by `mcpnode dev --processes`: to call, to pause, to kill.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::api::{Api, host_of, request};
use crate::connection::Connection;

const READY_WAIT: Duration = Duration::from_secs(90);
const STOP_WAIT: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(5);

/// The cluster. It ends with this value.
pub struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    dev: Child,
    restarted: Vec<Child>,
    /// The administrator's session.
    pub session: String,
    /// In their order.
    pub nodes: Vec<Node>,
}

/// One of its replicas.
#[derive(Debug, Clone)]
pub struct Node {
    /// `node-1` and so on.
    pub name: String,
    /// URL of its API.
    pub api_url: String,
    /// URL of its gateway.
    pub gateway_url: String,
    /// Its process.
    pub pid: u32,
}

impl Cluster {
    /// Starts `replicas` replicas under `dir` and waits until each of them holds a lease.
    pub async fn start(program: &Path, dir: &Path, replicas: u16) -> anyhow::Result<Cluster> {
        Cluster::start_with(program, dir, replicas, &[]).await
    }

    /// The same with settings of the nodes, as environment variables.
    pub async fn start_with(
        program: &Path,
        dir: &Path,
        replicas: u16,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Cluster> {
        let settings: Vec<(String, String)> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (env_file, ready_file) = (dir.join("env"), dir.join("ready"));
        let log = std::fs::File::create(dir.join("dev.log"))?;
        let mut command = Command::new(program);
        command
            .args(["dev", "--processes", "--replicas", &replicas.to_string(), "--data-dir"])
            .arg(dir.join("data"));
        command
            .arg("--env-file")
            .arg(&env_file)
            .arg("--ready-file")
            .arg(&ready_file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .envs(settings.iter().cloned())
            .kill_on_drop(true);
        let mut dev = command
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let ready = async {
            while !ready_file.exists() {
                if let Some(status) = dev.try_wait()? {
                    bail!("mcpnode dev ended ({status}): see {}", dir.join("dev.log").display());
                }
                tokio::time::sleep(STEP).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(READY_WAIT, ready)
            .await
            .context("the cluster was not ready in time")??;
        let env = read_env(&std::fs::read_to_string(&env_file)?);
        let of = |name: &str| {
            env.get(name)
                .cloned()
                .with_context(|| format!("{} lacks {name}", env_file.display()))
        };
        let (api_urls, mcp_urls, pids) = (of("MCPCTL_SERVER")?, of("MCP_URLS")?, of("MCPNODE_PIDS")?);
        let rows = api_urls.split(',').zip(mcp_urls.split(' ')).zip(pids.split(','));
        let nodes = rows.enumerate().map(|(n, ((api, mcp), pid))| {
            let gateway_url = format!("http://{}", host_of(mcp)?);
            Ok(Node {
                name: format!("node-{}", n + 1),
                api_url: api.to_owned(),
                gateway_url,
                pid: pid.parse()?,
            })
        });
        let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Cluster {
            program: program.to_owned(),
            dir: dir.to_owned(),
            settings,
            dev,
            restarted: Vec::new(),
            session: of("MCPCTL_SESSION")?,
            nodes,
        })
    }

    /// A connection to the API of a node.
    pub async fn api(&self, node: usize) -> anyhow::Result<Api> {
        Api::open(&self.nodes[node].api_url, &self.session).await
    }

    /// Which node leads, as soon as one of `among` knows.
    pub async fn leader(&self, among: &[usize]) -> anyhow::Result<usize> {
        let found = async {
            loop {
                for node in among {
                    if let Some(leader) = self.leader_by(*node).await.filter(|leader| among.contains(leader)) {
                        return leader;
                    }
                }
                tokio::time::sleep(STEP).await;
            }
        };
        tokio::time::timeout(READY_WAIT, found)
            .await
            .context("no leader in time")
    }

    async fn leader_by(&self, node: usize) -> Option<usize> {
        let listed = self
            .api(node)
            .await
            .ok()?
            .must("GET", "nodes", &Value::Null)
            .await
            .ok()?;
        let leading = listed["items"].as_array()?.iter().find(|n| n["state"] == "leader")?;
        self.nodes.iter().position(|n| leading["name"] == n.name.as_str())
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&self, node: usize) -> anyhow::Result<()> {
        let pid = i32::try_from(self.nodes[node].pid)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("{} cannot be killed", self.nodes[node].name))
    }

    /// Starts a node again, as the line that `dev` prints does, and waits until it holds a lease.
    pub async fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        self.spawn(node)?;
        self.ready(node).await
    }

    /// Starts a node again.
    pub fn spawn(&mut self, node: usize) -> anyhow::Result<()> {
        let dir = self.dir.join("data").join(&self.nodes[node].name);
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(dir.join("mcpnode.log"))?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(dir.join("mcpnode.toml"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .envs(self.settings.iter().cloned())
            .kill_on_drop(true);
        let child = command.spawn()?;
        self.nodes[node].pid = child.id().context("the replica ended at once")?;
        self.restarted.push(child);
        Ok(())
    }

    /// Waits until a node holds a lease.
    pub async fn ready(&self, node: usize) -> anyhow::Result<()> {
        let url = &self.nodes[node].api_url;
        let ready = async {
            while !is_ready(url).await {
                tokio::time::sleep(STEP).await;
            }
        };
        // Whoever waits may have been stopped for longer than the limit itself: one last look decides.
        if tokio::time::timeout(READY_WAIT, ready).await.is_ok() || is_ready(url).await {
            return Ok(());
        }
        let (name, says) = (&self.nodes[node].name, reasons(url).await);
        bail!("{name} got no lease within {READY_WAIT:?}: {says}")
    }

    /// Stops everything in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for child in self.restarted.iter_mut().chain([&mut self.dev]) {
            if let Some(pid) = child.id() {
                kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM).unwrap_or(());
            }
        }
        for child in self.restarted.iter_mut().chain([&mut self.dev]) {
            if tokio::time::timeout(STOP_WAIT, child.wait()).await.is_err() {
                child.kill().await?;
            }
        }
        self.nodes.clear();
        Ok(())
    }
}

/// For what ends in the middle: a replica does not end with the `dev` that started it if that one is killed.
impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Ok(pid) = i32::try_from(node.pid) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or(());
            }
        }
    }
}

async fn is_ready(api_url: &str) -> bool {
    let Ok(host) = host_of(api_url) else { return false };
    let Ok(mut connection) = Connection::open(host).await else {
        return false;
    };
    let asked = connection.ask(&request("GET", host, "/readyz", &[], b"")).await;
    asked.is_ok_and(|answer| answer.status == 200)
}

/// What a node says of itself.
async fn reasons(api_url: &str) -> String {
    let asked = async {
        let host = host_of(api_url)?;
        let mut connection = Connection::open(host).await?;
        let asked = request("GET", host, "/readyz?verbose", &[], b"");
        anyhow::Ok(String::from_utf8_lossy(connection.ask(&asked).await?.body).into_owned())
    };
    asked
        .await
        .unwrap_or_else(|error| format!("it does not answer: {error:#}"))
}

/// `export NAME=VALUE` lines, the value quoted or not.
fn read_env(text: &str) -> HashMap<String, String> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    lines
        .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
        .collect()
}
