//! `apply`, `diff`, `edit`: files that say what there should be.

use std::os::unix::fs::PermissionsExt;

use crate::node::Mood;
use crate::world::{Said, World, words};

const ALL: &str = "\
kind: mcptoken
metadata: {name: ci}
spec: {project: vllm, roleBindings: [{role: run, resource: servers}], ttl: 30d, description: nightly}
---
apiVersion: mcpctl/v1
kind: project
metadata: {name: vllm}
spec: {description: local inference, servers: [git, time], gated: true, toolNaming: prefixed}
---
kind: rbac
name: developers
subjects: [{kind: User, name: Alice@Test.com}]
roleBindings: [{role: edit, resource: server}, {role: view, resource: servers, name: my-ha}, {action: logs}]
---
kind: server
metadata: {name: git}
spec: {transport: stdio, command: mcp-server-git, args: [--repository, /srv/repo], env: {TZ: UTC}}
---
kind: server
name: time
url: https://time.example/mcp
---
kind: user
metadata: {name: alice@test.com}
spec: {name: Alice}
";

fn apply(world: &World, options: &str, text: &str) -> Said {
    let line = words(&format!("apply -f - {options}"));
    world.run_with(&[("MCPCTL_SERVER", &world.url)], &line, text)
}

#[test]
fn objects_are_made_in_the_order_in_which_they_need_each_other_and_then_left_alone() {
    let world = World::new();
    let said = apply(&world, "--dry-run", ALL).done();
    assert!(
        said.out.lines().all(|line| line.ends_with(" created (dry run)")),
        "{said:?}"
    );
    assert_eq!(world.run("get projects -o name").done().out, "");

    let said = apply(&world, "", ALL).done();
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[..6],
        [
            "user/alice@test.com created",
            "server/git created",
            "server/time created",
            "project/vllm created",
            "rbac/developers created",
            "mcptoken/vllm/ci created",
        ]
    );
    assert!(lines.len() == 7 && lines[6].starts_with("mcpctl_pat_"), "{said:?}");

    let said = apply(&world, "", ALL).done();
    assert_eq!(
        said.out,
        "user/alice@test.com unchanged\nserver/git unchanged\nserver/time unchanged\nproject/vllm unchanged\n\
         rbac/developers unchanged\nmcptoken/vllm/ci already active - skipped\n"
    );
    let said = apply(
        &world,
        "",
        &ALL.replace("[git, time]", "[git]").replace("TZ: UTC", "TZ: CET"),
    )
    .done();
    assert!(
        said.out
            .contains("server/git configured: effective on 3 of 3 replicas (12 ms)\n")
            && said
                .out
                .contains("project/vllm configured: effective on 3 of 3 replicas (12 ms)\n")
            && said.out.contains("server/time unchanged\n"),
        "{said:?}"
    );
}

#[test]
fn what_get_prints_is_what_apply_takes() {
    let world = World::new();
    apply(&world, "", ALL).done();
    for line in [
        "get project vllm",
        "get servers",
        "get rbac",
        "get users",
        "get mcptokens",
        "get mcptoken ci -p vllm",
    ] {
        let yaml = world.run(&format!("{line} -o yaml")).done().out;
        let said = apply(&world, "", &yaml).done();
        let untouched = |l: &str| l.ends_with(" unchanged") || l.ends_with(" already active - skipped");
        assert!(
            !said.out.is_empty() && said.out.lines().all(untouched),
            "{line}: {yaml}\n{said:?}"
        );
    }
}

#[test]
fn rights_that_are_lacking_are_told_before_anything_is_changed() {
    let world = World::new();
    let admin = [("MCPCTL_SERVER", world.url.as_str())];
    world
        .run_with(
            &admin,
            &words("create user bob@test.com --password-stdin"),
            crate::node::PASSWORD,
        )
        .done();
    world.run("create rbac bob --subject User:bob@test.com --roleBindings role:edit,resource:projects --roleBindings role:edit,resource:servers,name:my-* --roleBindings role:view,resource:rbac").done();
    let line = words(&format!(
        "login --server {} -u bob@test.com --password-stdin",
        world.url
    ));
    world
        .run_with(&[("MCPCTL_SESSION", "")], &line, crate::node::PASSWORD)
        .done();
    let as_bob = |text: &str| world.run_with(&[("MCPCTL_SESSION", "")], &words("apply -f -"), text);
    let said = as_bob(
        "kind: project\nname: p\n---\nkind: server\nname: my-x\ncommand: x\n---\nkind: server\nname: my-y\nurl: https://y\n---\nkind: rbac\nname: r\nsubjects: [{kind: User, name: bob@test.com}]\nroleBindings: [{action: logs}]\n",
    );
    let said = said.fails(
        4,
        "cannot apply the documents",
        "2 faults, nothing was changed",
        "mcpctl auth can-i --list",
    );
    for part in [
        "document 2: server/my-x: you lack action:exec",
        "document 4: rbac/r: you lack role:admin,resource:rbac",
    ] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    assert_eq!(world.run("get projects -o name").done().out, "");
    as_bob("kind: project\nname: p\n---\nkind: server\nname: my-y\nurl: https://y\n").done();
    // Part of the truth is said to be a part.
    let all = world
        .run_with(&[("MCPCTL_SESSION", "")], &words("get all -o name"), "")
        .done();
    assert_eq!(all.out, "server/my-y\nproject/p\nrbac/admin\nrbac/bob\n");
    assert!(
        all.err.contains("note: secrets are left out: bob@test.com lacks"),
        "{all:?}"
    );
}

