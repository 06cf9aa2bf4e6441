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
mod revoke;
mod sizes;
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
    syncs: usize,
    revokes: usize,
    writes_ms: u64,
    failovers: usize,
}

const FULL: Plan = Plan {
    rounds: 7,
    round_ms: 2_000,
    decisions: 3_000_000,
    syncs: 300,
    revokes: 100,
    writes_ms: 5_000,
    failovers: 5,
};
const QUICK: Plan = Plan {
    rounds: 2,
    round_ms: 500,
    decisions: 300_000,
    syncs: 50,
    revokes: 20,
    writes_ms: 1_000,
    failovers: 1,
};

const USAGE: &str = "usage: bench [--quick] [--dir DIR]\n\n  --quick    a short run: shows that it works, not how fast it is\n  \
                     --dir DIR  where the cluster's files go, and so which disk is measured [default: a temporary directory]";

/// Runs the benchmark, or, started by it, one of its helpers.
pub fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match args.as_slice() {
        ["upstream"] => one()?.block_on(upstream::run()),
        ["generate", job] => one()?.block_on(generator::run(job)),
        // As many threads as a node has, because that is what it is compared with.
        ["forward", to] => tokio::runtime::Runtime::new()?.block_on(forwarder::run(to)),
        _ => {
            let (plan, dir) = read(&args)?;
            let dir = match dir {
                Some(dir) => tempfile::Builder::new().prefix("bench-").tempdir_in(dir)?,
                None => tempfile::Builder::new().prefix("mcp-bench-").tempdir()?,
            };
            one()?.block_on(run(&plan, dir.path()))
        }
    }
}

fn read(args: &[&str]) -> anyhow::Result<(Plan, Option<PathBuf>)> {
    let (mut plan, mut dir, mut args) = (FULL, None, args.iter());
    while let Some(arg) = args.next() {
        match *arg {
            "--quick" => plan = QUICK,
            "--dir" => dir = Some(PathBuf::from(args.next().context(USAGE)?)),
            _ => bail!(USAGE),
        }
    }
    Ok((plan, dir))
}

async fn run(plan: &Plan, dir: &Path) -> anyhow::Result<()> {
    let program = gateway_program()?;
    sizes::machine(dir)?;
    let began = sizes::start_up(&program, dir).await?;
    let mut cluster = began.cluster;
    let fresh = sizes::memory(&cluster)?;

    heading("Calls", "");
    let upstream = load::run(plan, &cluster).await?;
    sizes::print(&program, &began.figures, &fresh, &sizes::memory(&cluster)?)?;
    revoke::run(plan, &cluster, dir).await?;
    writes::run(plan, &cluster).await?;
    failover::run(plan, &mut cluster).await?;
    drop(upstream);
    cluster.stop().await?;
    decide::run(plan, dir)
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
