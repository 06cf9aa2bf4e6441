//! A machine: its clocks, what its disk keeps, and the process that runs on it or does not.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use mcp_model::barrier::{Confirmed, Proving};
use mcp_model::campaign::PeerState;
use mcp_model::campaign::{Patience, Poll};
use mcp_model::clock::Reading;
use mcp_model::command::{Envelope, Outcome};
use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::lease::RequestId;
use mcp_model::office::{Office, Round};
use mcp_model::receipt::{Receipt, ReplicaReceipt};
use mcp_model::tables::MemTables;
use mcp_store::admit::{Admitted, Looked, Question, Questions, Registered};
use mcp_store::live::{Change, Live};

use super::mutant::Broken;

pub(crate) const MS: u64 = 1_000_000;
/// What clocks on walls say when a seed begins, ms since 1970.
pub(crate) const WALL_MS: u64 = 1_700_000_000_000;

/// Who votes and who only follows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Config {
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) learners: BTreeSet<NodeId>,
}

impl Config {
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.iter().chain(&self.learners).copied()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Blank,
    Command(Rc<Envelope>),
    Config(Rc<Config>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) kind: Kind,
}

/// What travels. Rounds, votes and entries are the abstract log's; the rest is ours.
#[derive(Clone, Debug)]
pub(crate) enum Msg {
    Append {
        term: u64,
        prev: u64,
        prev_term: u64,
        entries: Vec<Entry>,
        commit: u64,
        stay: u64,
    },
    Appended {
        /// Which stay of the node among the members it belongs to.
        stay: u64,
        term: u64,
        matched: Option<u64>,
        len: u64,
    },
    Vote {
        term: u64,
        last: (u64, u64),
    },
    Voted {
        term: u64,
        granted: bool,
    },
    Round {
        term: u64,
        round: u64,
    },
    RoundSeen {
        term: u64,
        round: u64,
    },
    Ask {
        poll: u64,
    },
    Asked {
        poll: u64,
        state: PeerState<(u64, u64)>,
    },
    TakeOver,
    Renew {
        incarnation: Incarnation,
        request: RequestId,
    },
    Granted {
        incarnation: Incarnation,
        request: RequestId,
        index: Option<u64>,
    },
    ReadIndex {
        request: u64,
        token: usize,
    },
    Index {
        request: u64,
        index: Option<u64>,
        known: bool,
    },
    Confirm {
        barrier: u64,
        line: usize,
        index: u64,
        wait_ms: u64,
    },
    Confirmed {
        barrier: u64,
        line: usize,
        said: Confirmed,
    },
    Write {
        op: usize,
        attempt: u64,
        wait_ms: u64,
        /// What the node that it came through says of the time. 0: it has not come to one yet.
        said_ms: u64,
    },
    /// A node without its log asks to be taken out of the membership.
    LetGo {
        run: u64,
    },
    /// It is out, by a leader of this term.
    LetGone {
        run: u64,
        term: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    NotLeader,
    Unknown,
    Done(Outcome, Option<Receipt>),
}

/// Who waits for a round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    Renewal(NodeId, Incarnation, RequestId),
    Index(NodeId, u64, usize),
    LetGo(NodeId, u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Follower,
    Candidate,
    Leader,
}

/// What the disk keeps.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) term: u64,
    pub(crate) voted: Option<NodeId>,
    pub(crate) log: Vec<Entry>,
    /// The term in which this node led, if that is its vote's.
    pub(crate) led: Option<u64>,
    pub(crate) committed: u64,
    pub(crate) tables: MemTables,
    pub(crate) at: u64,
    /// What only a broken rule would keep.
    pub(crate) office: Option<(u64, Reading)>,
    pub(crate) lease: Option<Reading>,
}

impl Disk {
    pub(crate) fn last(&self) -> (u64, u64) {
        (self.log.last().map_or(0, |e| e.term), self.log.len() as u64)
    }

    pub(crate) fn term_at(&self, index: u64) -> u64 {
        index.checked_sub(1).map_or(0, |at| self.log[at as usize].term)
    }

    /// Whoever was a member in a configuration that is in the state.
    pub(crate) fn enrolled(&self) -> BTreeSet<NodeId> {
        let applied = self.log.iter().take(self.at as usize);
        let configs = applied.filter_map(|e| match &e.kind {
            Kind::Config(config) => Some(config.all()),
            Kind::Blank | Kind::Command(_) => None,
        });
        configs.flatten().collect()
    }

    /// The last configuration up to `index`.
    pub(crate) fn config(&self, index: u64) -> Rc<Config> {
        let upto = &self.log[..(index as usize).min(self.log.len())];
        let last = upto.iter().rev().find_map(|e| match &e.kind {
            Kind::Config(config) => Some(Rc::clone(config)),
            Kind::Blank | Kind::Command(_) => None,
        });
        last.unwrap_or_default()
    }
}

pub(crate) struct BarrierRun {
    pub(crate) op: usize,
    pub(crate) attempt: u64,
    pub(crate) outcome: Outcome,
    pub(crate) lines: Vec<(Proving<Broken>, Option<ReplicaReceipt>, u64)>,
}

pub(crate) enum Step {
    Registered(Registered),
    Looked(Looked),
    /// Asks for an index, again and again until this time.
    Asking(Looked, Reading, Question),
    /// Waits for this index until this time.
    Waiting(Looked, u64, Reading, Question),
}

pub(crate) struct Request {
    pub(crate) token: usize,
    pub(crate) began: u64,
    pub(crate) step: Step,
}

pub(crate) struct Stream {
    pub(crate) token: usize,
    pub(crate) admitted: Admitted,
    pub(crate) ends: u64,
}