#[test]
fn everything_can_be_written_to_a_file_and_applied() {
    let world = World::new();
    apply(&world, "", ALL).done();
    world.run("revoke mcptoken ci -p vllm").done();
    world.run("create mcptoken ci -p vllm").done();
    world.run("create sa deploy").done();
    world.run("create session --serviceaccount deploy").done();
    let yaml = world.run("get all -o yaml").done().out;
    let said = apply(&world, "", &yaml).done();
    let untouched = |l: &str| l.ends_with(" unchanged") || l.ends_with(" already active - skipped");
    assert!(
        said.out.lines().count() == 9 && said.out.lines().all(untouched),
        "{yaml}\n{said:?}"
    );
    let names = world.run("get all -o name").done().out;
    let applied: Vec<&str> = said.out.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names.lines().collect::<Vec<_>>(), applied);
    let picked = world
        .run("get all -o 'jsonpath={.items[?@.kind==\"server\"].metadata.name}'")
        .done()
        .out;
    assert_eq!(picked, "git time");
    let table = world.run("get all").done().out;
    assert!(
        table.starts_with("USERS\nEMAIL ") && table.contains("\n\nMCPTOKENS\nNAME "),
        "{table}"
    );
}

#[test]
fn every_fault_is_reported_before_anything_is_changed() {
    let world = World::new();
    let text = "kind: project\nname: good\n---\nkind: project\nname: BAD\nspeed: 1\n---\nkind: pod\nname: x\n";
    let said = apply(&world, "", text).fails(
        1,
        "cannot apply the documents",
        "3 faults, nothing was changed",
        "mcpctl explain project",
    );
    for part in [
        "  standard input, document 2: speed: unknown field",
        "  standard input, document 2: name: a name is made of",
        "  standard input, document 3: kind: \"pod\"",
    ] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    let text = "kind: project\nname: a\nservers: [one, two]\n---\nkind: server\nname: one\ncommand: x\n---\nkind: mcptoken\nname: t\nproject: gone\n";
    let said = apply(&world, "", text).fails(1, "cannot apply", "2 faults, nothing was changed", "mcpctl explain");
    assert!(
        said.err.contains("document 1: servers[1]: there is no server \"two\"")
            && said.err.contains("document 3: project: there is no project \"gone\""),
        "{said:?}"
    );
    assert_eq!(world.run("get projects -o name").done().out, "");
    let said = world.run("apply -f /nowhere/a.yaml");
    said.fails(2, "cannot read /nowhere/a.yaml", "No such file", "ls -l");
}

#[test]
fn files_and_directories_are_read_in_order_and_json_too() {
    let world = World::new();
    let dir = world.config().parent().unwrap().join("files");
    std::fs::create_dir_all(dir.join("deep")).unwrap();
    std::fs::write(dir.join("b.yml"), "kind: project\nname: b\nservers: [s]\n").unwrap();
    std::fs::write(
        dir.join("a.json"),
        r#"{"kind": "server", "metadata": {"name": "s"}, "spec": {"command": "x"}}"#,
    )
    .unwrap();
    std::fs::write(dir.join("notes.txt"), "not: [yaml").unwrap();
    std::fs::write(dir.join("deep/c.yaml"), "kind: project\nname: c\n").unwrap();
    let said = world.run(&format!("apply -f {}", dir.display())).done();
    assert_eq!(said.out, "server/s created\nproject/b created\n");
    let said = world.run(&format!("apply -R -f {}", dir.display())).done();
    assert_eq!(said.out, "server/s unchanged\nproject/b unchanged\nproject/c created\n");
    std::fs::create_dir_all(dir.join("empty")).unwrap();
    let said = world.run(&format!("apply -f {}/empty", dir.display()));
    said.fails(
        1,
        "cannot read the documents",
        "there is no document",
        "mcpctl apply --help",
    );
}

