//! The replica on a real disk: what was applied is there, in memory and after a restart, and what was altered is noticed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod principals;

use std::path::Path;
use std::sync::Arc;

use mcp_model::clock::Reading;
use mcp_model::command::{Actor, Command, Envelope, Outcome, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::{ProjectSpec, ToolNaming};
use mcp_model::token::TokenHash;
use mcp_store::{ApplyEntry, Replica, ReplicaOptions, StoreError};

fn options(had_data: bool) -> ReplicaOptions {
    ReplicaOptions {
        lease_ms: 2_000,
        had_data,
        random: Arc::new(|| 42),
    }
}

fn open(dir: &Path) -> Arc<Replica> {
    Replica::open(dir, options(false)).unwrap()
}

const ADMIN: Id = Id::from_u128(1);

fn by(actor: Actor, number: u128, command: Command) -> Envelope {
    Envelope {
        id: CommandId(number),
        now_ms: 1_000,
        actor,
        command,
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn hash(n: u8) -> TokenHash {
    TokenHash([n; 32])
}

fn init() -> Envelope {
    let email = Email::parse("admin@example.com").unwrap();
    let command = Command::InitCluster {
        cluster_id: Id::from_u128(9),
        admin: ADMIN,
        email,
        password_hash: None,
        rbac: Id::from_u128(2),
    };
    by(Actor::System, 1, command)
}

fn project(n: u128, called: &str) -> Envelope {
    let spec = ProjectSpec {
        description: String::new(),
        servers: Vec::new(),
        gated: true,
        allow_sse: false,
        proxy_model: None,
        tool_naming: ToolNaming::Plain,
        instructions: None,
    };
    by(
        Actor::User(ADMIN),
        n,
        Command::CreateProject {
            id: Id::from_u128(n),
            name: name(called),
            spec,
        },
    )
}

fn token(n: u8, called: &str) -> Envelope {
    let command = Command::IssueToken {
        id: Id::from_u128(u128::from(n) + 1_000),
        name: name(called),
        project: name("demo"),
        hash: hash(n),
        shown_prefix: "mcpctl_pat_abcd".to_owned(),
        description: String::new(),
        expires_ms: None,
        grant: TokenGrant::Bindings(vec!["role:run,resource:servers".parse().unwrap()]),
        replace: false,
    };
    by(Actor::User(ADMIN), u128::from(n) + 2_000, command)
}

fn revoke(n: u8) -> Envelope {
    let command = Command::RevokeToken {
        id: Id::from_u128(u128::from(n) + 1_000),
    };
    by(Actor::User(ADMIN), u128::from(n) + 3_000, command)
}

fn apply(replica: &Replica, index: u64, envelopes: &[Envelope]) -> Vec<Outcome> {
    let entry = ApplyEntry {
        index,
        commands: envelopes.iter().map(Envelope::encode).collect(),
    };
    replica.apply(&[entry], &index.to_le_bytes()).unwrap().remove(0)
}

fn seeded(dir: &Path) -> Arc<Replica> {
    let replica = open(dir);
    let outcomes = apply(
        &replica,
        1,
        &[init(), project(50, "demo"), token(7, "ci"), token(8, "nightly")],
    );
    for outcome in outcomes {
        assert!(!matches!(outcome.reply, Reply::Refused(_)), "{outcome:?}");
    }
    replica
}

#[test]
fn a_token_is_in_the_view_when_its_index_is_published_and_gone_when_its_revoke_is() {
    let dir = tempfile::tempdir().unwrap();
    let replica = seeded(dir.path());
    let facts = replica.view().token(&hash(7)).unwrap();
    assert_eq!(&*facts.name, "ci");
    assert!(facts.grants().allow(Verb::Use, Resource::Servers, "git"));
    let stream = replica.cuts().register(hash(7));
    let outcome = apply(&replica, 2, &[revoke(7)]).remove(0);
    assert!(outcome.restricts);
    assert!(replica.view().token(&hash(7)).is_none());
    assert!(stream.is_cut());
    assert!(replica.view().token(&hash(8)).is_some());
    assert_eq!(replica.auth_index(), 2);
    assert_eq!(*replica.auth_index_watch().borrow(), 2);
}

#[test]
fn a_restart_finds_what_was_flushed_with_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let replica = seeded(dir.path());
    apply(&replica, 2, &[revoke(7)]);
    replica.flush().unwrap();
    assert_eq!(replica.durable_index(), 2);
    drop(replica);
    let replica = Replica::open(dir.path(), options(true)).unwrap();
    assert_eq!(replica.auth_index(), 2);
    assert_eq!(replica.applied_mark().unwrap(), Some(2u64.to_le_bytes().to_vec()));
    assert!(replica.view().token(&hash(7)).is_none());
    assert!(replica.view().token(&hash(8)).is_some());
    assert!(
        !replica.gate().holds(Reading::default()),
        "a node that starts has no lease"
    );
}

#[test]
fn a_restart_gives_every_token_the_bindings_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let replica = seeded(dir.path());
    let write = |name_: &str, subject: u8, binding: &str, n: u128| {
        let command = Command::WriteRbac {
            id: Id::from_u128(n),
            name: name(name_),
            subjects: vec![mcp_model::rbac::Subject::McpToken(hash(subject))],
            role_bindings: vec![binding.parse().unwrap()],
            if_version: None,
        };
        by(Actor::User(ADMIN), n + 10_000, command)
    };
    let bare = Envelope {
        command: match token(60, "bare").command {
            Command::IssueToken {
                id,
                name,
                project,
                hash,
                shown_prefix,
                description,
                expires_ms,
                replace,
                ..
            } => Command::IssueToken {
                id,
                name,
                project,
                hash,
                shown_prefix,
                description,
                expires_ms,
                grant: TokenGrant::Bindings(Vec::new()),
                replace,
            },
            other => other,
        },
        ..token(60, "bare")
    };
    // Definitions by people whose ids and names stand before, between and after those of the tokens.
    let made = [
        token(50, "plain"),
        token(51, "more"),
        bare,
        write("a-first", 51, "role:view,resource:audit", 900),
        write("between", 60, "role:view,resource:tools", 1_055),
        write("zz-last", 51, "role:view,resource:projects", 9_000),
        token(52, "gone"),
        revoke(52),
    ];
    let outcomes = apply(&replica, 30, &made);
    assert!(
        outcomes.iter().all(|o| !matches!(o.reply, Reply::Refused(_))),
        "{outcomes:?}"
    );
    replica.flush().unwrap();
    let grants = |replica: &Replica, n: u8| {
        let facts = replica.view().token(&hash(n))?;
        let mut bindings: Vec<String> = facts.grants().bindings().iter().map(ToString::to_string).collect();
        bindings.sort();
        Some(bindings)
    };
    let own = "role:run,resource:servers";
    let expected = [
        (50, Some(vec![own])),
        (
            51,
            Some(vec![own, "role:view,resource:audit", "role:view,resource:projects"]),
        ),
        (60, Some(vec!["role:view,resource:tools"])),
        (52, None),
    ];
    let check = |replica: &Replica, when: &str| {
        for (n, bindings) in &expected {
            let bindings = bindings
                .as_ref()
                .map(|all| all.iter().map(|b| (*b).to_owned()).collect());
            assert_eq!(grants(replica, *n), bindings, "token {n}, {when}");
        }
    };
    check(&replica, "before the restart");
    drop(replica);
    check(&open(dir.path()), "after it");
}

#[test]
fn a_snapshot_carries_everything_to_another_replica() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = seeded(one.path());
    apply(&source, 2, &[revoke(7)]);
    let file = one.path().join("a.snap");
    let info = source.write_snapshot(&file).unwrap();
    assert_eq!(info.index, 2);

    let target = open(two.path());
    let stale = apply(&target, 1, &[init(), project(50, "demo"), token(7, "ci")]);
    assert_eq!(stale.len(), 3);
    assert!(target.view().token(&hash(7)).is_some());
    let stream = target.cuts().register(hash(7));
    assert_eq!(target.install_snapshot(&file).unwrap(), info);
    assert!(target.view().token(&hash(7)).is_none());
    assert!(target.view().token(&hash(8)).is_some());
    assert!(stream.is_cut());
    assert_eq!(target.auth_index(), 2);
    assert_eq!(target.durable_index(), 2);
    // The same commands lead to the same bytes from here on.
    let again = two.path().join("b.snap");
    apply(&source, 3, &[token(9, "ci")]);
    apply(&target, 3, &[token(9, "ci")]);
    let shas = [
        source.write_snapshot(&file).unwrap().sha256,
        target.write_snapshot(&again).unwrap().sha256,
    ];
    assert_eq!(shas[0], shas[1]);
}

