//! The state on a disk that refuses: whatever it refuses, what was applied is there afterwards, and admission is not.

use std::path::Path;
use std::sync::Arc;

use mcp_model::clock::Reading;
use mcp_model::command::{Actor, Command, Envelope};
use mcp_model::ids::{CommandId, Id};
use mcp_model::names::{Email, Name};
use mcp_model::records::{ProjectSpec, ToolNaming};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::faults::{Faults, HOW, quick_dir};
use crate::{ApplyEntry, Replica, ReplicaOptions};

const ADMIN: Id = Id::from_u128(1);
/// Entries of the script.
const LAST: u64 = 12;

fn open_on(disk: Disk, dir: &Path) -> Arc<Replica> {
    let options = ReplicaOptions {
        lease_ms: 2_000,
        had_data: false,
        random: Arc::new(|| 42),
    };
    Replica::open_on(disk, dir, options).unwrap()
}

fn envelope(number: u64, actor: Actor, command: Command) -> Vec<u8> {
    let id = CommandId(u128::from(number));
    let now_ms = 1_000 + number;
    mcp_model::frame::encode(&Envelope {
        id,
        now_ms,
        actor,
        command,
    })
}

fn entry(index: u64) -> ApplyEntry {
    let command = match index {
        1 => {
            let init = Command::InitCluster {
                cluster_id: Id::from_u128(9),
                admin: ADMIN,
                email: Email::parse("admin@example.com").unwrap(),
                password_hash: None,
                rbac: Id::from_u128(2),
            };
            envelope(index, Actor::System, init)
        }
        _ => {
            let spec = ProjectSpec {
                description: "d".repeat(5_000),
                servers: Vec::new(),
                gated: true,
                allow_sse: false,
                proxy_model: None,
                tool_naming: ToolNaming::Plain,
                instructions: None,
            };
            let name = Name::parse(&format!("project-{index}")).unwrap();
            let id = Id::from_u128(u128::from(index));
            envelope(index, Actor::User(ADMIN), Command::CreateProject { id, name, spec })
        }
    };
    ApplyEntry {
        index,
        commands: vec![command],
    }
}

fn mark(index: u64) -> Vec<u8> {
    format!("mark {index}").into_bytes()
}

/// Applies the script, makes it durable half-way and at the end, and packs a snapshot. `after_failure` is called when the disk
/// refuses; if it says so, the step is tried again.
fn live(replica: &Replica, dir: &Path, after_failure: &dyn Fn(&Replica, &StoreError) -> bool) -> Option<()> {
    let step = |work: &dyn Fn() -> Result<(), StoreError>| {
        loop {
            match work() {
                Ok(()) => return Some(()),
                Err(error) if after_failure(replica, &error) => {}
                Err(_) => return None,
            }
        }
    };
    for index in 1..=LAST {
        step(&|| replica.apply(&[entry(index)], &mark(index)).map(drop))?;
        if index == LAST / 2 {
            step(&|| replica.flush())?;
            step(&|| replica.write_snapshot(&dir.join("a.snap")).map(drop))?;
        }
        if index == LAST / 2 + 2 {
            // An older state, as a node that lags is given.
            step(&|| replica.install_snapshot(&dir.join("a.snap")).map(drop))?;
            for again in LAST / 2 + 1..=index {
                step(&|| replica.apply(&[entry(again)], &mark(again)).map(drop))?;
            }
        }
    }
    step(&|| replica.flush())
}

fn assert_complete(replica: &Replica, upto: u64, when: &str) {
    assert_eq!(replica.auth_index(), upto, "{when}");
    let policy = replica.view().policy();
    for index in 2..=LAST {
        let there = policy.project_named(&format!("project-{index}")).is_some();
        assert_eq!(there, index <= upto, "{when}: project {index}");
    }
    let expected = (upto > 0).then(|| mark(upto));
    assert_eq!(replica.applied_mark().unwrap(), expected, "{when}");
}

#[test]
fn whichever_operation_the_disk_refuses_the_state_is_what_was_durable_and_nobody_is_admitted() {
    let operations = operations();
    assert!(operations > 20, "the script touches the disk {operations} times only");
    for after in 0..operations {
        for how in HOW {
            let when = format!("refused after {after} ({how:?})");
            let (dir, faults) = (quick_dir(), Arc::new(Faults::default()));
            let replica = open_on(Disk::Faulty(Arc::clone(&faults)), dir.path());
            faults.refuse_after(after, how);
            let (incarnation, request) = replica.gate().begin(Reading::both_ms(1)).unwrap();
            replica.gate().granted(incarnation, request, 0, || replica.auth_index());
            assert!(replica.gate().holds(Reading::both_ms(2)), "{when}");
            assert!(live(&replica, dir.path(), &|_, _| false).is_none(), "{when}");
            assert!(!replica.gate().holds(Reading::both_ms(2)), "{when}");
            assert!(replica.gate().begin(Reading::both_ms(3)).is_none(), "{when}");
            let durable = replica.durable_index();
            drop(replica);
            let replica = open_on(Disk::Real, dir.path());
            let found = replica.auth_index();
            // A flush that was refused may be there all the same.
            assert!(found >= durable, "{when}: {durable} was durable, {found} is there");
            assert_complete(&replica, found, &when);
        }
    }
}

