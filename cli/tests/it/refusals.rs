//! Errors of every command, not only of those that other tests are about: word for word, and in the form that all have
//! ([`crate::world::assert_told`] looks at whatever any test runs).

use std::path::Path;

use crate::snapshots::{check, commands};
use crate::world::World;

/// What a command says of what it was asked for; `failures.txt` has what they have in common.
#[test]
fn what_each_command_refuses() {
    let world = World::new();
    check(
        "refusals",
        &world,
        &[
            "mcpctl create project demo",
            "mcpctl create serviceaccount deploy",
            "mcpctl create mcptoken ci -p demo --rbac clone --force --no-wait",
            "mcpctl login --server ftp://x --email a@b.c",
            "mcpctl login --email nobody@test.com --password-stdin",
            "mcpctl login --email admin@test.com --setup-secret-file none --password-stdin",
            "MCPCTL_SESSION= mcpctl passwd",
            "mcpctl passwd --password-stdin",
            "mcpctl passwd none@test.com --password-stdin",
            "MCPCTL_SESSION= mcpctl whoami",
            "mcpctl auth can-i fly servers",
            "mcpctl auth can-i run pods",
            "mcpctl auth can-i run servers/git extra",
            "mcpctl get project a b",
            "mcpctl get sessions none",
            "mcpctl get tools none",
            "mcpctl get mcptoken none -p demo",
            "mcpctl get projects -o jsonpath={.items[",
            "mcpctl describe tool search",
            "mcpctl describe tool none/search",
            "mcpctl describe node none",
            "mcpctl create server x --command a --url http://b/",
            "mcpctl create server x --command a --env TOKEN",
            "mcpctl create server x --url http://b/ --header Authorization",
            "mcpctl create server x --url http://b/ --header-file Authorization=none",
            "mcpctl create project other --server none --server nobody",
            "mcpctl create user alice",
            "mcpctl create user alice@test.com --no-password --password-stdin",
            "mcpctl create user admin@test.com --no-password",
            "mcpctl create group g --member none@test.com",
            "mcpctl create serviceaccount deploy",
            "mcpctl create session --serviceaccount none",
            "mcpctl create rbac x --roleBindings action:logs",
            "mcpctl create mcptoken ci -p demo --bind role:run",
            "mcpctl create mcptoken ci -p demo --rbac all",
            "mcpctl create secret git",
            "mcpctl create secret git --from-file token",
            "mcpctl create secret git --from-file token=none",
            "mcpctl create secret git --from-env-file none",
            "mcpctl apply -f -",
            "mcpctl apply",
            "mcpctl diff -f none.yaml",
            "mcpctl edit project none",
            "mcpctl edit project",
            "mcpctl edit node node-1",
            "mcpctl wait project",
            "mcpctl wait project demo --for flying",
            "mcpctl wait project none --for delete --timeout soon",
            "mcpctl delete project",
            "mcpctl delete project none",
            "mcpctl delete mcptoken ci",
            "mcpctl revoke mcptoken",
            "mcpctl revoke project demo",
            "mcpctl revoke mcptoken none -p demo",
            "mcpctl cluster remove none",
            "mcpctl cluster promote none",
            "mcpctl cluster demote none",
            "mcpctl cluster join-token revoke none",
            "mcpctl backup save",
            "mcpctl backup verify none.backup",
            "mcpctl backup restore none.backup",
            "mcpctl rotate mcptoken none -p demo",
            "mcpctl rotate secret git",
            "mcpctl rotate secret git --key token --from-file none",
            "mcpctl approve project demo",
            "mcpctl approve server a --digest 00",
            "mcpctl approve tool search",
            "mcpctl approve tool none/search",
            "mcpctl explain pods",
            "mcpctl explain project.servers.colour",
            "mcpctl api-resources -o pdf",
            "mcpctl call search",
            "mcpctl call",
            "mcpctl mcp stdio",
            "mcpctl mcp stdio --server ftp://x",
            "mcpctl connect claude",
            "mcpctl connect nobody -p demo",
            "mcpctl config set-context other",
            "mcpctl config delete-context none",
            "mcpctl config view -o json",
            "mcpctl completion tcsh",
            "mcpctl --api ftp://x version",
            "mcpctl --api http://127.0.0.1:1 version",
            "mcpctl --cacert none get projects",
        ],
    );
}

/// Every command with nothing behind it, where no cluster is known: it does its work, or says what it lacks.
#[test]
fn what_every_command_says_alone() {
    let world = World::without_session();
    let mut found = Vec::new();
    commands(&world, "", &mut found);
    let lines: Vec<String> = found
        .iter()
        .map(|line| format!("MCPCTL_SERVER= {}", line.trim_end_matches(" --help")))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    check("alone", &world, &lines);
}

/// Whatever command a line of the command line is for, a flag that it does not have is a slip, and its help the next step.
#[test]
fn every_command_refuses_a_flag_that_it_does_not_have() {
    let world = World::without_session();
    let mut found = Vec::new();
    commands(&world, "", &mut found);
    for line in found {
        let line = line.trim_end_matches(" --help");
        let code = if line.starts_with("mcpctl test") { 64 } else { 2 };
        let said = world.run(&format!("{} --no-such-flag", line.trim_start_matches("mcpctl")));
        assert!(said.err.contains("'--no-such-flag'"), "{said:?}");
        said.fails(
            code,
            "cannot read the command line",
            "unexpected argument",
            &format!("{line} --help"),
        );
    }
}

/// A next step that begins with `mcpctl` can be pasted: there is a command of that name.
#[test]
fn every_next_step_names_a_command_that_there_is() {
    let world = World::without_session();
    let mut found = Vec::new();
    commands(&world, "", &mut found);
    let found: Vec<&str> = found.iter().map(|line| line.trim_end_matches(" --help")).collect();
    let mut seen = 0;
    for file in ["failures", "refusals", "alone", "shown"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{file}.txt"));
        let text = std::fs::read_to_string(path).unwrap();
        for step in text.lines().filter_map(|line| line.strip_prefix("! next:  mcpctl")) {
            let mut command = "mcpctl".to_owned();
            for word in step.split_whitespace() {
                let within = format!("{command} ");
                if word == "--help" || !found.iter().any(|known| known.starts_with(&within)) {
                    break;
                }
                command = within + word;
                assert!(
                    found.contains(&command.as_str()),
                    "{file}: there is no {command}: {step}"
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}
