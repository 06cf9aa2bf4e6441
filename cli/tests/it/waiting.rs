//! `--timeout` and `--no-wait` of every command that may take a right away.

use std::time::Duration;

use mcpd::WaitFor;

use crate::node::Mood;
use crate::world::{World, words};

/// What takes something away; `{n}` is another number each time. What has to be there before, and what comes in on standard input.
struct Row(&'static str, &'static [&'static str], &'static str);

const TOKEN: &str = "create mcptoken t{n} -p demo --bind role:run,resource:servers";

const ROWS: [Row; 19] = [
    Row("revoke mcptoken t{n} -p demo", &[TOKEN], ""),
    Row("delete mcptoken t{n} -p demo", &[TOKEN], ""),
    Row("rotate mcptoken t{n} -p demo", &[TOKEN], ""),
    Row("create mcptoken t{n} -p demo --force", &[TOKEN], ""),
    Row("delete project p{n}", &["create project p{n}"], ""),
    Row(
        "create project p{n} --force --server s{n}b",
        &[
            "create server s{n} --command a",
            "create server s{n}b --command a",
            "create project p{n} --server s{n}",
        ],
        "",
    ),
    Row("delete server s{n}", &["create server s{n} --command a"], ""),
    Row(
        "create server s{n} --command b --force",
        &["create server s{n} --command a", "create project p{n} --server s{n}"],
        "",
    ),
    Row(
        "delete user u{n}@test.com",
        &["create user u{n}@test.com --no-password"],
        "",
    ),
    Row("delete group g{n}", &["create group g{n} --member admin@test.com"], ""),
    Row(
        "create group g{n} --force --description none",
        &["create group g{n}"],
        "",
    ),
    Row("delete serviceaccount a{n}", &["create serviceaccount a{n}"], ""),
    Row(
        "delete rbac r{n}",
        &["create rbac r{n} --subject User:admin@test.com --roleBindings role:edit,resource:servers"],
        "",
    ),
    Row(
        "create rbac r{n} --force --subject User:admin@test.com --roleBindings role:view,resource:servers",
        &["create rbac r{n} --subject User:admin@test.com --roleBindings role:edit,resource:servers"],
        "",
    ),
    Row(
        "edit rbac r{n}",
        &["create rbac r{n} --subject User:admin@test.com --roleBindings role:edit,resource:servers"],
        "",
    ),
    Row(
        "delete secret x{n}",
        &["create secret x{n} --from-file k=/dev/null"],
        "",
    ),
    Row(
        "rotate secret x{n} --key k --from-file -",
        &["create secret x{n} --from-file k=/dev/null"],
        "new",
    ),
    Row(
        "passwd u{n}@test.com --password-stdin",
        &["create user u{n}@test.com --no-password"],
        "correct horse battery",
    ),
    Row(
        "apply -f -",
        &["create group g{n} --member admin@test.com"],
        "kind: group\nmetadata: {name: g{n}}\nspec: {members: []}\n",
    ),
];

/// Runs a command in a mood; its code, all that it said, and how the write was to be waited for.
fn run(world: &World, line: &str, input: &str, mood: Mood) -> (i32, String, Option<(WaitFor, Duration)>) {
    let writer = &world.node.writer;
    *writer.mood.lock().unwrap() = mood;
    *writer.asked.lock().unwrap() = None;
    let env = [("MCPCTL_SERVER", world.url.as_str()), ("EDITOR", "sed -i s/edit/view/")];
    let said = world.run_with(&env, &words(line), input);
    *writer.mood.lock().unwrap() = Mood::Fine;
    let asked = *writer.asked.lock().unwrap();
    (said.code, said.out + &said.err, asked)
}

#[test]
fn whatever_takes_a_right_away_can_be_waited_for_shorter_longer_or_not_at_all() {
    let world = World::new();
    world.run("create project demo").done();
    let mut not_yet = 0;
    for (at, Row(line, before, input)) in ROWS.iter().enumerate() {
        let number = |more: usize| (at * 10 + more).to_string();
        for (more, flags, wait, seconds) in [
            (0, "", WaitFor::Effective, 15),
            (1, "--timeout 2m", WaitFor::Effective, 120),
            (2, "--no-wait", WaitFor::Committed, 15),
        ] {
            let fill = |text: &str| text.replace("{n}", &number(more));
            for line in *before {
                world.run(&fill(line)).done();
            }
            let line = format!("{} {flags}", fill(line));
            let (code, said, asked) = run(&world, &line, &fill(input), Mood::OnePending);
            assert_eq!(asked, Some((wait, Duration::from_secs(seconds))), "{line}: {said}");
            match flags {
                "--no-wait" => assert!(code == 0 && !said.contains("error"), "{line}: {said}"),
                // Where nobody had anything to lose, nobody has to be waited for.
                _ if code == 0 => assert!(!said.contains("not yet effective"), "{line}: {said}"),
                _ => {
                    assert!(
                        code == 6 && said.contains("not yet effective everywhere"),
                        "{line}: {said}"
                    );
                    not_yet += 1;
                }
            }
            if flags == "--no-wait" && line.starts_with("rotate mcptoken") {
                assert!(said.contains("committed, and not waited for"), "{line}: {said}");
            }
        }
    }
    assert!(not_yet >= 24, "only {not_yet} of the commands took a right away");
}

#[test]
fn a_time_to_wait_that_makes_no_sense_is_refused_before_anything_is_sent() {
    let world = World::new();
    for (flags, why) in [
        ("--timeout 0", "between 1s and 5m"),
        ("--timeout 6m", "between 1s and 5m"),
        ("--timeout soon", "write 30s, 5m or 1h"),
        ("--timeout 5s --no-wait", "cannot be used with"),
    ] {
        let said = world.run(&format!("delete project demo {flags}"));
        assert!(said.code == 2 && said.err.contains(why), "{flags}: {said:?}");
    }
}

#[test]
fn a_session_that_is_closed_is_waited_for_too() {
    for (flags, code, words) in [
        ("", 6, "not yet effective everywhere"),
        ("--timeout 1s", 6, "not yet effective everywhere"),
        ("--no-wait", 0, "committed, and not waited for"),
    ] {
        let world = World::new();
        let (ended, said, _) = run(&world, &format!("logout {flags}"), "", Mood::OnePending);
        assert!(ended == code && said.contains(words), "{flags}: {said}");
    }
}