#[test]
fn a_revoked_name_is_minted_again_only_with_force_and_a_token_can_go_into_a_file() {
    let world = World::new();
    world.run("create project vllm").done();
    let token = "kind: mcptoken\nname: ci\nprojectName: vllm\nrbac: clone\n";
    let file = std::path::Path::new(world.home()).join("ci.token");
    let option = format!("--token-out {}", file.display());
    let said = apply(&world, &option, token).done();
    assert_eq!(said.out, "mcptoken/vllm/ci created\n");
    let first = std::fs::read_to_string(&file).unwrap();
    assert!(first.starts_with("mcpctl_pat_") && first.ends_with('\n') && first.lines().count() == 1);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    world.run("revoke mcptoken ci -p vllm").done();
    let said = apply(&world, &option, token).done();
    assert_eq!(
        said.out,
        "mcptoken/vllm/ci revoked - skipped (--force mints a new one)\n"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first);
    apply(&world, &format!("{option} --force"), token).done();
    assert_ne!(std::fs::read_to_string(&file).unwrap(), first);

    let two = "kind: mcptoken\nname: a\nproject: vllm\n---\nkind: mcptoken\nname: b\nproject: vllm\n";
    apply(&world, &option, two).fails(2, "cannot keep tokens", "2 tokens", "mkdir -p");
    let dir = file.with_extension("d");
    std::fs::create_dir_all(&dir).unwrap();
    apply(&world, &format!("--token-out {}", dir.display()), two).done();
    let mut names: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["vllm.a", "vllm.b"]);
    apply(
        &world,
        "--token-out /nowhere/t",
        "kind: mcptoken\nname: c\nproject: vllm\n",
    )
    .fails(2, "cannot keep tokens", "no such directory", "mkdir -p /nowhere");
    world
        .run("get mcptoken c -p vllm")
        .fails(3, "cannot get", "has no mcptoken", "");
}

#[test]
fn an_apply_that_is_not_effective_everywhere_leaves_with_6() {
    let world = World::new();
    world.run("create server s --command x").done();
    world.run("create project p --server s").done();
    world.node.mood(Mood::OnePending);
    let said = apply(&world, "", "kind: project\nname: p\n");
    assert_eq!(
        (said.code, said.out.as_str()),
        (6, "project/p configured\n"),
        "{said:?}"
    );
}

#[test]
fn a_diff_shows_what_would_change_and_says_so_with_its_exit_code() {
    let world = World::new();
    let diff = |text: &str| world.run_with(&[("MCPCTL_SERVER", &world.url)], &words("diff -f -"), text);
    let said = diff("kind: project\nname: p\ndescription: old\n");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("+  description: old\n"), "{said:?}");
    world.run("create project p --description old").done();
    let said = diff("kind: project\nname: p\ndescription: old\n").done();
    assert_eq!(said.out, "");
    let said = diff("kind: project\nname: p\ndescription: new\n");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out
            .starts_with("--- live/project/p\n+++ standard input, document 1: project/p\n")
            && said.out.contains("-  description: old\n+  description: new\n"),
        "{said:?}"
    );
    diff("kind: project\nname: P\n").fails(
        2,
        "cannot compare the documents",
        "nothing was changed",
        "mcpctl explain project",
    );
}

#[test]
fn an_edit_is_written_back_and_opened_again_with_what_is_wrong() {
    let world = World::new();
    world.run("create project p --description old").done();
    let edit = |script: &str| {
        let env = [
            ("MCPCTL_SERVER", world.url.as_str()),
            ("EDITOR", script),
            ("TMPDIR", world.home()),
        ];
        world.run_with(&env, &words("edit project p"), "")
    };
    assert_eq!(edit("true").done().out, "project/p unchanged\n");
    assert_eq!(edit("sed -i s/old/new/").done().out, "project/p configured\n");
    assert!(
        world
            .run("describe project p")
            .done()
            .out
            .contains("Description:   new\n")
    );
    // First the wrong value; opened again with the fault above, the right one.
    let twice = "f() { if grep -q '# error: spec.toolNaming\\|# error: toolNaming' \"$1\"; then sed -i s/odd/plain/ \"$1\"; \
        else sed -i s/prefixed/odd/ \"$1\"; fi; }; f";
    assert_eq!(edit(twice).done().out, "project/p configured\n");
    assert!(
        world
            .run("get project p -o yaml")
            .done()
            .out
            .contains("toolNaming: plain")
    );
    // Somebody changes it while the editor is open.
    let line = format!(
        "f() {{ if grep -q 'somebody changed it' \"$1\"; then sed -i s/mine/both/ \"$1\"; else {} create project p --force --description theirs >&2; \
         sed -i s/new/mine/ \"$1\"; fi; }}; f",
        env!("CARGO_BIN_EXE_mcpctl")
    );
    assert_eq!(edit(&line).done().out, "project/p configured\n");
    assert!(
        world
            .run("describe project p")
            .done()
            .out
            .contains("Description:   both\n")
    );
    edit("sed -i s/p/q/;").fails(1, "cannot edit project \"p\"", "the editor", "mcpctl edit project p");
    let said = edit("sed -i s/^kind:.*/kind:\\ pod/");
    said.fails(
        1,
        "cannot edit project \"p\"",
        "nothing was changed: kind: \"pod\"",
        "mcpctl apply -f",
    );
    world
        .run("edit mcptoken ci")
        .fails(2, "cannot edit mcptoken \"ci\"", "immutable", "--force");
}