#[test]
fn an_older_state_costs_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let replica = seeded(dir.path());
    let file = dir.path().join("old.snap");
    replica.write_snapshot(&file).unwrap();
    apply(&replica, 2, &[revoke(7)]);
    let (incarnation, request) = replica.gate().begin(Reading::both_ms(1)).unwrap();
    replica.gate().granted(incarnation, request, 2, || replica.auth_index());
    assert!(replica.gate().holds(Reading::both_ms(2)));
    replica.install_snapshot(&file).unwrap();
    assert!(!replica.gate().holds(Reading::both_ms(2)));
}

#[test]
fn every_altered_byte_of_a_snapshot_is_noticed_before_anything_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let replica = seeded(dir.path());
    let file = dir.path().join("a.snap");
    replica.write_snapshot(&file).unwrap();
    let good = std::fs::read(&file).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(&file, &bad).unwrap();
        assert!(
            matches!(replica.install_snapshot(&file), Err(StoreError::Corrupt(_))),
            "byte {at}"
        );
        std::fs::write(&file, &good[..at]).unwrap();
        assert!(
            matches!(replica.install_snapshot(&file), Err(StoreError::Corrupt(_))),
            "cut at {at}"
        );
    }
    assert!(replica.view().token(&hash(7)).is_some());
    assert_eq!(replica.gate().why_shut(), None);
}