/// A batch on its way from the log into the view.
pub(crate) struct Applying {
    pub(crate) change: Change,
    pub(crate) next: usize,
    pub(crate) outcomes: Vec<(u64, Outcome)>,
    pub(crate) config: Option<Rc<Config>>,
}

/// A round that has begun: its read index was fixed then, as openraft does it.
pub(crate) struct RoundRun {
    pub(crate) round: Round,
    pub(crate) id: u64,
    pub(crate) read_index: u64,
    pub(crate) acks: BTreeSet<NodeId>,
}

/// What is gone when the process is.
pub(crate) struct Process {
    pub(crate) live: Live<Broken>,
    pub(crate) tables: MemTables,
    pub(crate) applied: u64,
    pub(crate) applying: Option<Applying>,
    /// Set while an older state catches up with where the newer one was.
    pub(crate) mending_to: Option<u64>,
    pub(crate) office: Office<Waiter, Broken>,
    pub(crate) applied_config: Rc<Config>,
    pub(crate) appended_config: Rc<Config>,
    /// Whoever was a member in a configuration that is applied.
    pub(crate) enrolled: BTreeSet<NodeId>,
    /// Who asked to be let go, in which of its runs, and at which index and in which term it is.
    pub(crate) letting_go: Vec<(NodeId, u64, u64, u64)>,
    /// How often this leader has taken a node out of the membership.
    pub(crate) stays: BTreeMap<NodeId, u64>,
    pub(crate) questions: Questions<Broken>,
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    pub(crate) commit: u64,
    pub(crate) votes: BTreeSet<NodeId>,
    pub(crate) next: BTreeMap<NodeId, u64>,
    pub(crate) matched: BTreeMap<NodeId, u64>,
    pub(crate) round: Option<RoundRun>,
    pub(crate) pending: BTreeMap<u64, (u64, usize, u64, u64)>,
    pub(crate) barriers: BTreeMap<u64, BarrierRun>,
    pub(crate) confirms: Vec<(NodeId, u64, usize, u64, u64)>,
    pub(crate) requests: BTreeMap<u64, Request>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) patience: Patience,
    pub(crate) poll: Option<(u64, Poll<(u64, u64)>)>,
    pub(crate) heard: Reading,
    pub(crate) voted_at: Reading,
    pub(crate) leaving: bool,
    pub(crate) tick: Reading,
    /// When it last looked whether it leads.
    pub(crate) observed: Reading,
    pub(crate) next_id: u64,
    pub(crate) last_published: (Incarnation, u64),
    pub(crate) renewing: Option<RequestId>,
    /// Index that each node was last granted: for one broken rule only.
    pub(crate) granted: BTreeMap<NodeId, u64>,
}

/// Two clocks and the wall, each a line that may be bent.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    since: u64,
    boot: u64,
    raw: u64,
    boot_ppm: i64,
    raw_ppm: i64,
    pub(crate) wall_off_ms: i64,
    suspended: u64,
}

impl Clocks {
    pub(crate) fn new(boot: u64, raw_ppm: i64) -> Clocks {
        Clocks {
            since: 0,
            boot,
            raw: boot,
            boot_ppm: raw_ppm,
            raw_ppm,
            wall_off_ms: 0,
            suspended: 0,
        }
    }

    fn run(from: u64, passed: u64, ppm: i64) -> u64 {
        let bent = i128::from(passed) * i128::from(1_000_000 + ppm) / 1_000_000;
        from + u64::try_from(bent).unwrap_or(0)
    }

    pub(crate) fn reading(&self, now: u64, stops: bool) -> Reading {
        let passed = now - self.since;
        let lost = if stops { self.suspended } else { 0 };
        Reading {
            boot_ns: Clocks::run(self.boot, passed, self.boot_ppm).saturating_sub(lost),
            raw_ns: Clocks::run(self.raw, passed, self.raw_ppm).saturating_sub(lost),
        }
    }

    pub(crate) fn wall_ms(&self, now: u64) -> u64 {
        (WALL_MS as i64 + (now / MS) as i64 + self.wall_off_ms) as u64
    }

    pub(crate) fn slew(&mut self, now: u64, boot_ppm: i64) {
        let reading = self.reading(now, false);
        (self.since, self.boot, self.raw) = (now, reading.boot_ns, reading.raw_ns);
        self.boot_ppm = self.raw_ppm + boot_ppm;
    }

    pub(crate) fn suspend(&mut self, for_ns: u64) {
        self.suspended += for_ns;
    }

    /// The machine starts again, and its clocks with it.
    pub(crate) fn reboot(&mut self, now: u64) {
        (self.since, self.boot, self.raw, self.suspended) = (now, 5_000 * MS, 5_000 * MS, 0);
    }
}

pub(crate) struct Machine {
    pub(crate) me: NodeId,
    pub(crate) run: u64,
    pub(crate) clocks: Clocks,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Its log is lost, and it waits until the others have let it go.
    pub(crate) lost: bool,
    pub(crate) paused_until: u64,
    pub(crate) slow_apply_until: u64,
    pub(crate) slow_disk_until: u64,
}

impl Machine {
    pub(crate) fn new(me: NodeId, boot: u64, raw_ppm: i64) -> Machine {
        Machine {
            me,
            run: 0,
            clocks: Clocks::new(boot, raw_ppm),
            disk: Disk::default(),
            process: None,
            lost: false,
            paused_until: 0,
            slow_apply_until: 0,
            slow_disk_until: 0,
        }
    }
}

impl Process {
    pub(crate) fn is_fit(&self) -> bool {
        !self.leaving && !self.live.gate().is_removed()
    }

    /// Who leads, as the node sees it: itself only once it has taken office.
    pub(crate) fn leader(&self, me: NodeId) -> Option<NodeId> {
        self.leader
            .filter(|leader| *leader != me || self.office.term().is_some() && self.is_fit())
    }
}
