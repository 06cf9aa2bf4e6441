//! What happened: one JSON line per probe, write, fault and whatever else the oracle has to know. All times are nanoseconds of the
//! machine's raw monotonic clock, which every process of the run shares and no fault touches.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// A place for a node: it has an address and a disk of its own for the whole run. Counted from 0.
pub(super) type Slot = u8;
/// A token, counted from 0 over the whole run.
pub(super) type Subject = u32;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum Line {
    Run(Run),
    Probe(Probe),
    Hit(Hit),
    Write(Write),
    Member(Member),
    Fault(Fault),
    Stall(Span),
    Shown(Shown),
    /// The last one: everything was done that was to be done.
    End(Span),
}

/// What was to be done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) seed: u64,
    pub(super) minutes: u64,
    pub(super) nodes: u8,
    pub(super) lease_ms: u64,
    /// One `fdatasync` of 4 KiB on a node's disk, median, before anything else ran there.
    pub(super) fdatasync_us: u64,
    pub(super) only_leader_kills: bool,
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// One call of a tool through a node's gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Probe {
    pub(super) id: u64,
    pub(super) slot: Slot,
    pub(super) subject: Subject,
    pub(super) begin: u64,
    pub(super) end: u64,
    /// HTTP; 0: no answer.
    pub(super) status: u16,
    /// Whether the tool's own result came back.
    pub(super) served: bool,
}

/// A probe that got as far as the MCP server behind the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hit {
    pub(super) probe: u64,
    pub(super) at: u64,
}

/// A change of what a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Op {
    Mint,
    Revoke,
    EnableUser,
    DisableUser,
    WriteRbac,
    DeleteRbac,
}

impl Op {
    /// Whether it takes something away.
    pub(super) fn restricts(self) -> bool {
        match self {
            Op::Mint | Op::EnableUser | Op::WriteRbac => false,
            Op::Revoke | Op::DisableUser | Op::DeleteRbac => true,
        }
    }
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Taken away on every replica, says the receipt.
    Effective,
    /// Carried out.
    Done,
    /// Committed, and not yet effective everywhere.
    Pending,
    /// Certainly not carried out.
    Refused,
    /// No answer, or one that says that nobody knows.
    Unknown,
}

/// The lines of a receipt, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Proofs {
    pub(super) applied: u8,
    pub(super) ran_out: u8,
    pub(super) pending: u8,
}

/// One attempt at a change, through one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Write {
    pub(super) subject: Subject,
    pub(super) op: Op,
    pub(super) slot: Slot,
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) outcome: Outcome,
    pub(super) status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) proofs: Option<Proofs>,
}

/// A node that became a member (`joins`), or ceased to be one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) slot: Slot,
    pub(super) joins: bool,
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) outcome: Outcome,
}

/// What was done to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Partition,
    OneWayCut,
    Loss,
    Pause,
    Kill,
    Restart,
    ClockStep,
    DiskFull,
    SlowDisk,
    MemberAdded,
    MemberRemoved,
}

impl Kind {
    pub(super) const ALL: [Kind; 11] = [
        Kind::Partition,
        Kind::OneWayCut,
        Kind::Loss,
        Kind::Pause,
        Kind::Kill,
        Kind::Restart,
        Kind::ClockStep,
        Kind::DiskFull,
        Kind::SlowDisk,
        Kind::MemberAdded,
        Kind::MemberRemoved,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Partition => "partition",
            Kind::OneWayCut => "one-way cut",
            Kind::Loss => "packet loss",
            Kind::Pause => "pause",
            Kind::Kill => "kill -9",
            Kind::Restart => "restart",
            Kind::ClockStep => "clock step",
            Kind::DiskFull => "disk full",
            Kind::SlowDisk => "slow disk",
            Kind::MemberAdded => "member added",
            Kind::MemberRemoved => "member removed",
        }
    }
}

/// Whom a fault was aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    Leader,
    Follower,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
        }
    }
}

/// One fault, as it was carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) role: Role,
    pub(super) slots: Vec<Slot>,
    pub(super) begin: u64,
    /// When its cause was taken away.
    pub(super) undone: u64,
    /// When the node was back, as far as that is waited for.
    pub(super) end: u64,
    /// Whether it happened; if not, `detail` says why.
    pub(super) done: bool,
    pub(super) detail: String,
}

/// What a node shows of a token, its owner or its right at the end, when everything is healed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) slot: Slot,
    pub(super) subject: Subject,
    pub(super) what: What,
    pub(super) there: bool,
}

/// Which of a subject's three conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// The token is active.
    Token,
    /// Its owner is enabled.
    User,
    /// The definition that grants its right exists.
    Rbac,
}

impl Op {
    pub(super) fn what(self) -> What {
        match self {
            Op::Mint | Op::Revoke => What::Token,
            Op::EnableUser | Op::DisableUser => What::User,
            Op::WriteRbac | Op::DeleteRbac => What::Rbac,
        }
    }
}

/// Writes lines, from anywhere, without making anybody wait.
#[derive(Clone)]
pub(super) struct Recorder(mpsc::Sender<Line>);

impl Recorder {
    /// Begins a file. The thread ends, and gives what went wrong, when the last recorder is gone.
    pub(super) fn create(path: &Path) -> anyhow::Result<(Recorder, JoinHandle<anyhow::Result<()>>)> {
        let mut file = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
        let (tx, rx) = mpsc::channel::<Line>();
        let thread = std::thread::spawn(move || {
            for line in rx {
                serde_json::to_writer(&mut file, &line)?;
                file.write_all(b"\n")?;
            }
            file.flush()?;
            Ok(())
        });
        Ok((Recorder(tx), thread))
    }

    pub(super) fn record(&self, line: Line) {
        // The writer ends early only by an error, which ends the run as void.
        self.0.send(line).unwrap_or(());
    }
}

/// A whole history.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    pub(super) run: Run,
    pub(super) probes: Vec<Probe>,
    pub(super) hits: Vec<Hit>,
    pub(super) writes: Vec<Write>,
    pub(super) members: Vec<Member>,
    pub(super) faults: Vec<Fault>,
    pub(super) stalls: Vec<Span>,
    pub(super) shown: Vec<Shown>,
    pub(super) end: Option<Span>,
}

impl History {
    pub(super) fn read(path: &Path) -> anyhow::Result<History> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut history = History::default();
        for (at, line) in BufReader::new(file).lines().enumerate() {
            let line = serde_json::from_str(&line?).with_context(|| format!("{}:{}", path.display(), at + 1))?;
            history.add(line);
        }
        Ok(history)
    }

    pub(super) fn add(&mut self, line: Line) {
        match line {
            Line::Run(run) => self.run = run,
            Line::Probe(probe) => self.probes.push(probe),
            Line::Hit(hit) => self.hits.push(hit),
            Line::Write(write) => self.writes.push(write),
            Line::Member(member) => self.members.push(member),
            Line::Fault(fault) => self.faults.push(fault),
            Line::Stall(span) => self.stalls.push(span),
            Line::Shown(shown) => self.shown.push(shown),
            Line::End(span) => self.end = Some(span),
        }
    }
}
