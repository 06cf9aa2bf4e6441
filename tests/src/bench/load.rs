//! Calls at several numbers of connections: direct, through the forwarder, through the gateway, in turns.

use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Plan;
use super::generator::{ID, Job, Report};
use super::histogram::Histogram;
use super::table::{duration, heading, median, table, thousands};
use crate::api::{host_of, request};
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::process::cpu_us;

const CONNECTIONS: [usize; 3] = [1, 16, 64];
const LEGACY: &str = "2025-11-25";
/// Share of the time, in percent, from which on something that runs on one thread is what limits.
const BUSY_PERCENT: u64 = 92;

/// A helper process that says on its first line where it listens. It ends with this value.
pub(super) struct Helper {
    child: Child,
    address: String,
}

impl Helper {
    async fn start(args: &[&str]) -> anyhow::Result<Helper> {
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

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("a helper ended")
    }
}

/// A way to the upstream.
struct Way {
    name: &'static str,
    pid: u32,
    address: String,
    path: String,
    headers: Vec<(String, String)>,
    tool: &'static str,
}

impl Way {
    fn job(&self, what: What, connections: usize, run_ms: u64) -> Job {
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
enum What {
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

/// What one way did at one number of connections, over all rounds.
#[derive(Default)]
struct Cell {
    rates: Vec<u64>,
    latencies: Histogram,
    answered: u64,
    wall_ns: u64,
    life_ns: u64,
    own_us: u64,
    generator_us: u64,
    upstream_us: u64,
}

impl Cell {
    fn add(&mut self, report: &Report, own_us: u64, upstream_us: u64) {
        self.rates
            .push(report.latencies.count() * 1_000_000_000 / report.wall_ns.max(1));
        self.latencies.add(&report.latencies);
        self.answered += report.answered;
        self.wall_ns += report.wall_ns;
        self.life_ns += report.life_ns;
        self.own_us += own_us;
        self.generator_us += report.cpu_us;
        self.upstream_us += upstream_us;
    }

    /// CPU time as a share of the time that passed, in percent of one core.
    fn percent(&self, cpu_us: u64) -> u64 {
        cpu_us * 100_000 / self.life_ns.max(1)
    }

    fn limited_by(&self, way: &Way, cores: u64) -> String {
        let (generator, upstream) = (self.percent(self.generator_us), self.percent(self.upstream_us));
        let own = if way.name == "direct" {
            0
        } else {
            self.percent(self.own_us)
        };
        if generator >= BUSY_PERCENT {
            return "GENERATOR".to_owned();
        }
        if upstream >= BUSY_PERCENT {
            return "UPSTREAM".to_owned();
        }
        match (generator + upstream + own) * 100 >= cores * 100 * BUSY_PERCENT {
            true => format!("all {cores} cores"),
            false => "waiting".to_owned(),
        }
    }

    fn row(&self, first: Vec<String>, way: &Way, cores: u64) -> Vec<String> {
        let (low, high) = (self.rates.iter().min().copied(), self.rates.iter().max().copied());
        let spread = format!("{}-{}", thousands(low.unwrap_or(0)), thousands(high.unwrap_or(0)));
        let own = self.own_us * 10 / self.answered.max(1);
        let rest = [
            thousands(median(&self.rates)),
            spread,
            duration(self.latencies.percentile(50)),
            duration(self.latencies.percentile(99)),
            format!("{}.{}", own / 10, own % 10),
            format!("{} %", self.percent(self.own_us)),
            format!("{} %", self.percent(self.upstream_us)),
            format!("{} %", self.percent(self.generator_us)),
            self.limited_by(way, cores),
        ];
        first.into_iter().chain(rest).collect()
    }
}

/// Sets up the upstream behind all three ways, and measures. Gives the upstream, which others use further on.
pub(super) async fn run(plan: &Plan, cluster: &Cluster) -> anyhow::Result<Helper> {
    let upstream = Helper::start(&["upstream"]).await?;
    let forwarder = Helper::start(&["forward", &upstream.address]).await?;
    let ways = ways(cluster, &upstream, &forwarder).await?;
    let cores = std::thread::available_parallelism()?.get() as u64;
    let head = [
        "connections",
        "way",
        "requests/s",
        "rounds",
        "p50",
        "p99",
        "CPU us/request",
        "own CPU",
        "upstream",
        "generator",
        "limited by",
    ];

    println!(
        "tools/call of a tool that answers {} bytes at once, over streamable HTTP. Gateway: {}, one of three replicas, with RBAC, audit \
         and lease. CPU us/request is that of the process under test; shares are of one core.\n",
        200, cluster.nodes[0].name
    );
    let cells = measure(plan, What::Call, &CONNECTIONS, &ways, upstream.pid()?).await?;
    let rows = CONNECTIONS.iter().zip(&cells).flat_map(|(connections, cells)| {
        cells
            .iter()
            .zip(&ways)
            .map(|(cell, way)| cell.row(vec![connections.to_string(), way.name.to_owned()], way, cores))
    });
    table(&head, &rows.collect::<Vec<_>>());

    heading(
        "Lists",
        "tools/list of 20 tools. The gateway answers from its replicated cache, filtered by the token's rights.",
    );
    let cells = measure(plan, What::List, &CONNECTIONS[1..2], &ways, upstream.pid()?).await?;
    let rows = cells[0]
        .iter()
        .zip(&ways)
        .map(|(cell, way)| cell.row(vec!["16".to_owned(), way.name.to_owned()], way, cores));
    table(&head, &rows.collect::<Vec<_>>());
    Ok(upstream)
}

/// Every way at every number of connections, `plan.rounds` times, beginning with another way each time.
async fn measure(
    plan: &Plan,
    what: What,
    connections: &[usize],
    ways: &[Way],
    upstream: u32,
) -> anyhow::Result<Vec<Vec<Cell>>> {
    let mut cells: Vec<Vec<Cell>> = connections
        .iter()
        .map(|_| ways.iter().map(|_| Cell::default()).collect())
        .collect();
    for round in 0..plan.rounds {
        for (connections, cells) in connections.iter().zip(&mut cells) {
            for turn in 0..ways.len() {
                let at = (round + turn) % ways.len();
                let way = &ways[at];
                let before = (cpu_us(way.pid)?, cpu_us(upstream)?);
                let report = generate(&way.job(what, *connections, plan.round_ms))
                    .await
                    .with_context(|| way.name)?;
                cells[at].add(&report, cpu_us(way.pid)? - before.0, cpu_us(upstream)? - before.1);
            }
        }
    }
    Ok(cells)
}

async fn generate(job: &Job) -> anyhow::Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["generate", &serde_json::to_string(job)?])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = command.output().await?;
    if !done.status.success() {
        bail!("the load generator failed: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(serde_json::from_slice(&done.stdout)?)
}

async fn ways(cluster: &Cluster, upstream: &Helper, forwarder: &Helper) -> anyhow::Result<Vec<Way>> {
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

async fn wait_until_listed(api: &mut crate::api::Api) -> anyhow::Result<()> {
    let listed = async {
        loop {
            let tools = api.must("GET", "projects/bench/tools", &Value::Null).await?;
            if tools["items"].as_array().is_some_and(|items| !items.is_empty()) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), listed)
        .await
        .context("the upstream was not listed in time")?
}
