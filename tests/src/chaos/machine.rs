//! A node as a process in its namespace, on its disk, under its own wall clock.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::history::Slot;
use super::net;
use crate::connection::Connection;

const ADMIN: &str = "ops@chaos.example";
/// The administrator's password, and that of every user of a run.
pub(super) const PASSWORD: &str = "correct horse battery";
const GATEWAY: u16 = 3200;
const API: u16 = 3100;
const PEERS: u16 = 3300;
/// Room on a node's disk: the audit of a long run fits. The file that it lies in is sparse.
const DISK: &str = "3G";
const STOP_WAIT: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(20);

/// Where programs and files are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) program: PathBuf,
    pub(super) faketime: PathBuf,
    pub(super) dir: PathBuf,
}

/// One node.
pub(super) struct Machine {
    slot: Slot,
    place: Place,
    child: Option<Child>,
}

impl Machine {
    /// Makes its disk and its clock.
    pub(super) async fn make(slot: Slot, place: &Place) -> anyhow::Result<Machine> {
        let machine = Machine {
            slot,
            place: place.clone(),
            child: None,
        };
        let file = place.dir.join(format!("disk-{slot}"));
        net::disk(&file, &machine.disk(), DISK).await?;
        machine.shift_clock(0)?;
        Ok(machine)
    }

    pub(super) fn name(&self) -> String {
        name(self.slot)
    }

    fn disk(&self) -> PathBuf {
        self.place.dir.join(self.name())
    }

    fn data(&self) -> PathBuf {
        self.disk().join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.place.dir.join(format!("{}.log", self.name()))
    }

    fn filler(&self) -> PathBuf {
        self.disk().join("filler")
    }

    fn clock(&self) -> PathBuf {
        self.place.dir.join(format!("{}.clock", self.name()))
    }

    /// Sets the wall clock so many seconds forward or back.
    pub(super) fn shift_clock(&self, seconds: i64) -> anyhow::Result<()> {
        // In one step: a file that is empty for a moment would be no time at all.
        let next = self.clock().with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(next, self.clock())?)
    }

    /// Takes every byte that is left on the disk.
    pub(super) async fn fill(&self) -> anyhow::Result<()> {
        let filler = self.filler();
        tokio::task::spawn_blocking(move || fill(&filler)).await?
    }

    pub(super) fn make_room(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    /// Removes all that the node knew.
    pub(super) fn wipe(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_dir_all(self.data())?)
    }

    pub(super) async fn init(&self) -> anyhow::Result<String> {
        let mut command = self.command(&["init", "--admin-email", ADMIN])?;
        let status = command.args(self.flags()).status().await?;
        anyhow::ensure!(status.success(), "init failed: {}", self.log().display());
        let secret = std::fs::read_to_string(self.data().join("setup.secret"))?;
        Ok(secret.trim().to_owned())
    }

    /// Joins by way of the peers' listener at `other`, and runs on.
    pub(super) fn join(&mut self, other: Slot, token: &str) -> anyhow::Result<()> {
        let file = self.place.dir.join(format!("{}.join", self.name()));
        std::fs::write(&file, token)?;
        let at = format!("{}:{PEERS}", net::ip(other));
        let file = file.display().to_string();
        let mut command = self.command(&["join", &at, "--token-file", &file])?;
        self.child = Some(command.args(self.flags()).spawn()?);
        Ok(())
    }

    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let config = self.data().join("mcpnode.toml").display().to_string();
        self.child = Some(self.command(&["serve", "--config", &config])?.spawn()?);
        Ok(())
    }

    fn flags(&self) -> Vec<String> {
        let at = |port: u16| format!("{}:{port}", net::ip(self.slot));
        let flags = [
            ("--data-dir", self.data().display().to_string()),
            ("--name", self.name()),
            ("--tls", "off".to_owned()),
            ("--gateway-listen", at(GATEWAY)),
            ("--api-listen", at(API)),
            ("--peer-listen", at(PEERS)),
        ];
        flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }

    /// `mcpnode` in the node's namespace, under its clock. `nsenter` becomes the program, so the child is the node.
    fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let log = std::fs::File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", net::namespace_file(self.slot)));
        command.arg(&self.place.program).args(args);
        command
            .env("LD_PRELOAD", &self.place.faketime)
            .env("FAKETIME_TIMESTAMP_FILE", self.clock())
            .env("FAKETIME_CACHE_DURATION", "1")
            // Leases are counted on monotonic clocks, which no administrator can set.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            // The disk must refuse; the node must not step aside beforehand.
            .env("MCPNODE_DISK_FREE_BYTES_MIN", "0")
            // The server behind the gateway is in the machines' own network.
            .env("MCPNODE_UPSTREAMS_ALLOW_PRIVATE", "true")
            // Snapshots all the time, and few entries kept: whoever was away is handed a snapshot.
            .env("MCPNODE_LOG_SNAPSHOT_ENTRIES", "300")
            .env("MCPNODE_LOG_KEPT_ENTRIES", "100")
            // States and memory are compared all the time: a replica that doubts itself without a reason refuses live tokens, and is found.
            .env("MCPNODE_LOG_COMPARE_EVERY_S", "10")
            .env_remove("MCPNODE_CONFIG");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?);
        kill(pid, signal).with_context(|| format!("{} takes no {signal}", self.name()))
    }

    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        let pid = self.child.as_ref().and_then(Child::id);
        pid.with_context(|| format!("{} does not run", self.name()))
    }

    /// Kills it, if it runs.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Waits until it has ended by itself; `None` if it does not.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = tokio::time::timeout(STOP_WAIT, child.wait()).await.ok()?.ok()?;
        self.child = None;
        Some(status)
    }

    /// Whether it has ended without being told to.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }
}

