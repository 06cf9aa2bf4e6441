//! `mcpctl backup`: saved, verified without a node, restored without letting anybody in who was refused.

use crate::node::Mood;
use crate::world::{World, words};

fn peopled() -> World {
    let world = World::new();
    for line in [
        "create user bob@test.com",
        "create project demo",
        "create mcptoken ci -p demo --bind role:run,resource:servers",
        "create mcptoken other -p demo",
    ] {
        if line.starts_with("create user") {
            world.run_with(
                &[("MCPCTL_SERVER", &world.url), ("MCPCTL_SESSION", world.session())],
                &words(&format!("{line} --password-stdin")),
                "correct horse battery\n",
            );
        } else {
            world.run(line).done();
        }
    }
    world
}

#[test]
fn a_backup_is_saved_verified_and_restored() {
    let world = peopled();
    let file = format!("{}/monday.backup", world.home());
    let saved = world.run(&format!("backup save {file}")).done();
    assert!(saved.out.contains("monday.backup\" saved\n"), "{}", saved.out);
    assert!(saved.out.contains("2 tokens, 0 tombstones"), "{}", saved.out);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds password hashes");
    world
        .run(&format!("backup save {file}"))
        .fails(2, "cannot save a backup", "exists", "mcpctl backup save");
    // No node is asked.
    let told = world.run_with(
        &[],
        &words(&format!("backup verify {file} -o jsonpath={{.holds.tokens}}")),
        "",
    );
    assert_eq!(told.done().out, "2");

    world.run("revoke mcptoken ci -p demo").done();
    world.run("create mcptoken later -p demo").done();
    let would = world.run(&format!("backup restore {file} --dry-run")).done();
    assert_eq!(
        would.out,
        "tokens would be revoked, for the backup does not know them: 1 (demo/later)\n\
         tokens of the backup that stay refused: 1 (demo/ci)\n"
    );
    world.run("get mcptoken later -p demo").done();
    let done = world.run(&format!("backup restore {file}")).done();
    assert!(
        done.out.starts_with(
            "tokens revoked, for the backup does not know them: 1 (demo/later)\n\
             tokens of the backup that stay refused: 1 (demo/ci)\n"
        ),
        "{}",
        done.out
    );
    assert!(
        done.out.ends_with("restored: effective on 3 of 3 replicas (12 ms)\n"),
        "{}",
        done.out
    );
    let status = "get mcptokens -p demo -o jsonpath={.items[*].status}";
    let now = world.run(status).done().out;
    assert_eq!(now.matches("revoked").count(), 2, "{now}");
    let done = world.run(&format!("backup restore {file} --revive-tokens")).done();
    assert!(
        done.out.starts_with("tokens let in again: 1 (demo/ci)\n"),
        "{}",
        done.out
    );
}

#[test]
fn a_damaged_backup_is_refused_before_any_node_is_asked() {
    let world = peopled();
    let file = format!("{}/b", world.home());
    world.run(&format!("backup save {file}")).done();
    let whole = std::fs::read(&file).unwrap();
    let nobody = [("MCPCTL_SERVER", "http://127.0.0.1:1"), ("MCPCTL_SESSION", "x")];
    for (what, bytes, why) in [
        ("cut", whole[..whole.len() - 1].to_vec(), "is cut off"),
        (
            "longer",
            [whole.as_slice(), b"\n"].concat(),
            "1 bytes that do not belong",
        ),
        ("empty", Vec::new(), "is cut off"),
        ("text", b"kind: project\n".to_vec(), "not a backup"),
        (
            "altered",
            {
                let mut bytes = whole.clone();
                let last = bytes.len() - 5;
                bytes[last] ^= 0x10;
                bytes
            },
            "is damaged",
        ),
    ] {
        std::fs::write(&file, bytes).unwrap();
        for verb in ["verify", "restore"] {
            let said = world.run_with(&nobody, &words(&format!("backup {verb} {file}")), "");
            said.fails(1, &format!("cannot {verb} backup"), why, "another copy");
        }
        assert!(!what.is_empty());
    }
}

#[test]
fn a_restore_whose_outcome_is_not_known_is_asked_for_again_and_not_made_twice() {
    let world = peopled();
    let file = format!("{}/b", world.home());
    world.run(&format!("backup save {file}")).done();
    world.node.mood(Mood::OnePending);
    let said = world.run(&format!("backup restore {file}"));
    let next = said
        .err
        .lines()
        .find_map(|line| line.split("mcpctl ").nth(1))
        .unwrap_or_default()
        .to_owned();
    said.fails(
        6,
        "not yet effective everywhere",
        "node-3 has not confirmed",
        "mcpctl backup restore",
    );
    world.node.mood(Mood::Fine);
    world.run("create mcptoken since -p demo").done();
    let again = next.split(" (safe").next().unwrap();
    assert!(again.contains(" --id "), "{again}");
    world.run(again).done();
    let status = "get mcptoken since -p demo -o jsonpath={.status}";
    assert_eq!(world.run(status).done().out, "active", "the restore was not made anew");
}
