//! One node for tests: a real replica in a temporary directory, and a writer that applies at once instead of asking a cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_model::clock::{Clock, Reading};
use mcp_model::command::{Actor, Command, Envelope, Outcome, Reply};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::receipt::{Proof, Receipt, ReplicaReceipt};
use mcp_model::records::{NodeRecord, Origin};
use mcp_model::token::PlainSession;
use mcp_store::{ApplyEntry, Replica, ReplicaOptions};
use mcpd::{
    Children, ClusterStatus, Compared, LogLine, LogsWanted, Member, MemberRole, NodeLogs, Options, Parts, Pending,
    Standing, WaitFor, WriteFailed, Writer, Written,
};

pub(crate) const ADMIN: &str = "admin@test.com";
pub(crate) const PASSWORD: &str = "correct horse battery";
/// How long a session lasts that was opened without a login.
pub(crate) const SESSION_MS: u64 = 2 * 3_600_000;
/// What secrets are sealed under.
pub(crate) const SEAL_KEY: [u8; 32] = [9; 32];
/// 2026-11-23.
const START_MS: u64 = 1_795_000_000_000;

/// Time stands still until a test moves it, but no two looks at the wall show the same, so that ids keep their order.
#[derive(Default)]
pub(crate) struct TestClock {
    passed_ms: AtomicU64,
    looks: AtomicU64,
}

impl TestClock {
    pub(crate) fn pass_ms(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn reading(&self) -> Reading {
        Reading::both_ms(10_000 + self.passed_ms.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        START_MS + self.passed_ms.load(Ordering::SeqCst) + self.looks.fetch_add(1, Ordering::SeqCst)
    }
}

/// What becomes of the next writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mood {
    Fine,
    NoLeader,
    /// The command is carried out and the answer is lost.
    AnswerLost,
    /// One replica does not confirm.
    OnePending,
    /// One replica is gone and its lease ran out.
    OneRanOut,
    /// Before each login is carried out, the user's password is replaced.
    ResetBefore,
}

pub(crate) struct DirectWriter {
    /// All of them carry out every entry.
    replicas: Mutex<Vec<Arc<Replica>>>,
    entries: Mutex<Vec<Vec<u8>>>,
    next: Mutex<u64>,
    pub(crate) mood: Mutex<Mood>,
    /// How the last write was to be waited for.
    pub(crate) asked: Mutex<Option<(WaitFor, Duration)>>,
}

impl DirectWriter {
    fn apply(&self, envelope: &Envelope) -> Written {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        self.entries.lock().unwrap().push(envelope.encode());
        let replicas = self.replicas.lock().unwrap();
        let outcomes: Vec<_> = replicas
            .iter()
            .map(|replica| carry_out(replica, *next, envelope.encode()))
            .collect();
        let outcome = outcomes[0].clone();
        assert!(outcomes.iter().all(|o| *o == outcome), "replicas disagree");
        Written {
            index: outcome.index,
            reply: outcome.reply,
            restricts: outcome.restricts,
            receipt: None,
        }
    }

    fn receipt(&self, index: u64) -> Receipt {
        let mood = *self.mood.lock().unwrap();
        let third = match mood {
            Mood::OnePending => (Proof::Pending, 15_000),
            Mood::OneRanOut => (Proof::LeaseRanOut, 2_104),
            Mood::Fine | Mood::NoLeader | Mood::AnswerLost | Mood::ResetBefore => (Proof::Applied, 12),
        };
        let lines = [(1, Proof::Applied, 9), (2, Proof::Applied, 11), (3, third.0, third.1)];
        let replicas = lines.map(|(node, proof, after_ms)| ReplicaReceipt {
            node: NodeId(node),
            proof,
            after_ms,
        });
        Receipt {
            index,
            replicas: replicas.to_vec(),
            took_ms: third.1,
        }
    }
}

impl Writer for DirectWriter {
    fn write(&self, envelope: Envelope, wait: WaitFor, limit: Duration) -> Pending<'_, Result<Written, WriteFailed>> {
        Box::pin(async move {
            *self.asked.lock().unwrap() = Some((wait, limit));
            let mood = *self.mood.lock().unwrap();
            if mood == Mood::NoLeader {
                return Err(WriteFailed::NoLeader);
            }
            if let (Mood::ResetBefore, Command::LogIn { .. }) = (mood, &envelope.command) {
                self.apply(&reset_by_admin(envelope.now_ms));
            }
            let mut written = self.apply(&envelope);
            if mood == Mood::AnswerLost {
                return Err(WriteFailed::OutcomeUnknown("the leader went away".to_owned()));
            }
            if written.restricts && wait == WaitFor::Effective {
                written.receipt = Some(self.receipt(written.index));
            }
            Ok(written)
        })
    }

