//! kill -9 at random points, with real processes: whatever was acknowledged is there afterwards, on every node.
//!
//! Writers mint and revoke through all nodes and keep a history. In each round one, two or all of the nodes are killed at a
//! random moment and started again; then every node must show every token that was acknowledged, and refuse every one whose
//! revoke was. Where one node is killed, its state or its log is ruined in turn too, and it has to get both from the others. A run in which one kind of kill did not happen, or too little was acknowledged, is void, not green.
//!
//! With `--cut` (see `tests/powercut/run`) the disk under all nodes loses its power instead: they are killed a moment later, and
//! started again on what was synced.

mod history;
mod writers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cluster::Cluster;
use crate::random::Random;

use history::History;
use writers::Writers;

const USAGE: &str = "usage: crash [--rounds N] [--seed S] [--dir DIR] [--program FILE]\n\n  \
    --rounds N      how often nodes are killed [default: 30; the long run has 500]\n  \
    --seed S        what is killed when [default: drawn, and printed]\n  \
    --dir DIR       where the cluster's files go [default: a temporary directory]\n  \
    --program FILE  the mcpnode to kill [default: the one beside this program]\n  \
    --cut COMMAND   take the power from the disk as well: by `COMMAND cut`, and `COMMAND mend` brings it back";
/// Nodes of the cluster.
const NODES: usize = 3;
/// Snapshots and purges all the time, so that kills hit them; and few entries kept, so that whoever was away is handed a snapshot.
const SETTINGS: [(&str, &str); 3] = [
    ("MCPNODE_LOG_SNAPSHOT_ENTRIES", "20"),
    ("MCPNODE_LOG_KEPT_ENTRIES", "10"),
    ("MCPNODE_LOG_COMPARE_EVERY_S", "10"),
];
/// Longest life between two kills, and longest death, ms.
const LIFE_MS: u64 = 700;
const DEATH_MS: u64 = 300;
/// Writes that must have been acknowledged per round, or nothing was tested.
const WRITES_PER_ROUND: usize = 3;

struct Options {
    rounds: usize,
    seed: u64,
    dir: Option<PathBuf>,
    program: PathBuf,
    cut: Option<String>,
}