#[test]
fn whichever_operation_the_disk_refuses_the_state_is_complete_once_it_takes_it() {
    for after in 0..operations() {
        for how in HOW {
            let when = format!("refused after {after} ({how:?})");
            let (dir, faults) = (quick_dir(), Arc::new(Faults::default()));
            let replica = open_on(Disk::Faulty(Arc::clone(&faults)), dir.path());
            faults.refuse_after(after, how);
            let mend = |replica: &Replica, error: &StoreError| {
                assert!(matches!(error, StoreError::Io(_)), "{when}: {error}");
                assert!(replica.is_refused() && replica.gate().why_shut().is_some());
                let refused = replica.apply(&[entry(1)], b"x");
                assert!(matches!(refused, Err(StoreError::Shut(_))), "{when}");
                faults.work();
                let reached = replica.reached();
                let from = replica.begin_mending().unwrap();
                for index in from + 1..=reached {
                    replica.replay(&[entry(index)], &mark(index)).unwrap();
                }
                assert!(replica.gate().begin(Reading::both_ms(3)).is_none(), "{when}: too early");
                replica.end_mending();
                true
            };
            live(&replica, dir.path(), &mend).unwrap();
            assert_complete(&replica, LAST, &when);
            assert!(replica.gate().begin(Reading::both_ms(4)).is_some(), "{when}");
            drop(replica);
            assert_complete(&open_on(Disk::Real, dir.path()), LAST, &when);
        }
    }
}

#[test]
fn a_state_that_is_damaged_is_not_mended() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open_on(Disk::Real, dir.path());
    replica.fail(&StoreError::Corrupt("a test".to_owned()));
    assert!(matches!(replica.begin_mending(), Err(StoreError::Shut(_))));
}

fn operations() -> u64 {
    let (dir, faults) = (quick_dir(), Arc::new(Faults::default()));
    let replica = open_on(Disk::Faulty(Arc::clone(&faults)), dir.path());
    faults.work();
    live(&replica, dir.path(), &|_, error| panic!("{error}")).unwrap();
    faults.done()
}

#[test]
fn a_hanging_flush_of_the_state_keeps_nobody_from_reading() {
    let (dir, faults) = (quick_dir(), Arc::new(Faults::default()));
    let replica = open_on(Disk::Faulty(Arc::clone(&faults)), dir.path());
    replica.apply(&[entry(1)], &mark(1)).unwrap();
    faults.hang();
    let flushing = {
        let replica = Arc::clone(&replica);
        std::thread::spawn(move || replica.flush())
    };
    faults.wait_until_hanging();
    assert!(replica.view().policy_ref().has_users());
    replica.read(|_| ()).unwrap();
    faults.work();
    flushing.join().unwrap().unwrap();
    assert_eq!(replica.durable_index(), 1);
}

fn digest(replica: &Replica) -> mcp_model::agreement::StateDigest {
    replica.pin().unwrap().digest(|| {}).unwrap()
}

#[test]
fn a_state_hashes_to_what_is_in_it_however_it_came_there() {
    let dirs = [(); 3].map(|()| quick_dir());
    let [one_by_one, at_once, from_snapshot] = dirs.each_ref().map(|dir| open_on(Disk::Real, dir.path()));
    for index in 1..=LAST {
        one_by_one.apply(&[entry(index)], &mark(index)).unwrap();
    }
    let all: Vec<ApplyEntry> = (1..=LAST).map(entry).collect();
    at_once.apply(&all, b"another mark").unwrap();
    at_once.flush().unwrap();
    let file = dirs[0].path().join("a.snap");
    one_by_one.write_snapshot(&file).unwrap();
    from_snapshot.install_snapshot(&file).unwrap();
    let said = digest(&one_by_one);
    assert_eq!(said.index, LAST);
    assert_eq!(digest(&at_once), said, "one entry at a time, or all at once");
    assert_eq!(digest(&from_snapshot), said, "from the log, or from a snapshot");
    drop(at_once);
    assert_eq!(digest(&open_on(Disk::Real, dirs[1].path())), said, "after a restart");
    // What is pinned stays as it was.
    let pinned = one_by_one.pin().unwrap();
    one_by_one.apply(&[entry(LAST + 1)], &mark(LAST + 1)).unwrap();
    assert_eq!(pinned.digest(|| {}).unwrap(), said);
    assert_eq!(
        digest(&one_by_one).differs_in(&said),
        ["Cluster", "Projects", "ProjectNames", "Audit", "Replies", "ReplyOrder"]
    );
}

#[test]
fn a_row_of_any_table_that_is_altered_or_too_many_shows_in_that_table() {
    use mcp_model::tables::Table;
    let dir = quick_dir();
    let replica = open_on(Disk::Real, dir.path());
    replica.apply(&[entry(1)], &mark(1)).unwrap();
    for table in Table::ALL {
        let before = digest(&replica);
        replica.alter(table, b"some key", b"a value".to_vec()).unwrap();
        let more = digest(&replica);
        assert_eq!(more.differs_in(&before), [format!("{table:?}")], "a row more");
        assert_eq!(more.rows(), before.rows() + 1);
        replica.alter(table, b"some key", b"b value".to_vec()).unwrap();
        let other = digest(&replica);
        assert_eq!(other.differs_in(&more), [format!("{table:?}")], "another value");
        assert_eq!(other.rows(), more.rows());
    }
}

#[test]
fn a_state_that_went_back_is_not_hashed_for_what_it_was() {
    let dir = quick_dir();
    let replica = open_on(Disk::Real, dir.path());
    replica.apply(&[entry(1)], &mark(1)).unwrap();
    let file = dir.path().join("a.snap");
    replica.write_snapshot(&file).unwrap();
    replica.apply(&[entry(2)], &mark(2)).unwrap();
    replica.live().go_back(mcp_model::ids::Incarnation(7));
    assert!(replica.pin().unwrap().digest(|| {}).is_err());
}
