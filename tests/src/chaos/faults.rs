//! What is done to nodes, and undone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tokio::process::Command;

use super::field::Field;
use super::history::{Kind, Slot};
use super::machine::{Machine, ready};
use super::net::{Drop, Rules};
use crate::clock::now_ns;
use crate::random::Random;

/// How long a node may take to come back.
const READY_WAIT: Duration = Duration::from_secs(60);

/// A fault that is over.
pub(super) struct Done {
    /// When its cause was taken away; the node may need a while after that.
    pub(super) undone: u64,
    pub(super) detail: String,
}

impl Done {
    pub(super) fn now(detail: String) -> Done {
        Done {
            undone: now_ns(),
            detail,
        }
    }
}

/// It could not be undone, or a node did not do what it has to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(pub(super) String);

impl Broken {
    pub(super) fn of(error: anyhow::Error) -> anyhow::Error {
        anyhow::Error::new(Broken(format!("{error:#}")))
    }
}

impl Field {
    /// Makes a fault at the nodes that were chosen, and takes it away again.
    pub(super) async fn make(
        &self,
        kind: Kind,
        slots: &[Slot],
        last_ms: u64,
        random: &mut Random,
    ) -> anyhow::Result<Done> {
        let last = Duration::from_millis(last_ms);
        let slot = *slots.first().context("it has no target")?;
        match kind {
            Kind::Partition => self.drop_packets(slots, Drop::Both, last).await,
            Kind::OneWayCut => {
                let way = if random.below(2) == 0 {
                    Drop::Incoming
                } else {
                    Drop::Outgoing
                };
                self.drop_packets(slots, way, last).await
            }
            Kind::Loss => {
                let percent = 15 + u8::try_from(random.below(45))?;
                self.drop_packets(slots, Drop::Some(percent), last).await
            }
            Kind::Pause => self.pause(slot, last).await,
            Kind::Kill => self.kill(slot, last).await,
            Kind::Restart => self.restart(slot).await,
            Kind::ClockStep => self.step_clock(slot, last, random).await,
            Kind::DiskFull => self.fill_disk(slot, last).await,
            Kind::SlowDisk => self.slow_disk(slot, last, random).await,
            Kind::MemberAdded => self.add(slot, random).await,
            Kind::MemberRemoved => self.remove(slot, random).await,
        }
    }

    async fn drop_packets(&self, slots: &[Slot], drop: Drop, last: Duration) -> anyhow::Result<Done> {
        let others: Vec<Slot> = (0..self.world.slots).filter(|slot| !slots.contains(slot)).collect();
        let mut rules = Vec::new();
        for slot in slots {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            rules.push(Rules::set(number, *slot, &others, drop).await?);
        }
        tokio::time::sleep(last).await;
        for rules in rules {
            rules.lift().await.map_err(|error| Broken(format!("{error:#}")))?;
        }
        Ok(Done::now(format!("{drop:?}")))
    }

    async fn pause(&self, slot: Slot, last: Duration) -> anyhow::Result<Done> {
        let machine = self.machine(slot).lock().await;
        machine.signal(Signal::SIGSTOP)?;
        tokio::time::sleep(last).await;
        machine.signal(Signal::SIGCONT).map_err(Broken::of)?;
        Ok(Done::now(String::new()))
    }

    async fn kill(&self, slot: Slot, last: Duration) -> anyhow::Result<Done> {
        let mut machine = self.machine(slot).lock().await;
        machine.signal(Signal::SIGKILL)?;
        machine.kill().await?;
        tokio::time::sleep(last).await;
        machine.start().map_err(Broken::of)?;
        came_back(slot, &mut machine).await
    }

    async fn restart(&self, slot: Slot) -> anyhow::Result<Done> {
        let mut machine = self.machine(slot).lock().await;
        machine.signal(Signal::SIGTERM)?;
        let Some(status) = machine.ended().await else {
            return Err(Broken(format!("it does not end by SIGTERM: {}", machine.log().display())).into());
        };
        machine.start().map_err(Broken::of)?;
        let back = came_back(slot, &mut machine).await?;
        Ok(Done {
            detail: format!("{status}, {}", back.detail),
            ..back
        })
    }

    async fn step_clock(&self, slot: Slot, last: Duration, random: &mut Random) -> anyhow::Result<Done> {
        let seconds = 5 + i64::try_from(random.below(600))?;
        let seconds = if random.below(2) == 0 { seconds } else { -seconds };
        self.machine(slot).lock().await.shift_clock(seconds)?;
        tokio::time::sleep(last).await;
        self.machine(slot).lock().await.shift_clock(0).map_err(Broken::of)?;
        Ok(Done::now(format!("by {seconds:+} s and back")))
    }

    async fn fill_disk(&self, slot: Slot, last: Duration) -> anyhow::Result<Done> {
        let mut machine = self.machine(slot).lock().await;
        machine.fill().await?;
        tokio::time::sleep(last).await;
        machine.make_room().map_err(Broken::of)?;
        came_back(slot, &mut machine).await
    }

    /// Each sync of the node's files returns late. Under `strace` everything else it does takes longer as well.
    async fn slow_disk(&self, slot: Slot, last: Duration, random: &mut Random) -> anyhow::Result<Done> {
        let pid = self.machine(slot).lock().await.pid()?.to_string();
        let delay_us = 20_000 + random.below(400_000);
        let inject = format!("inject=fdatasync,fsync:delay_exit={delay_us}");
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            &inject,
            "-p",
            &pid,
        ]);
        let mut strace = command
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("strace cannot be run")?;
        tokio::time::sleep(last).await;
        ensure!(strace.try_wait()?.is_none(), "strace ended early");
        let id = i32::try_from(strace.id().context("strace is gone")?)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), Signal::SIGTERM)?;
        strace.wait().await?;
        Ok(Done::now(format!("by {} ms", delay_us / 1_000)))
    }
}

/// Waits until a node that is up again holds a lease; who ends by itself is broken.
async fn came_back(slot: Slot, machine: &mut Machine) -> anyhow::Result<Done> {
    let undone = now_ns();
    let back = ready(slot, READY_WAIT).await;
    if let Some(status) = machine.has_ended() {
        return Err(Broken(format!("it ended by itself ({status}): {}", machine.log().display())).into());
    }
    back.map_err(Broken::of)?;
    Ok(Done {
        undone,
        detail: format!("ready after {} ms", (now_ns() - undone) / 1_000_000),
    })
}
