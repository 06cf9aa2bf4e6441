//! The machine, and what a node takes of it: start-up, memory, size of the program.

use std::path::Path;

use super::table::{duration, heading, table, thousands};
use crate::clock::now_ns;
use crate::cluster::Cluster;
use crate::process::resident_kib;

/// A cluster that was just started, and how long that took.
pub(super) struct Began {
    pub(super) cluster: Cluster,
    pub(super) figures: Vec<(String, String)>,
}

/// Says what the figures were measured on.
pub(super) fn machine(dir: &Path) -> anyhow::Result<()> {
    let of = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|rest| rest.trim_matches([' ', '\t', ':']).to_owned());
        value.unwrap_or_else(|| "unknown".to_owned())
    };
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "Machine: {cores} cores of {}, {} memory, Linux {}",
        of("/proc/cpuinfo", "model name"),
        of("/proc/meminfo", "MemTotal:"),
        kernel.trim()
    );
    println!("Files: {}", dir.display());
    if cfg!(debug_assertions) {
        println!("THIS IS A DEBUG BUILD: the figures mean nothing. Run it with --release.");
    }
    Ok(())
}

/// Starts three replicas in an empty directory.
pub(super) async fn start_up(program: &Path, dir: &Path) -> anyhow::Result<Began> {
    let began = now_ns();
    let cluster = Cluster::start(program, dir, 3).await?;
    let figures = vec![(
        "three new replicas, from the command to a lease on each and the demo listed".to_owned(),
        duration(now_ns() - began),
    )];
    Ok(Began { cluster, figures })
}

/// KiB that each replica has resident.
pub(super) fn memory(cluster: &Cluster) -> anyhow::Result<Vec<u64>> {
    cluster.nodes.iter().map(|node| resident_kib(node.pid)).collect()
}

/// Prints the section.
pub(super) fn print(program: &Path, figures: &[(String, String)], fresh: &[u64], loaded: &[u64]) -> anyhow::Result<()> {
    heading("Size", "");
    let mib = |all: &[u64]| {
        all.iter()
            .map(|kib| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut rows: Vec<Vec<String>> = figures
        .iter()
        .map(|(what, figure)| vec![what.clone(), figure.clone()])
        .collect();
    rows.push(vec!["resident memory of each replica, fresh".to_owned(), mib(fresh)]);
    rows.push(vec![
        "resident memory of each replica, after the calls above".to_owned(),
        mib(loaded),
    ]);
    let bytes = std::fs::metadata(program)?.len();
    rows.push(vec!["the program".to_owned(), format!("{} bytes", thousands(bytes))]);
    table(&["what", "figure"], &rows);
    Ok(())
}
