//! The decision alone, in process: from the bearer's text to "this tool may be called", over uniformly random tokens.

use std::hint::black_box;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;

use anyhow::{Context, bail};
use mcp_model::admission::{Access, access, expired};
use mcp_model::clock::Clock;
use mcp_model::command::{Actor, Command, Envelope, Outcome, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{Resource, Subject};
use mcp_model::records::{ProjectSpec, ToolNaming};
use mcp_model::token::PlainToken;
use mcp_store::{ApplyEntry, Replica, ReplicaOptions};
use sha2::{Digest, Sha256};

use super::Plan;
use super::table::{heading, median, table, thousands};
use crate::clock::{SystemClock, now_ns};
use crate::process::resident_kib;

/// Owners of the tokens, and projects: what a token shares with others is not counted as its own.
const OWNERS: usize = 64;
const PROJECTS: usize = 16;
const ROUNDS: usize = 5;
const BATCH: usize = 256;
/// A lease that outlasts the measurement.
const LEASE_MS: u64 = 3_600_000;
const ADMIN: Id = Id::from_u128(1);
const PROJECT: &str = "bench";

/// Builds a replica with many tokens, and decides about them.
pub(super) fn run(plan: &Plan, dir: &Path) -> anyhow::Result<()> {
    heading(
        "Decision",
        "On one thread: shape and hash of the bearer, registration for cuts, look-up, owner, project, right to call the tool, fresh clock \
         against the lease. Uniformly random tokens of 64 owners in 16 projects, so caches help as little as they can. The store is \
         opened as a node opens it, every page of it verified; the memory is that of the whole replica, with the store's page cache.",
    );
    let mut rows = Vec::new();
    for &tokens in plan.tokens {
        let bearers: Vec<String> = (0..tokens).map(bearer).collect();
        let dir = dir.join(format!("decide-{tokens}"));
        // Whatever filling leaves behind in memory would be counted, so another process does it.
        let mut filling = Process::new(std::env::current_exe()?);
        if !filling
            .arg("fill")
            .arg(&dir)
            .arg(tokens.to_string())
            .status()?
            .success()
        {
            bail!("the store could not be filled");
        }
        let (held, began) = (resident_kib(std::process::id())?, now_ns());
        let replica = open(&dir, true)?;
        let opened_ms = (now_ns() - began) / 1_000_000;
        grant_lease(&replica)?;
        let bytes = resident_kib(std::process::id())?.saturating_sub(held) * 1024 / tokens as u64;
        let bench = Bench {
            replica: &replica,
            bearers: &bearers,
            times: plan.decisions / ROUNDS,
        };
        rows.push(vec![
            thousands(tokens as u64),
            nanoseconds(bench.rounds(hash_only)?),
            nanoseconds(bench.rounds(clock_only)?),
            nanoseconds(bench.rounds(look_up)?),
            nanoseconds(bench.rounds(decide)?),
            format!("{bytes} bytes"),
            format!("{opened_ms} ms"),
        ]);
    }
    table(
        &[
            "tokens",
            "hash",
            "clock and lease",
            "look-up",
            "whole decision",
            "memory per token",
            "opens in",
        ],
        &rows,
    );
    Ok(())
}

fn nanoseconds(tenths: u64) -> String {
    format!("{}.{} ns", tenths / 10, tenths % 10)
}

struct Bench<'a> {
    replica: &'a Replica,
    bearers: &'a [String],
    times: usize,
}

impl Bench<'_> {
    /// The median of the rounds, in tenths of a nanosecond for one.
    fn rounds(&self, one: fn(&Replica, &str) -> bool) -> anyhow::Result<u64> {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut taken = Vec::new();
        for _ in 0..ROUNDS {
            let began = now_ns();
            for _ in 0..self.times {
                let bearer = &self.bearers[random.below(self.bearers.len())];
                if !one(self.replica, black_box(bearer)) {
                    bail!("a token that is there was refused");
                }
            }
            taken.push((now_ns() - began) * 10 / self.times as u64);
        }
        Ok(median(&taken))
    }
}

fn hash_only(_: &Replica, bearer: &str) -> bool {
    PlainToken::parse(bearer).is_some_and(|token| black_box(token.hash()).0.len() == 32)
}

fn clock_only(replica: &Replica, _: &str) -> bool {
    replica.gate().holds(SystemClock.reading())
}

fn look_up(replica: &Replica, bearer: &str) -> bool {
    PlainToken::parse(bearer).is_some_and(|token| replica.view().token(&token.hash()).is_some())
}

/// What the gateway does for a call, in its order.
fn decide(replica: &Replica, bearer: &str) -> bool {
    let Some(hash) = PlainToken::parse(bearer).map(|token| token.hash()) else {
        return false;
    };
    let cut = replica.cuts().register(hash);
    let Some(token) = replica.view().token(&hash) else {
        return false;
    };
    let policy = replica.view().policy();
    if expired(token.expires_ms(), SystemClock.wall_ms()) {
        return false;
    }
    let Some(owner) = policy.user(token.owner()).filter(|user| !user.disabled) else {
        return false;
    };
    let Some(project) = policy
        .project(token.project())
        .filter(|project| project.name.as_str().starts_with(PROJECT))
    else {
        return false;
    };
    let usable = access(token.grants(), &owner.grants, Resource::Tools, "github", "list_issues") == Access::Usable;
    let admitted = usable && replica.gate().holds(SystemClock.reading());
    black_box((project, cut.is_cut()));
    admitted
}

