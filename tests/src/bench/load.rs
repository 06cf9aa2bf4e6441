//! Calls at several numbers of connections: direct, through the forwarder, through the gateway, in turns.

use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use super::Plan;
use super::generator::{Job, Report};
use super::histogram::Histogram;
use super::table::{duration, heading, median, table, thousands};
use super::ways::{Helper, Way, What, ways};
use crate::cluster::Cluster;
use crate::process::{cpu_us, machine};

const CONNECTIONS: [usize; 3] = [1, 16, 64];
const HEAD: [&str; 11] = [
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
const RATIOS: [&str; 4] = ["connections", "requests/s", "p50", "CPU per request"];
/// Share of the machine that others may use before a run is called noisy, in percent.
const NOISE_PERCENT_MAX: u64 = 10;
/// Share of the time, in percent, from which on something that runs on one thread is what limits.
const BUSY_PERCENT: u64 = 92;

/// What one way did at one number of connections, over all rounds.
#[derive(Default)]
struct Cell {
    rates: Vec<u64>,
    /// Median latency of each round, ns.
    medians: Vec<u64>,
    /// CPU time per request of each round, ns.
    costs: Vec<u64>,
    latencies: Histogram,
    answered: u64,
    wall_ns: u64,
    life_ns: u64,
    own_us: u64,
    generator_us: u64,
    upstream_us: u64,
    busy_us: u64,
}

impl Cell {
    fn add(&mut self, report: &Report, own_us: u64, upstream_us: u64, busy_us: u64) {
        self.rates
            .push(report.latencies.count() * 1_000_000_000 / report.wall_ns.max(1));
        self.medians.push(report.latencies.percentile(50));
        self.costs.push(own_us * 1_000 / report.answered.max(1));
        self.latencies.add(&report.latencies);
        self.answered += report.answered;
        self.wall_ns += report.wall_ns;
        self.life_ns += report.life_ns;
        self.own_us += own_us;
        self.generator_us += report.cpu_us;
        self.upstream_us += upstream_us;
        self.busy_us += busy_us;
    }

    /// CPU time as a share of the time that passed, in percent of one core.
    fn percent(&self, cpu_us: u64) -> u64 {
        cpu_us * 100_000 / self.life_ns.max(1)
    }

    fn limited_by(&self, cores: u64) -> String {
        // Both run on one thread: when that is busy all the time, it is they who are measured.
        if self.percent(self.generator_us) >= BUSY_PERCENT {
            return "GENERATOR".to_owned();
        }
        if self.percent(self.upstream_us) >= BUSY_PERCENT {
            return "UPSTREAM".to_owned();
        }
        match self.percent(self.busy_us) >= cores * BUSY_PERCENT {
            true => format!("all {cores} cores"),
            false => "nothing full".to_owned(),
        }
    }

    /// Rate, median latency and CPU per request as multiples of another way's: round by round, so that both met the same machine.
    fn ratios(&self, connections: usize, other: &Cell) -> Vec<String> {
        let of = |ours: &[u64], theirs: &[u64]| {
            let ratios: Vec<u64> = ours.iter().zip(theirs).map(|(a, b)| a * 1_000 / (*b).max(1)).collect();
            let middle = median(&ratios);
            format!("{}.{:02}", middle / 1_000, middle % 1_000 / 10)
        };
        vec![
            connections.to_string(),
            of(&self.rates, &other.rates),
            of(&self.medians, &other.medians),
            of(&self.costs, &other.costs),
        ]
    }

    fn row(&self, first: Vec<String>, cores: u64) -> Vec<String> {
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
            self.limited_by(cores),
        ];
        first.into_iter().chain(rest).collect()
    }
}

/// What stands behind the gateway, and beside it. It stays until the end of a run: other parts call through it too.
pub(super) struct Upstreams {
    upstream: Helper,
    forwarder: Helper,
    calls: Vec<Way>,
    lists: Vec<Way>,
}

impl Upstreams {
    /// Starts the upstream and the forwarder, and tells the cluster about them.
    pub(super) async fn start(cluster: &Cluster) -> anyhow::Result<Upstreams> {
        let upstream = Helper::start(&["upstream"]).await?;
        let forwarder = Helper::start(&["forward", &upstream.address]).await?;
        let (calls, lists) = ways(cluster, &upstream, &forwarder).await?;
        Ok(Upstreams {
            upstream,
            forwarder,
            calls,
            lists,
        })
    }
}

