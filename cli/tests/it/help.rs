//! The command line as a whole: every command explains itself, completes itself and says what it is about.

use std::process::Command;

use crate::world::{World, words};

/// Commands of a command, from its help, without its aliases.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let named = lines.take_while(|line| line.starts_with("  ")).filter_map(|line| {
        let own = line.starts_with("  ") && !line.starts_with("   ");
        own.then(|| line.split_whitespace().next().unwrap().to_owned())
    });
    named.filter(|name| name != "help").collect()
}

fn walk(world: &World, path: &str, visit: &mut dyn FnMut(&str, &str)) {
    let help = world.run(&format!("{path} --help")).done().out;
    let inner = commands(&help);
    visit(path.trim(), &help);
    for name in inner {
        walk(world, &format!("{path} {name}"), visit);
    }
}

#[test]
fn every_command_has_two_examples_that_name_it() {
    let world = World::new();
    let mut seen = 0;
    walk(&world, "", &mut |path, help| {
        seen += 1;
        let examples: Vec<&str> = help.lines().skip_while(|line| *line != "Examples:").skip(1).collect();
        let own = examples
            .iter()
            .filter(|line| line.contains("mcpctl") && line.contains(path));
        assert!(own.count() >= 2, "mcpctl {path} has fewer than two examples:\n{help}");
        let about = help.lines().next().unwrap();
        assert!(!about.is_empty() && !about.ends_with('.'), "mcpctl {path}: {about:?}");
    });
    assert!(seen > 55, "{seen}");
}

#[test]
fn every_option_of_every_command_says_what_it_is_for() {
    let world = World::new();
    walk(&world, "", &mut |path, help| {
        let mut lines = help.lines().take_while(|line| *line != "Examples:").peekable();
        while let Some(line) = lines.next() {
            let option = line.trim_start();
            let is_option = option.starts_with("--") || option.starts_with('-') && option.contains(", --");
            if !is_option {
                continue;
            }
            let beside = option.split_once("  ").is_some_and(|(_, text)| !text.trim().is_empty());
            let below = lines.peek().is_some_and(|next| next.starts_with("          "));
            assert!(beside || below, "mcpctl {path}: {option}");
        }
    });
}

/// What bash would offer for a line whose last word is being written.
fn offered(world: &World, env: &[(&str, &str)], line: &str) -> Vec<String> {
    let script = format!(
        "set -e; source <(mcpctl completion bash); COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9; \
         _clap_complete_mcpctl mcpctl \"${{COMP_WORDS[$COMP_CWORD]}}\" x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let own = std::path::Path::new(env!("CARGO_BIN_EXE_mcpctl")).parent().unwrap();
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).env_clear().env("HOME", world.home());
    command
        .env("PATH", format!("{}:/usr/bin:/bin", own.display()))
        .envs(env.iter().copied());
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty() && !l.starts_with('-'))
        .collect()
}

/// The same for names that the cluster is asked for: on a busy machine it may be too slow for a shell, once or twice.
#[track_caller]
fn offers(world: &World, env: &[(&str, &str)], line: &str, expected: &[&str]) {
    let mut last = Vec::new();
    for _ in 0..20 {
        last = offered(world, env, line);
        if last == expected {
            return;
        }
    }
    panic!("{line}: {last:?} instead of {expected:?}");
}

#[test]
fn completion_is_as_fresh_as_the_commands_are() {
    let world = World::new();
    walk(&world, "", &mut |path, help| {
        let inner = commands(help);
        if inner.is_empty() {
            return;
        }
        let offers = offered(&world, &[], &format!("mcpctl {path} ''"));
        for name in inner {
            assert!(
                offers.contains(&name),
                "mcpctl {path} {name} is not offered: {offers:?}"
            );
        }
    });
    for shell in ["zsh", "fish"] {
        let script = world.run(&format!("completion {shell}")).done().out;
        assert!(script.contains("_MCPCTL_COMPLETE"), "{script}");
    }
}

#[test]
fn completion_offers_the_names_that_there_are() {
    let world = World::new();
    world.run("create project demo").done();
    world.run("create project dense").done();
    world.run("create mcptoken ci -p demo").done();
    let session = world.session();
    let env = [("MCPCTL_SERVER", world.url.as_str()), ("MCPCTL_SESSION", session)];
    offers(&world, &env, "mcpctl get project de", &["demo", "dense"]);
    offers(&world, &env, "mcpctl delete proj dem", &["demo"]);
    offers(&world, &env, "mcpctl describe mcptoken ''", &["demo/ci"]);
    offers(&world, &env, "mcpctl revoke mcptoken -p demo ''", &["ci"]);
    offers(&world, &env, "mcpctl create mcptoken x -p dem", &["demo"]);
    assert!(offered(&world, &env, "mcpctl get mcpt").contains(&"mcptokens".to_owned()));
    // Without a cluster it offers nothing, and does not take long to say so.
    let (_listener, frozen) = world.frozen();
    assert!(
        offered(
            &world,
            &[("MCPCTL_SERVER", frozen.as_str()), ("MCPCTL_SESSION", session)],
            "mcpctl get project de"
        )
        .is_empty()
    );
    assert!(offered(&world, &[], "mcpctl get project de").is_empty());
}

#[test]
fn kinds_and_their_fields_are_explained_without_a_cluster() {
    let world = World::without_session();
    let run = |line: &str| world.run_with(&[], &words(line), "");
    let said = run("api-resources").done();
    let names: Vec<&str> = said
        .out
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(
        run("api-resources -o name").done().out.lines().collect::<Vec<_>>(),
        names
    );
    for name in &names {
        let said = run(&format!("explain {name}")).done();
        assert!(
            said.out.contains("\nDESCRIPTION:\n    ") && said.out.contains("\nFIELDS:\n  "),
            "{said:?}"
        );
        let empty = said.out.lines().any(|line| line == "    ");
        assert!(
            !empty && !said.out.contains('`') || said.out.contains("` "),
            "{name}: {said:?}"
        );
    }
    let said = run("explain project.toolNaming").done();
    assert!(said.out.contains("FIELD:    project.toolNaming <string>"), "{said:?}");
    let said = run("explain rbac.roleBindings").done();
    assert!(
        said.out.contains("<list of object>") && said.out.contains("  role <string>"),
        "{said:?}"
    );
    run("explain rbac.spec.roleBindings.role").done();
    run("explain project.colour").fails(
        3,
        "cannot explain",
        "has no field \"colour\"; its fields are",
        "mcpctl explain project",
    );
    run("explain pod").fails(2, "cannot explain", "the kinds are", "mcpctl api-resources");
}

#[test]
fn templates_pick_what_they_say() {
    let world = World::new();
    world.run("create project a --description one").done();
    world.run("create project b").done();
    let pick = |line: &str| world.run(line).done().out;
    assert_eq!(pick("get projects -o jsonpath={.items[*].metadata.name}"), "a b");
    assert_eq!(pick("get project a -o jsonpath={.spec.description}"), "one");
    assert_eq!(
        pick("get projects -o 'jsonpath={range .items[*]}{.name}{\"\\n\"}{end}'"),
        "a\nb\n"
    );
    assert_eq!(pick("whoami -o jsonpath={.user.email}"), "admin@test.com");
    world.run("get projects -o jsonpath={.items[").fails(
        2,
        "cannot read the command line",
        "jsonpath",
        "mcpctl get --help",
    );
}