fn open(dir: &Path, had_data: bool) -> anyhow::Result<Arc<Replica>> {
    let options = ReplicaOptions {
        lease_ms: LEASE_MS,
        had_data,
        random: Arc::new(|| 42),
    };
    Ok(Replica::open(dir, options)?)
}

fn grant_lease(replica: &Replica) -> anyhow::Result<()> {
    let gate = replica.gate();
    let (incarnation, renewal) = gate.begin(SystemClock.reading()).context("the gate is shut")?;
    gate.granted(incarnation, renewal, 1, || replica.auth_index());
    Ok(())
}

/// Makes a store with many tokens, as the cluster makes one: command by command.
pub(super) fn fill(dir: &Path, tokens: &str) -> anyhow::Result<()> {
    let tokens: usize = tokens.parse()?;
    std::fs::create_dir_all(dir)?;
    let replica = open(dir, false)?;
    let mut index = 0;
    let mut apply = |commands: Vec<Envelope>| {
        index += 1;
        let commands = commands.iter().map(Envelope::encode).collect();
        let outcomes = replica.apply(&[ApplyEntry { index, commands }], &[])?;
        match outcomes.iter().flatten().find(|outcome| refused(outcome)) {
            Some(outcome) => bail!("a command was refused: {:?}", outcome.reply),
            None => Ok(()),
        }
    };
    apply(vec![init()?])?;
    apply((0..OWNERS).map(owner).collect::<anyhow::Result<_>>()?)?;
    apply(vec![owners_may_all()?])?;
    apply((0..PROJECTS).map(project).collect::<anyhow::Result<_>>()?)?;
    let numbers: Vec<usize> = (0..tokens).collect();
    for batch in numbers.chunks(BATCH) {
        apply(batch.iter().map(|n| issue(*n)).collect::<anyhow::Result<_>>()?)?;
    }
    replica.flush()?;
    Ok(())
}

fn refused(outcome: &Outcome) -> bool {
    matches!(outcome.reply, Reply::Refused { .. })
}

fn envelope(number: u128, actor: Actor, command: Command) -> Envelope {
    Envelope {
        id: CommandId(number),
        now_ms: SystemClock.wall_ms(),
        actor,
        command,
    }
}

fn init() -> anyhow::Result<Envelope> {
    let email = Email::parse("admin@bench.local")?;
    let (cluster_id, rbac) = (Id::from_u128(2), Id::from_u128(3));
    let command = Command::InitCluster {
        cluster_id,
        admin: ADMIN,
        email,
        password_hash: None,
        rbac,
    };
    Ok(envelope(1, Actor::System, command))
}

fn owner_id(n: usize) -> Id {
    Id::from_u128(10_000 + n as u128)
}

fn owner_email(n: usize) -> anyhow::Result<Email> {
    Ok(Email::parse(&format!("owner-{n}@bench.local"))?)
}

fn owner(n: usize) -> anyhow::Result<Envelope> {
    let command = Command::CreateUser {
        id: owner_id(n),
        email: owner_email(n)?,
        name: String::new(),
        password_hash: None,
    };
    Ok(envelope(10_000 + n as u128, Actor::User(ADMIN), command))
}

fn owners_may_all() -> anyhow::Result<Envelope> {
    let subjects = (0..OWNERS).map(|n| owner_email(n).map(Subject::User));
    let command = Command::WriteRbac {
        id: Id::from_u128(5),
        name: Name::parse("owners")?,
        subjects: subjects.collect::<anyhow::Result<_>>()?,
        role_bindings: vec!["role:admin,resource:*".parse()?],
        if_version: None,
    };
    Ok(envelope(5, Actor::User(ADMIN), command))
}

fn project_name(n: usize) -> anyhow::Result<Name> {
    Ok(Name::parse(&format!("{PROJECT}-{n}"))?)
}

fn project(n: usize) -> anyhow::Result<Envelope> {
    let spec = ProjectSpec {
        description: String::new(),
        servers: Vec::new(),
        gated: false,
        allow_sse: false,
        proxy_model: None,
        tool_naming: ToolNaming::Prefixed,
        instructions: None,
    };
    let command = Command::CreateProject {
        id: Id::from_u128(20_000 + n as u128),
        name: project_name(n)?,
        spec,
    };
    Ok(envelope(20_000 + n as u128, Actor::User(ADMIN), command))
}

fn issue(number: usize) -> anyhow::Result<Envelope> {
    let token = PlainToken::parse(&bearer(number)).context("not of a token's shape")?;
    let number_ = 1_000_000 + number as u128;
    let command = Command::IssueToken {
        id: Id::from_u128(number_),
        name: Name::parse(&format!("token-{number}"))?,
        project: project_name(number % PROJECTS)?,
        hash: token.hash(),
        shown_prefix: token.shown_prefix(),
        description: String::new(),
        expires_ms: None,
        grant: TokenGrant::Bindings(vec!["role:run,resource:tools,name:github/list_*".parse()?]),
        replace: false,
    };
    let owner = owner_id(number / PROJECTS % OWNERS);
    Ok(envelope(number_, Actor::User(owner), command))
}

/// The bearer of a number: the same in both processes, and as random as any.
fn bearer(number: usize) -> String {
    let bytes: [u8; 32] = Sha256::digest(number.to_le_bytes()).into();
    PlainToken::from_bytes(&bytes).expose().to_owned()
}

/// xorshift: cheap, and as even as a benchmark needs.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }
}