    fn read_index(&self) -> Pending<'_, Result<u64, WriteFailed>> {
        Box::pin(async move {
            match *self.mood.lock().unwrap() {
                Mood::NoLeader => Err(WriteFailed::NoLeader),
                _ => Ok(*self.next.lock().unwrap()),
            }
        })
    }

    fn look_around(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }

    fn step_down(&self, _: NodeId) -> Pending<'_, Result<(), WriteFailed>> {
        Box::pin(async { Ok(()) })
    }

    fn stands(&self, _: NodeId, _: Standing, _: Duration) -> Pending<'_, bool> {
        Box::pin(async { true })
    }

    fn cluster_status(&self) -> ClusterStatus {
        let member = |id| Member {
            id: NodeId(id),
            role: MemberRole::Voter,
            reachable: Some(id != 3),
            matched_index: Some(7),
            alike: Some(id != 2),
        };
        ClusterStatus {
            node: NodeId(1),
            leader: Some(NodeId(1)),
            term: 4,
            compared: Some(Compared {
                index: 6,
                rows: 40,
                state: "agrees",
            }),
            members: [1, 2, 3].map(member).to_vec(),
        }
    }
}

/// A node with a cluster of three, an administrator and a lease.
pub(crate) struct Node {
    pub(crate) replica: Arc<Replica>,
    pub(crate) writer: Arc<DirectWriter>,
    pub(crate) clock: Arc<TestClock>,
    /// The administrator's session.
    pub(crate) session: String,
    _dir: tempfile::TempDir,
}

impl Node {
    pub(crate) fn start() -> Node {
        let (dir, replica) = empty_replica();
        let writer = Arc::new(DirectWriter {
            replicas: Mutex::new(vec![replica.clone()]),
            entries: Mutex::default(),
            next: Mutex::new(0),
            mood: Mutex::new(Mood::Fine),
            asked: Mutex::default(),
        });
        let clock = Arc::new(TestClock::default());
        let mut node = Node {
            replica,
            writer,
            clock,
            session: String::new(),
            _dir: dir,
        };
        node.found();
        node.renew();
        node
    }

    /// Another node of the same cluster.
    pub(crate) fn another(&self) -> Node {
        let (dir, replica) = empty_replica();
        for (at, entry) in (1u64..).zip(self.writer.entries.lock().unwrap().iter()) {
            carry_out(&replica, at, entry.clone());
        }
        self.writer.replicas.lock().unwrap().push(replica.clone());
        let node = Node {
            replica,
            writer: self.writer.clone(),
            clock: self.clock.clone(),
            session: self.session.clone(),
            _dir: dir,
        };
        node.renew();
        node
    }

    /// Takes a lease of an hour.
    pub(crate) fn renew(&self) {
        let gate = self.replica.gate();
        let (incarnation, request) = gate.begin(self.clock.reading()).unwrap();
        gate.granted(incarnation, request, 0, || self.replica.auth_index());
        assert!(gate.holds(self.clock.reading()));
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.writer.mood.lock().unwrap() = mood;
    }

    /// Has a command carried out by the cluster itself.
    pub(crate) fn by_system(&self, command: Command) -> Reply {
        let envelope = Envelope {
            id: CommandId(u128::from_be_bytes(bytes())),
            now_ms: self.clock.wall_ms(),
            actor: Actor::System,
            command,
        };
        self.writer.apply(&envelope).reply
    }

    pub(crate) fn router(&self) -> axum::Router {
        mcpd::router(Parts {
            replica: self.replica.clone(),
            writer: self.writer.clone(),
            children: Arc::new(TwoNodes),
            clock: self.clock.clone(),
            random: |buffer| getrandom::fill(buffer).unwrap(),
            seal: mcp_store::seal::Seal::new(&SEAL_KEY),
            idempotency_key: [8; 32].into(),
            options: Options::default(),
        })
    }