#[test]
fn an_empty_state_file_is_refused_where_there_was_data() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Replica::open(dir.path(), options(true)),
        Err(StoreError::Missing { what: "missing", .. })
    ));
    std::fs::write(dir.path().join("state.redb"), b"").unwrap();
    assert!(matches!(
        Replica::open(dir.path(), options(true)),
        Err(StoreError::Missing { what: "empty", .. })
    ));
}

#[test]
fn an_entry_that_does_not_decode_shuts_the_gate() {
    let dir = tempfile::tempdir().unwrap();
    let replica = seeded(dir.path());
    let (incarnation, request) = replica.gate().begin(Reading::both_ms(1)).unwrap();
    replica.gate().granted(incarnation, request, 1, || replica.auth_index());
    assert!(replica.gate().holds(Reading::both_ms(2)));
    let entry = ApplyEntry {
        index: 2,
        commands: vec![b"nonsense".to_vec()],
    };
    assert!(matches!(replica.apply(&[entry], b"m"), Err(StoreError::Corrupt(_))));
    assert!(!replica.gate().holds(Reading::both_ms(2)));
    assert!(matches!(replica.flush(), Err(StoreError::Shut(_))));
}

#[test]
fn a_repeated_command_is_carried_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let replica = seeded(dir.path());
    let first = apply(&replica, 2, &[token(9, "third")]);
    let again = apply(&replica, 3, &[token(9, "third")]);
    assert_eq!(first, again);
    let other = Envelope {
        id: CommandId(77),
        ..token(9, "third")
    };
    assert!(matches!(apply(&replica, 4, &[other])[0].reply, Reply::Refused(_)));
}

#[test]
fn a_removed_node_admits_nobody_from_the_index_of_its_removal_on_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (me, now) = (NodeId(6), Reading::both_ms(10));
    let replica = seeded(dir.path());
    replica.belongs_to(me).unwrap();
    let lease = |replica: &Replica| {
        let (incarnation, request) = replica.gate().begin(now)?;
        replica.gate().granted(incarnation, request, 0, || replica.auth_index());
        Some(replica.gate().holds(now))
    };
    assert_eq!(lease(&replica), Some(true));
    let at = replica.auth_index();
    let retire = |n, node| by(Actor::System, n, Command::RetireNode { node });
    apply(&replica, at + 1, &[retire(70, NodeId(7))]);
    assert!(replica.gate().holds(now), "another node went");
    apply(&replica, at + 2, &[retire(71, me)]);
    assert!(!replica.gate().holds(now));
    assert_eq!(lease(&replica), None);
    // The others may still need its voice.
    apply(&replica, at + 3, &[token(9, "late")]);
    assert_eq!(replica.auth_index(), at + 3);
    replica.flush().unwrap();
    drop(replica);
    let again = Replica::open(dir.path(), options(true)).unwrap();
    again.belongs_to(me).unwrap();
    assert_eq!(lease(&again), None);
}
