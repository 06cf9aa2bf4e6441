//! Backups: every byte of them counts, and a restore brings back what was and nobody who was refused.

use std::collections::BTreeMap;

use mcp_model::backup::{self, Check, Damage};
use mcp_model::command::{Actor, Command};
use mcp_model::ids::{Id, NodeId};
use mcp_model::records::{McpToken, Server, TokenStatus, ToolList};
use mcp_model::tables::{self, Key, Table, Tables};

use super::stories::founded;
use super::world::World;

/// A cluster with something of every kind.
fn peopled() -> World {
    let mut world = founded();
    for line in [
        "init admin@example.com",
        "as admin",
        "user bob@example.com",
        "sa ci",
        "server git http",
        "server jira http header=${secret:jira/token}",
        "secret jira token",
        "project demo git jira",
        "project other git",
        "group devs bob@example.com",
        "grant devs Group:devs role:run,resource:servers",
        "grant cis ServiceAccount:ci role:view,resource:servers",
        "token 1 one in demo role:run,resource:servers",
        "token 2 two in demo until=900000 role:view,resource:servers",
        "token 3 three in other clone",
        "token 4 gone in demo",
        "revoke 4",
        "session 9 bob@example.com",
    ] {
        world.line(line);
    }
    world
}

fn whole(world: &World) -> Vec<u8> {
    [world.backup.0.as_slice(), &world.backup.1].concat()
}

fn judge(bytes: &[u8], piece: usize) -> Result<backup::Header, Damage> {
    let mut check = Check::default();
    for piece in bytes.chunks(piece) {
        check.push(piece)?;
    }
    check.finish()
}

fn rows(world: &World, table: Table) -> BTreeMap<Key, Vec<u8>> {
    world.tables.scan(table, &[], None, 100_000).into_iter().collect()
}

#[test]
fn a_backup_is_whole_however_it_comes_and_says_what_it_holds() {
    let mut world = peopled();
    world.save();
    let bytes = whole(&world);
    for piece in [1, 7, 100, bytes.len()] {
        let header = judge(&bytes, piece).unwrap();
        assert_eq!(header.index, world.index);
        let held = backup::TABLES.map(|table| (backup::noun(table), header.count(table)));
        assert_eq!(
            held,
            [
                ("users", 2),
                ("groups", 1),
                ("serviceaccounts", 1),
                ("projects", 2),
                ("servers", 2),
                ("secrets", 1),
                // The administrator's, two of people, and one for each token with bindings.
                ("definitions", 6),
                ("tokens", 4),
                ("tombstones", 1),
                ("tool lists", 0),
                ("watched tools", 0),
                ("server limits", 0),
                ("project limits", 0),
            ]
        );
    }
}

/// What was approved, and what was limited, must not be open again after a restore.
#[test]
fn approvals_and_limits_come_back_and_need_the_newer_format() {
    let mut world = peopled();
    world.save();
    assert_eq!(
        world.backup.0[8..10],
        [0, 1],
        "an older program reads what it has a place for"
    );
    let git: Server = tables::by_name(&world.tables, Table::ServerNames, b"git").unwrap();
    let list = ToolList {
        server: git.id,
        ..super::samples::tool_list()
    };
    let server = super::samples::name("git");
    let print = super::samples::print();
    world.line("as system");
    world.carry_out(Command::ReportTools {
        list,
        node: NodeId(6),
        prints: Some(vec![print]),
    });
    world.line("as admin");
    world.carry_out(Command::UpdateLimitedServer {
        name: server,
        spec: git.spec,
        limits: super::samples::server_limits(),
        if_version: None,
    });
    let tables = [Table::ToolWatches, Table::ServerLimits];
    let before = tables.map(|table| rows(&world, table));
    assert!(before.iter().all(|rows| rows.len() == 1), "{before:?}");
    world.save();
    assert_eq!(world.backup.0[8..10], [0, 2]);
    world.carry_out(Command::DeleteServer {
        name: super::samples::name("git"),
        if_version: None,
    });
    assert!(tables.iter().all(|table| rows(&world, *table).is_empty()));
    world.line("restore");
    assert_eq!(tables.map(|table| rows(&world, table)), before);
}

#[test]
fn no_flipped_bit_no_cut_and_nothing_behind_the_end_is_accepted() {
    let mut world = peopled();
    world.save();
    let bytes = whole(&world);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(judge(&bad, 512).is_err(), "bit {bit} of byte {at}");
        }
        let cut = judge(&bytes[..at], 512).unwrap_err();
        assert!(matches!(cut, Damage::CutOff { .. }), "cut at {at}: {cut}");
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert_eq!(judge(&longer, 512), Err(Damage::TooLong { extra: 1 }));
    assert_eq!(judge(b"#!/bin/sh\n", 512), Err(Damage::NotABackup));
}

#[test]
fn what_is_damaged_is_named() {
    let mut world = peopled();
    world.save();
    let (head, body) = world.backup.clone();
    let with = |at: usize| {
        let mut bytes = [head.as_slice(), &body].concat();
        bytes[at] ^= 1;
        judge(&bytes, 64).unwrap_err().to_string()
    };
    assert_eq!(with(20), "the head of the backup is damaged: its checksum does not fit");
    assert_eq!(
        with(head.len() + 10),
        "record 1 of the backup (users) is damaged: record checksum does not match"
    );
    assert_eq!(
        with(head.len()),
        "the backup is damaged behind record 0: what follows is no record"
    );
    // Of a newer format: the number was not altered, it fits the checksum.
    let mut newer = head[..head.len() - 32].to_vec();
    newer[9] = 3;
    let sum = <sha2::Sha256 as sha2::Digest>::digest(&newer);
    newer.extend_from_slice(&sum);
    assert_eq!(judge(&newer, 64), Err(Damage::Newer { found: 3 }));
}