fn fill(path: &Path) -> anyhow::Result<()> {
    use std::io::Write;
    let free = nix::sys::statvfs::statvfs(path.parent().context("it has no folder")?)?;
    let free = free.blocks_available() * free.fragment_size();
    let mut filler = std::fs::File::create(path)?;
    // The bulk at once and without writing it; what is left byte by byte.
    nix::fcntl::fallocate(&filler, nix::fcntl::FallocateFlags::empty(), 0, i64::try_from(free)?).unwrap_or(());
    std::io::Seek::seek(&mut filler, std::io::SeekFrom::End(0))?;
    for size in [1 << 16, 4_096, 1] {
        let block = vec![0_u8; size];
        while filler.write(&block).is_ok() {}
    }
    Ok(())
}

/// What a node is called.
pub(super) fn name(slot: Slot) -> String {
    format!("node-{}", slot + 1)
}

/// `host:port` of its gateway.
pub(super) fn gateway(slot: Slot) -> String {
    format!("{}:{GATEWAY}", net::ip(slot))
}

/// URL of its API.
pub(super) fn api_url(slot: Slot) -> String {
    format!("http://{}:{API}", net::ip(slot))
}

/// Waits until it holds a lease.
pub(super) async fn ready(slot: Slot, limit: Duration) -> anyhow::Result<()> {
    let asked = async {
        while !is_ready(slot).await {
            tokio::time::sleep(STEP).await;
        }
    };
    if tokio::time::timeout(limit, asked).await.is_err() {
        bail!("{} held no lease within {} s", name(slot), limit.as_secs());
    }
    Ok(())
}

async fn is_ready(slot: Slot) -> bool {
    let host = format!("{}:{API}", net::ip(slot));
    let asked = async {
        let mut connection = Connection::open(&host).await.ok()?;
        let request = crate::api::request("GET", &host, "/readyz", &[], b"");
        Some(connection.ask(&request).await.ok()?.status == 200)
    };
    tokio::time::timeout(Duration::from_secs(1), asked).await == Ok(Some(true))
}

/// The administrator.
pub(super) fn admin() -> &'static str {
    ADMIN
}
