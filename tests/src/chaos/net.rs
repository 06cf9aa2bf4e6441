//! The network: a bridge in the namespace of the run, and one namespace per node on it. Clients and the MCP server live at the bridge,
//! and no fault comes between them and a node.
//!
//! Everything lives in namespaces of the run (see `tests/chaos/run`) and ends with its last process.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::history::Slot;

/// Where clients and the MCP server are.
pub(super) const HOST: &str = "10.88.0.1";
const BRIDGE: &str = "chaos0";

/// The address of a place.
pub(super) fn ip(slot: Slot) -> String {
    format!("10.88.0.{}", 11 + u16::from(slot))
}

/// What its namespace is called.
pub(super) fn namespace(slot: Slot) -> String {
    format!("chaos-n{}", slot + 1)
}

/// The file that stands for it.
pub(super) fn namespace_file(slot: Slot) -> String {
    format!("/run/netns/{}", namespace(slot))
}

/// Refuses to go on where this would change the machine's own network or mounts.
pub(super) fn refuse_outside() -> anyhow::Result<()> {
    let own = |what: &str| std::fs::read_link(format!("/proc/self/ns/{what}"));
    let interfaces = std::fs::read_dir("/sys/class/net").map_or(0, Iterator::count);
    ensure!(
        std::process::id() == 1 && own("net").is_ok(),
        "this runs as the first process of namespaces of its own only: tests/chaos/run"
    );
    // /sys still shows what it showed where it was mounted; what counts is that nothing but loopback can be routed.
    let routes = std::fs::read_to_string("/proc/net/route")?;
    ensure!(
        routes.lines().count() <= 1,
        "there are routes in this network namespace ({interfaces} interfaces): tests/chaos/run makes one without"
    );
    Ok(())
}

/// Makes the bridge and the namespaces.
pub(super) async fn make(slots: Slot) -> anyhow::Result<()> {
    std::fs::create_dir_all("/run/netns")?;
    run(&["mount", "-t", "tmpfs", "tmpfs", "/run/netns"]).await?;
    run(&["ip", "link", "set", "lo", "up"]).await?;
    run(&["ip", "link", "add", BRIDGE, "type", "bridge"]).await?;
    run(&["ip", "addr", "add", &format!("{HOST}/24"), "dev", BRIDGE]).await?;
    run(&["ip", "link", "set", BRIDGE, "up"]).await?;
    for slot in 0..slots {
        let (name, outside) = (namespace(slot), format!("veth{slot}"));
        run(&["ip", "netns", "add", &name]).await?;
        run(&[
            "ip", "link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &name,
        ])
        .await?;
        run(&["ip", "link", "set", &outside, "master", BRIDGE, "up"]).await?;
        let address = format!("{}/24", ip(slot));
        run(&["ip", "-n", &name, "addr", "add", &address, "dev", "eth0"]).await?;
        run(&["ip", "-n", &name, "link", "set", "eth0", "up"]).await?;
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]).await?;
    }
    Ok(())
}

/// Which packets of a node from and to others are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drop {
    Both,
    Incoming,
    Outgoing,
    /// So many percent, both ways.
    Some(u8),
}

/// Rules at one node, in a chain of their own.
pub(super) struct Rules {
    slot: Slot,
    chain: String,
}

impl Rules {
    /// Drops packets between `slot` and `others`.
    pub(super) async fn set(number: usize, slot: Slot, others: &[Slot], drop: Drop) -> anyhow::Result<Rules> {
        let chain = format!("FAULT{number}");
        let mut text = format!("*filter\n:{chain} - [0:0]\n");
        let chance = match drop {
            Drop::Some(percent) => format!("-m statistic --mode random --probability 0.{percent:02} "),
            Drop::Both | Drop::Incoming | Drop::Outgoing => String::new(),
        };
        for other in others.iter().map(|other| ip(*other)) {
            if drop != Drop::Outgoing {
                text.push_str(&format!("-A {chain} -s {other} {chance}-j DROP\n"));
            }
            if drop != Drop::Incoming {
                text.push_str(&format!("-A {chain} -d {other} {chance}-j DROP\n"));
            }
        }
        text.push_str(&format!("-A INPUT -j {chain}\n-A OUTPUT -j {chain}\nCOMMIT\n"));
        restore(slot, &text).await?;
        Ok(Rules { slot, chain })
    }

    pub(super) async fn lift(self) -> anyhow::Result<()> {
        let chain = &self.chain;
        let text = format!("*filter\n-D INPUT -j {chain}\n-D OUTPUT -j {chain}\n-F {chain}\n-X {chain}\nCOMMIT\n");
        restore(self.slot, &text).await
    }
}

async fn restore(slot: Slot, rules: &str) -> anyhow::Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace_file(slot)));
    command.args(["iptables-restore", "--noflush", "--wait"]);
    let mut child = command.stdin(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut input = child.stdin.take().context("it has no input")?;
    input.write_all(rules.as_bytes()).await?;
    drop(input);
    let status = child.wait().await?;
    ensure!(status.success(), "iptables-restore at {} failed:\n{rules}", ip(slot));
    Ok(())
}

/// Runs a command to its end.
pub(super) async fn run(words: &[&str]) -> anyhow::Result<()> {
    let [program, args @ ..] = words else { return Ok(()) };
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().await;
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", words.join(" "), said.trim());
    Ok(())
}

/// An ext4 of its own in a file that is gone as soon as it is unmounted.
pub(super) async fn disk(file: &Path, at: &Path, size: &str) -> anyhow::Result<()> {
    let (shown, mounted) = (file.display().to_string(), at.display().to_string());
    std::fs::create_dir_all(at)?;
    run(&["truncate", "-s", size, &shown]).await?;
    run(&["mkfs.ext4", "-q", "-F", &shown]).await?;
    run(&["mount", "-o", "loop", &shown, &mounted]).await?;
    std::fs::remove_file(file)?;
    Ok(())
}