/// Reads the command line and runs.
pub fn main() -> anyhow::Result<()> {
    let options = options(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match runtime.block_on(run(&options)) {
        Ok(verdict) => println!("crash: PASSED: {verdict}"),
        Err(error) => {
            let (seed, rounds) = (options.seed, options.rounds);
            println!("crash: FAILED: seed {seed}, again with --seed {seed} --rounds {rounds}: {error:#}");
            std::process::exit(1);
        }
    }
    Ok(())
}

fn options(args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let own = std::env::current_exe()?;
    let mut options = Options {
        rounds: 30,
        seed: Random::draw_seed()?,
        dir: None,
        program: own.with_file_name("mcpnode"),
        cut: None,
    };
    let mut args = args;
    while let Some(flag) = args.next() {
        let mut value = || args.next().with_context(|| format!("{flag} needs a value\n\n{USAGE}"));
        match flag.as_str() {
            "--rounds" => options.rounds = value()?.parse().context("--rounds is not a number")?,
            "--seed" => options.seed = value()?.parse().context("--seed is not a number")?,
            "--dir" => options.dir = Some(value()?.into()),
            "--program" => options.program = value()?.into(),
            "--cut" => options.cut = Some(value()?),
            _ => bail!("{flag} is no option\n\n{USAGE}"),
        }
    }
    if !options.program.exists() {
        bail!("{} is not there: cargo build -p mcpnode", options.program.display());
    }
    Ok(options)
}

async fn run(options: &Options) -> anyhow::Result<String> {
    let mut temporary = tempfile::Builder::new().prefix("mcpnode-crash.").tempdir()?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    let verdict = rounds(options, &dir).await;
    // What a failure leaves behind is what it can be understood from.
    temporary.disable_cleanup(verdict.is_err());
    verdict.with_context(|| format!("see {}", dir.display()))
}

async fn rounds(options: &Options, dir: &Path) -> anyhow::Result<String> {
    println!(
        "crash: {} rounds with seed {} in {}",
        options.rounds,
        options.seed,
        dir.display()
    );
    let mut random = Random::from_seed(options.seed);
    let mut cluster = Cluster::start_with(&options.program, dir, NODES as u16, &SETTINGS).await?;
    let history = History::default();
    let (mut killed, mut ruined) = ([0_usize; NODES], 0_usize);
    for round in 1..=options.rounds {
        let writers = Writers::start(&cluster, &history, random.number());
        random_pause(&mut random, LIFE_MS).await;
        let victims = match &options.cut {
            Some(cut) => {
                // Nodes without power go on for a moment: what they acknowledge then would be lost.
                power(cut, "cut").await?;
                random_pause(&mut random, DEATH_MS).await;
                (0..NODES).collect()
            }
            None => victims(round, &mut random),
        };
        for victim in &victims {
            cluster.kill(*victim)?;
        }
        random_pause(&mut random, DEATH_MS).await;
        if let Some(cut) = &options.cut {
            power(cut, "mend").await?;
        } else if let ([victim], Some(file)) = (victims.as_slice(), damaged(round)) {
            ruin(&dir.join("data").join(&cluster.nodes[*victim].name).join(file))?;
            ruined += 1;
        }
        for victim in &victims {
            cluster.spawn(*victim)?;
        }
        // Writers go on while the nodes come back: what they are told then counts as well.
        for victim in &victims {
            let back = cluster.ready(*victim).await;
            back.with_context(|| format!("round {round}: after kill -9 of nodes {victims:?}"))?;
        }
        writers.stop().await?;
        killed[victims.len() - 1] += 1;
        let whole = history.check(&cluster).await;
        whole.with_context(|| format!("round {round}: after kill -9 of nodes {victims:?}"))?;
        if round % 50 == 0 {
            println!("crash: {round} rounds");
        }
    }
    cluster.stop().await?;
    let (minted, revoked) = history.acknowledged();
    if options.cut.is_none() && options.rounds >= NODES && killed.contains(&0) {
        bail!("void: a kind of kill did not happen");
    }
    if minted + revoked < WRITES_PER_ROUND * options.rounds {
        bail!("void: only {} writes were acknowledged", minted + revoked);
    }
    Ok(format!(
        "{} rounds (one node {}, two {}, all {}; {ruined} stores ruined), {minted} tokens and {revoked} revokes acknowledged, none \
         missing on any node",
        options.rounds, killed[0], killed[1], killed[2]
    ))
}

/// Where one node is killed, which of its stores is ruined as well before it starts again: none, the state, the log, in turn.
fn damaged(round: usize) -> Option<&'static str> {
    [None, Some("state.redb"), Some("raft-log.redb")][(round - 1) / NODES % 3]
}

/// Alters bytes all over a file, so that it is certain to be found.
fn ruin(path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes.iter_mut().skip(500).step_by(1_000).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(path, bytes).with_context(|| format!("{} cannot be ruined", path.display()))
}

/// Runs the command that cuts or mends the disk.
async fn power(command: &str, what: &str) -> anyhow::Result<()> {
    let mut words = command.split_whitespace();
    let program = words.next().context("--cut is empty")?;
    let done = tokio::process::Command::new(program)
        .args(words)
        .arg(what)
        .status()
        .await;
    let status = done.with_context(|| format!("{program} cannot be run"))?;
    anyhow::ensure!(status.success(), "`{command} {what}` failed: {status}");
    Ok(())
}

/// One, two, all, one, ...; which ones is chance.
fn victims(round: usize, random: &mut Random) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..NODES).collect();
    let count = (round - 1) % NODES + 1;
    while nodes.len() > count {
        nodes.remove(random.below(nodes.len()));
    }
    nodes
}

async fn random_pause(random: &mut Random, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.number() % most_ms)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_kill_has_its_turn_and_a_seed_repeats_it() {
        let all = |seed| {
            let mut random = Random::from_seed(seed);
            (1..=9).map(|round| victims(round, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(all(7), all(7));
        let counts: Vec<usize> = all(7).iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    }
}