/// What is found again from the records is found as it was: a restore at once changes no more than versions.
#[test]
fn a_restore_at_once_brings_back_every_row() {
    let mut world = peopled();
    world.save();
    let before = Table::ALL.map(|table| rows(&world, table));
    let said = world.line("restore");
    assert!(
        said[0].starts_with("restored: revived [], stay refused [], revoked []"),
        "{said:?}"
    );
    for (table, before) in Table::ALL.into_iter().zip(before) {
        let after = rows(&world, table);
        match table {
            // These go on.
            Table::Cluster | Table::Audit | Table::Replies | Table::ReplyOrder => {}
            // These have another version.
            table if backup::TABLES.contains(&table) && table != Table::Tokens && table != Table::Tombstones => {
                assert!(before.keys().eq(after.keys()), "{table:?}");
            }
            table => assert_eq!(before, after, "{table:?}"),
        }
    }
}

/// Every token that is let in, by the byte its hash is made of.
fn admitted(world: &World) -> Vec<u8> {
    let tokens: Vec<McpToken> = tables::list(&world.tables, None, 1_000);
    let good = tokens.iter().filter(|t| t.status == TokenStatus::Active);
    let mut good: Vec<u8> = good.map(|t| t.hash.0[0]).collect();
    good.sort_unstable();
    good
}

/// The rule, asked of every order in which one token is taken away in one of the ways, and a backup of before restored.
fn revived_by(restore: &str) -> Vec<String> {
    let mut revived = Vec::new();
    for way in ["revoke 1", "delete 1", "drop project demo", "token 5 one in demo force"] {
        let mut world = peopled();
        world.save();
        world.line(way);
        let before = admitted(&world);
        world.line(restore);
        revived.extend(
            admitted(&world)
                .iter()
                .filter(|n| !before.contains(n))
                .map(|n| format!("{n} after {way:?}")),
        );
    }
    revived
}

#[test]
fn a_restore_admits_nobody_who_was_refused() {
    assert_eq!(revived_by("restore"), Vec::<String>::new());
    assert_eq!(revived_by("restore other"), Vec::<String>::new());
}

/// The mutant: a restore that does not keep the tombstones. The check above must be able to fail.
#[test]
fn a_restore_without_tombstones_is_noticed() {
    let found = revived_by("restore revive");
    assert!(found.contains(&"1 after \"revoke 1\"".to_owned()), "{found:?}");
    assert!(found.contains(&"1 after \"delete 1\"".to_owned()), "{found:?}");
}

#[test]
fn in_a_new_cluster_tokens_come_back_only_on_purpose() {
    let mut old = peopled();
    old.save();
    let fresh = |how: &str| {
        let mut world = founded();
        world.index = 50;
        for line in [
            "init root@example.com",
            "as root@example.com",
            "project mine",
            "token 8 mine in mine",
        ] {
            world.line(line);
        }
        world.backup = old.backup.clone();
        let said = world.line(how).remove(0);
        (said, admitted(&world))
    };
    let (said, tokens) = fresh("restore");
    assert!(said.starts_with("refused: backup: it is of cluster "), "{said}");
    assert_eq!(tokens, [8], "nothing was changed");
    let (said, tokens) = fresh("restore other");
    assert!(
        said.contains("stay refused [\"demo/one\", \"demo/two\", \"other/three\"], revoked [\"mine/mine\"]"),
        "{said}"
    );
    assert_eq!(tokens, Vec::<u8>::new());
    let (_, tokens) = fresh("restore other revive");
    assert_eq!(tokens, [1, 2, 3]);
}

#[test]
fn a_restore_that_lacks_a_piece_or_has_an_altered_one_changes_nothing() {
    let mut world = peopled();
    world.save();
    let (head, body) = world.backup.clone();
    world.line("revoke 1");
    let restore = Id::from_u128(77);
    let pieces: Vec<Vec<u8>> = body.chunks(200).map(<[u8]>::to_vec).collect();
    let last = pieces.len() - 1;
    let mut altered = pieces.clone();
    altered[2][17] ^= 4;
    let mut swapped = pieces.clone();
    swapped.swap(1, 2);
    let mut longer = pieces.clone();
    longer.push(vec![1]);
    for (what, pieces) in [
        ("lacking the last", &pieces[..last]),
        ("altered", &altered),
        ("swapped", &swapped),
        ("longer", &longer),
        ("none", &[]),
    ] {
        world.carry_out(Command::DropRestore { restore });
        for (part, bytes) in (0..).zip(pieces) {
            let bytes = bytes.clone();
            world.carry_out(Command::StageRestore { restore, part, bytes });
        }
        let before = [Table::Users, Table::Rbac, Table::Tokens, Table::Tombstones].map(|t| rows(&world, t));
        let finish = Command::FinishRestore {
            restore,
            head: head.clone(),
            revive_tokens: true,
            any_cluster: false,
        };
        let said = world.carry_out(finish);
        assert!(said[0].starts_with("refused: "), "{what}: {said:?}");
        let after = [Table::Users, Table::Rbac, Table::Tokens, Table::Tombstones].map(|t| rows(&world, t));
        assert_eq!(before, after, "{what}");
    }
    // By nobody but who administers everything.
    world.actor = Actor::ServiceAccount(Id::from_u128(0x104));
    let bytes = vec![1];
    let part = 0;
    let said = world.carry_out(Command::StageRestore { restore, part, bytes });
    assert!(said[0].starts_with("refused: "), "{said:?}");
}