    fn found(&mut self) {
        let id = |n| Id::v7(START_MS, [n; 10]);
        let reply = self.by_system(Command::InitCluster {
            cluster_id: id(1),
            admin: id(2),
            email: Email::parse(ADMIN).unwrap(),
            password_hash: Some(mcpd::passwords::hash_password(PASSWORD, bytes())),
            rbac: id(3),
        });
        assert_eq!(reply, Reply::ClusterInitialised);
        for n in 1..=3 {
            let name = Name::parse(&format!("node-{n}")).unwrap();
            let origin = Origin {
                created_ms: 0,
                created_by: String::new(),
                version: 0,
            };
            let node = NodeRecord {
                id: NodeId(n),
                name,
                peer_address: format!("127.0.0.1:330{n}"),
                api_url: format!("http://127.0.0.1:310{n}"),
                gateway_url: format!("http://127.0.0.1:320{n}"),
                origin,
            };
            self.by_system(Command::RegisterNode { node });
        }
        self.session = self.session_of(id(2));
    }

    /// A session without a login.
    pub(crate) fn session_of(&self, user: Id) -> String {
        let session = PlainSession::from_bytes(&bytes());
        let expires_ms = self.clock.wall_ms() + SESSION_MS;
        let reply = self.by_system(Command::OpenSession {
            hash: session.hash(),
            user,
            expires_ms,
        });
        assert_eq!(reply, Reply::SessionOpened);
        session.expose().to_owned()
    }
}

fn empty_replica() -> (tempfile::TempDir, Arc<Replica>) {
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        lease_ms: 3_600_000,
        had_data: false,
        random: Arc::new(|| 1),
    };
    let replica = Replica::open(dir.path(), options).unwrap();
    (dir, replica)
}

fn carry_out(replica: &Replica, index: u64, command: Vec<u8>) -> Outcome {
    let entry = ApplyEntry {
        index,
        commands: vec![command],
    };
    replica.apply(&[entry], b"mark").unwrap().remove(0).remove(0)
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn reset_by_admin(now_ms: u64) -> Envelope {
    Envelope {
        id: CommandId(u128::from_be_bytes(bytes())),
        now_ms,
        actor: Actor::User(Id::v7(START_MS, [2; 10])),
        command: Command::ResetPassword {
            email: Email::parse("bob@test.com").unwrap(),
            password_hash: mcpd::passwords::hash_password("quite another one", bytes()),
        },
    }
}

/// Two nodes that have lines of every server, and a third that cannot be reached.
pub(crate) struct TwoNodes;

impl Children for TwoNodes {
    fn logs(&self, _: Id, wanted: &LogsWanted) -> Pending<'_, Vec<NodeLogs>> {
        let wanted = wanted.clone();
        let line = |number, at_ms, text: &str| LogLine {
            number,
            at_ms,
            session: None,
            text: text.to_owned(),
        };
        let all = [
            (1, Some(vec![line(10, 1_000, "one"), line(11, 3_000, "three")])),
            (2, Some(vec![line(20, 2_000, "two \u{1b}[31m")])),
            (3, None),
        ];
        let logs = all.into_iter().map(move |(node, lines)| {
            let node = NodeId(node);
            let after = wanted.after.iter().find(|(of, _)| *of == node).map_or(0, |(_, n)| *n);
            let lines = lines.map(|mut lines| {
                let last = lines.last().map_or(0, |line| line.number);
                lines.retain(|line| line.number > after && line.at_ms >= wanted.since_ms);
                let from = lines.len().saturating_sub(wanted.tail);
                (lines.split_off(from), last)
            });
            (wanted.node, NodeLogs { node, lines })
        });
        let wanted = logs.filter(|(only, logs)| only.is_none_or(|only| only == logs.node));
        let logs = wanted.map(|(_, logs)| logs).collect();
        Box::pin(async move { logs })
    }

    fn running(&self) -> Pending<'_, Vec<(Id, bool)>> {
        Box::pin(async { Vec::new() })
    }
}
