//! The command line of `chaos`.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::random::Random;

const USAGE: &str = "usage: tests/chaos/run [--minutes M] [--nodes 3|5] [--seed S] [--history FILE] [--program FILE]\n       \
    tests/chaos/run --only leader-kills [--rounds N] …\n       \
    chaos --judge FILE\n\n  \
    --minutes M          how long faults are made [default: 2]\n  \
    --nodes N            members at the beginning, 3 or 5; there is room for one more [default: 3]\n  \
    --seed S             decides the schedule of faults [default: drawn, and printed]\n  \
    --history FILE       where everything is written down\n  \
    --program FILE       the mcpnode to run [default: the one beside this program]\n  \
    --only leader-kills  kill nothing but leaders, and count what that costs the others\n  \
    --rounds N           how many leaders [default: 100]\n  \
    --judge FILE         judge a history that was kept";

/// What is to be done.
pub(super) enum What {
    Run,
    Judge(PathBuf),
    /// Be the MCP server at this address.
    Upstream(String),
}

/// How.
pub(super) struct Options {
    pub(super) what: What,
    pub(super) minutes: u64,
    pub(super) nodes: u8,
    pub(super) seed: u64,
    pub(super) history: PathBuf,
    pub(super) program: PathBuf,
    pub(super) faketime: PathBuf,
    pub(super) dir: PathBuf,
    /// How many leaders are killed, if that is all.
    pub(super) leader_kills: Option<usize>,
}

/// Reads the command line.
pub(super) fn read(mut args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let own = std::env::current_exe()?;
    let mut options = Options {
        what: What::Run,
        minutes: 2,
        nodes: 3,
        seed: Random::draw_seed()?,
        history: "chaos.jsonl".into(),
        program: own.with_file_name("mcpnode"),
        faketime: PathBuf::new(),
        dir: std::env::temp_dir(),
        leader_kills: None,
    };
    let (mut only, mut rounds) = (false, 100);
    while let Some(flag) = args.next() {
        let mut value = || args.next().with_context(|| format!("{flag} needs a value\n\n{USAGE}"));
        match flag.as_str() {
            "--minutes" => options.minutes = value()?.parse().context("--minutes is not a number")?,
            "--nodes" => options.nodes = value()?.parse().context("--nodes is not a number")?,
            "--seed" => options.seed = value()?.parse().context("--seed is not a number")?,
            "--rounds" => rounds = value()?.parse().context("--rounds is not a number")?,
            "--history" => options.history = value()?.into(),
            "--program" => options.program = value()?.into(),
            // Given by tests/chaos/run.
            "--faketime" => options.faketime = value()?.into(),
            "--dir" => options.dir = value()?.into(),
            "--upstream" => options.what = What::Upstream(value()?),
            "--judge" => options.what = What::Judge(value()?.into()),
            "--only" => match value()?.as_str() {
                "leader-kills" => only = true,
                other => bail!("--only {other}: the one value is leader-kills\n\n{USAGE}"),
            },
            _ => bail!("{flag} is no option\n\n{USAGE}"),
        }
    }
    if !(options.nodes == 3 || options.nodes == 5) {
        bail!("--nodes {}: 3 or 5\n\n{USAGE}", options.nodes);
    }
    if !(1..=24 * 60).contains(&options.minutes) {
        bail!("--minutes {}: 1 to 1440\n\n{USAGE}", options.minutes);
    }
    options.leader_kills = only.then_some(rounds);
    Ok(options)
}
