//! The benchmark: what the gateway costs, against doing without it, from one run on one machine.
//!
//! Rounds of direct, forwarded and gated calls take turns, so that whatever else the machine does meets all three. Upstream,
//! forwarder and load generator are processes of their own (this program started again), so that their work is not counted as
//! the gateway's; the figure to compare is CPU per request, because on a small machine all of them share the same cores.

mod decide;
mod failover;
mod forwarder;
mod generator;
mod histogram;
mod load;
mod ready;
mod revoke;
mod sizes;
mod streams;
mod table;
mod upstream;
mod ways;
mod writes;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use table::heading;

/// How long and how often things are measured.
#[derive(Debug, Clone)]
struct Plan {
    rounds: usize,
    round_ms: u64,
    decisions: usize,
    tokens: &'static [usize],
    syncs: usize,
    revokes: usize,
    writes_ms: u64,
    failovers: usize,
    ready_tokens: usize,
    readies: usize,
    streams: usize,
    changes: usize,
}

const FULL: Plan = Plan {
    rounds: 7,
    round_ms: 2_000,
    decisions: 3_000_000,
    tokens: &[10_000, 100_000, 1_000_000],
    syncs: 300,
    revokes: 100,
    writes_ms: 5_000,
    failovers: 5,
    ready_tokens: 10_000,
    readies: 12,
    streams: 10_000,
    changes: 5,
};
const QUICK: Plan = Plan {
    rounds: 2,
    round_ms: 500,
    decisions: 300_000,
    tokens: &[10_000, 100_000],
    syncs: 50,
    revokes: 20,
    writes_ms: 1_000,
    failovers: 1,
    ready_tokens: 1_000,
    readies: 3,
    streams: 500,
    changes: 2,
};

const USAGE: &str = "usage: bench [--quick] [--only PART] [--dir DIR]\n\n  --quick      a short run: shows that it works, not how fast it is\n  \
                     --only PART  calls, revoke, writes, failover, ready, streams or decide [default: all of them]\n  \
                     --dir DIR    where the cluster's files go, and so which disk is measured [default: a temporary directory]";

/// The parts of a run, in their order.
const PARTS: [&str; 7] = ["calls", "revoke", "writes", "failover", "ready", "streams", "decide"];

/// Runs the benchmark, or, started by it, one of its helpers.
pub fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match args.as_slice() {
        ["fill", dir, tokens] => decide::fill(Path::new(dir), tokens),
        ["upstream"] => one()?.block_on(upstream::run()),
        ["generate", job] => one()?.block_on(generator::run(job)),
        // As many threads as a node has, because that is what it is compared with.
        ["forward", to] => tokio::runtime::Runtime::new()?.block_on(forwarder::run(to)),
        _ => {
            let order = read(&args)?;
            let dir = match &order.dir {
                Some(dir) => tempfile::Builder::new().prefix("bench-").tempdir_in(dir)?,
                None => tempfile::Builder::new().prefix("mcp-bench-").tempdir()?,
            };
            one()?.block_on(run(&order, dir.path()))
        }
    }
}

/// What was ordered on the command line.
struct Order {
    plan: Plan,
    only: Option<String>,
    dir: Option<PathBuf>,
}

impl Order {
    fn has(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

fn read(args: &[&str]) -> anyhow::Result<Order> {
    let mut args = args.iter();
    let mut order = Order {
        plan: FULL,
        only: None,
        dir: None,
    };
    while let Some(arg) = args.next() {
        match *arg {
            "--quick" => order.plan = QUICK,
            "--only" => {
                let part = args.next().filter(|part| PARTS.contains(part)).context(USAGE)?;
                order.only = Some((*part).to_owned());
            }
            "--dir" => order.dir = Some(PathBuf::from(args.next().context(USAGE)?)),
            _ => bail!(USAGE),
        }
    }
    Ok(order)
}

async fn run(order: &Order, dir: &Path) -> anyhow::Result<()> {
    let plan = &order.plan;
    sizes::machine(dir)?;
    if !matches!(order.only.as_deref(), Some("ready" | "streams" | "decide")) {
        with_a_cluster(order, dir).await?;
    }
    if order.has("ready") {
        ready::run(plan, &gateway_program()?, dir).await?;
    }
    if order.has("streams") {
        streams::run(plan, &gateway_program()?, dir).await?;
    }
    if order.has("decide") {
        decide::run(plan, dir)?;
    }
    Ok(())
}

async fn with_a_cluster(order: &Order, dir: &Path) -> anyhow::Result<()> {
    let plan = &order.plan;
    let program = gateway_program()?;
    let began = sizes::start_up(&program, dir).await?;
    let mut cluster = began.cluster;
    let fresh = sizes::memory(&cluster)?;
    let upstreams = load::Upstreams::start(&cluster).await?;
    if order.has("calls") {
        heading("Calls", "");
        load::run(plan, &cluster, &upstreams).await?;
        sizes::print(&program, &began.figures, &fresh, &sizes::memory(&cluster)?)?;
    }
    if order.has("revoke") {
        revoke::run(plan, &cluster, dir).await?;
    }
    if order.has("writes") {
        writes::run(plan, &cluster).await?;
    }
    if order.has("failover") {
        failover::run(plan, &mut cluster).await?;
    }
    drop(upstreams);
    cluster.stop().await
}

/// The `mcpnode` beside this program, brought up to date first where cargo is at hand.
fn gateway_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("mcpnode");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "-p", "mcpnode"]);
        if own.parent().is_some_and(|dir| dir.ends_with("release")) {
            build.arg("--release");
        }
        if !build.status()?.success() {
            bail!("mcpnode does not build");
        }
    }
    if !beside.exists() {
        bail!(
            "{} is not there: build it with cargo build --release -p mcpnode",
            beside.display()
        );
    }
    Ok(beside)
}