/// Measures all ways to the upstream, for calls and for lists.
pub(super) async fn run(plan: &Plan, cluster: &Cluster, upstreams: &Upstreams) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get() as u64;
    let pids = cluster
        .nodes
        .iter()
        .map(|node| node.pid)
        .chain([upstreams.upstream.pid()?, upstreams.forwarder.pid()?])
        .collect();
    let mut track = Track {
        plan,
        cores,
        upstream: upstreams.upstream.pid()?,
        pids,
        machine: Machine::default(),
    };

    println!(
        "tools/call of a tool that answers 200 bytes at once, over streamable HTTP, in a legacy session. Gateway: {}, one of three replicas, \
         with RBAC, audit and lease. CPU us/request is that of the process under test; shares are of one core.\n",
        cluster.nodes[0].name
    );
    track.table(What::Call, &upstreams.calls, &CONNECTIONS).await?;
    heading(
        "Lists",
        "tools/list of 100 tools. The gateway answers from its replicated cache, filtered by the token's rights: 10 servers with 10 tools \
         each. The upstream answers with a list of the same size that it has ready.",
    );
    track.table(What::List, &upstreams.lists, &CONNECTIONS[1..2]).await?;
    track.machine.print(cores);
    Ok(())
}

/// What is measured on.
struct Track<'a> {
    plan: &'a Plan,
    cores: u64,
    upstream: u32,
    /// Every process that belongs to the benchmark, but the generators.
    pids: Vec<u32>,
    machine: Machine,
}

/// What the whole machine did during the measured rounds, to know whether it did anything else.
#[derive(Default)]
struct Machine {
    all_us: u64,
    ours_us: u64,
    wall_ns: u64,
}

impl Machine {
    fn print(&self, cores: u64) {
        let others = self.all_us.saturating_sub(self.ours_us) * 100_000 / (self.wall_ns * cores).max(1);
        println!("\nOther processes used {others} % of the machine meanwhile.");
        if others > NOISE_PERCENT_MAX {
            println!(
                "THE MACHINE WAS NOT QUIET: rates and latencies of this run mean little, CPU per request somewhat more."
            );
        }
    }
}

impl Track<'_> {
    async fn table(&mut self, what: What, ways: &[Way], connections: &[usize]) -> anyhow::Result<()> {
        let cells = self.measure(what, ways, connections).await?;
        let rows = connections.iter().zip(&cells).flat_map(|(connections, cells)| {
            let cells = cells.iter().zip(ways);
            cells.map(|(cell, way)| cell.row(vec![connections.to_string(), way.name.to_owned()], self.cores))
        });
        table(&HEAD, &rows.collect::<Vec<_>>());
        let against = ways.iter().position(|way| way.name == what.measured_against());
        let gateway = ways.iter().position(|way| way.name == "gateway");
        if let (Some(against), Some(gateway)) = (against, gateway) {
            println!(
                "\nThe gateway as a multiple of the {}, median of the rounds (each ratio within one round):\n",
                what.measured_against()
            );
            let rows = connections.iter().zip(&cells);
            let rows = rows.map(|(connections, cells)| cells[gateway].ratios(*connections, &cells[against]));
            table(&RATIOS, &rows.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Every way at every number of connections, `plan.rounds` times, beginning with another way each time.
    async fn measure(&mut self, what: What, ways: &[Way], connections: &[usize]) -> anyhow::Result<Vec<Vec<Cell>>> {
        let none = || ways.iter().map(|_| Cell::default()).collect();
        let mut cells: Vec<Vec<Cell>> = connections.iter().map(|_| none()).collect();
        for round in 0..self.plan.rounds {
            for (connections, cells) in connections.iter().zip(&mut cells) {
                for turn in 0..ways.len() {
                    let at = (round + turn) % ways.len();
                    self.round(what, *connections, &ways[at], &mut cells[at]).await?;
                }
            }
        }
        Ok(cells)
    }

    async fn round(&mut self, what: What, connections: usize, way: &Way, cell: &mut Cell) -> anyhow::Result<()> {
        let before = (cpu_us(way.pid)?, cpu_us(self.upstream)?, self.ours()?, machine()?);
        let report = generate(&way.job(what, connections, self.plan.round_ms))
            .await
            .with_context(|| way.name)?;
        let now = machine()?;
        let (own_us, upstream_us) = (cpu_us(way.pid)? - before.0, cpu_us(self.upstream)? - before.1);
        cell.add(&report, own_us, upstream_us, now.busy_us - before.3.busy_us);
        self.machine.ours_us += self.ours()? - before.2 + report.cpu_us;
        self.machine.all_us += now.processes_us - before.3.processes_us;
        self.machine.wall_ns += report.life_ns;
        Ok(())
    }

    fn ours(&self) -> anyhow::Result<u64> {
        self.pids.iter().map(|pid| cpu_us(*pid)).sum()
    }
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
