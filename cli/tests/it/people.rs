//! Users, groups, service accounts, sessions, secrets: those who may do things, and what they must not show.

use crate::node::{ADMIN, PASSWORD};
use crate::world::{Said, World, words};

fn with(world: &World, line: &str, input: &str) -> Said {
    world.run_with(&[("MCPCTL_SERVER", &world.url)], &words(line), input)
}

fn login(world: &World, email: &str, password: &str) -> Said {
    let line = format!("login --server {} -u {email} --password-stdin", world.url);
    world.run_with(&[("MCPCTL_SESSION", "")], &words(&line), password)
}

#[test]
fn a_user_is_disabled_renamed_and_deleted() {
    let world = World::new();
    with(&world, "create user bob@test.com --name Bob --password-stdin", PASSWORD).done();
    login(&world, "bob@test.com", PASSWORD).done();
    let file = |text: &str| with(&world, "apply -f -", text).done().out;
    let changed = file("kind: user\nmetadata: {name: bob@test.com}\nspec: {name: Robert, disabled: true}\n");
    assert!(
        changed.starts_with("user/bob@test.com configured: effective on 3 of 3"),
        "{changed}"
    );
    login(&world, "bob@test.com", PASSWORD).fails(4, "cannot log in as bob@test.com", "", "mcpctl login");
    assert!(world.run("get user bob@test.com").done().out.contains("Robert"));
    let said = world.run("delete user bob@test.com").done();
    assert_eq!(
        said.out,
        "user \"bob@test.com\" deleted: effective on 3 of 3 replicas (12 ms)\n"
    );
    world
        .run("get user bob@test.com")
        .fails(3, "cannot get user", "does not exist", "mcpctl get users");
    let made = file("kind: user\nemail: Eve@Test.com\nname: Eve\npassword: correct horse battery\ndisabled: true\n");
    assert!(made.starts_with("user/eve@test.com created"), "{made}");
    login(&world, "eve@test.com", PASSWORD).fails(4, "cannot log in", "", "");
}

#[test]
fn a_password_is_changed_by_its_owner_and_reset_by_who_may() {
    let world = World::new();
    with(&world, "create user bob@test.com --password-stdin", PASSWORD).done();
    let said = with(
        &world,
        "passwd bob@test.com --password-stdin",
        "another good password\n",
    )
    .done();
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("", "the password is set; sessions from before are over\n")
    );
    login(&world, "bob@test.com", PASSWORD).fails(4, "cannot log in", "", "");
    login(&world, "bob@test.com", "another good password").done();

    let wrong = format!("wrong\n{PASSWORD} 2\n");
    with(&world, "passwd --password-stdin", &wrong).fails(4, "cannot change the password", "", "");
    with(
        &world,
        "passwd --password-stdin",
        &format!("{PASSWORD}\n{PASSWORD} 2\n"),
    )
    .done();
    login(&world, ADMIN, &format!("{PASSWORD} 2")).done();
    with(&world, "passwd --password-stdin", "one line\n").fails(2, "cannot read the passwords", "two lines", "printf");
    let said = with(&world, "passwd bob@test.com --password-stdin", "short\n");
    said.fails(1, "cannot set the password of bob@test.com", "password: ", "");
}

#[test]
fn a_group_grows_with_force_and_is_described_whole_by_a_file() {
    let world = World::new();
    for name in ["alice", "bob"] {
        world.run(&format!("create user {name}@test.com --no-password")).done();
    }
    world
        .run("create group team --member alice@test.com --description core")
        .done();
    world.run("create group team --member bob@test.com").fails(
        1,
        "cannot create group",
        "exists already",
        "create group team --force",
    );
    world.run("create group team --force --member bob@test.com").done();
    let said = world.run("get group team").done();
    assert!(
        said.out.contains("alice@test.com,bob@test.com") && said.out.contains("core"),
        "{said:?}"
    );
    let yaml = world.run("get group team -o yaml").done().out;
    assert_eq!(with(&world, "apply -f -", &yaml).done().out, "group/team unchanged\n");
    let said = with(
        &world,
        "apply -f -",
        "kind: group\nname: team\nmembers: [bob@test.com]\n",
    )
    .done();
    assert!(said.out.starts_with("group/team configured"), "{said:?}");
    assert!(!world.run("describe group team").done().out.contains("alice"));
    let said = with(
        &world,
        "apply -f -",
        "kind: group\nname: other\nmembers: [carol@test.com]\n",
    );
    said.fails(
        1,
        "cannot apply",
        "members[0]: there is no user \"carol@test.com\"",
        "mcpctl explain group",
    );
    world.run("delete group team").done();
}

#[test]
fn a_service_account_gets_sessions_that_are_listed_and_closed() {
    let world = World::new();
    world.run("create sa deploy --description rollouts").done();
    world
        .run("create rbac deploy --subject ServiceAccount:deploy --roleBindings role:view,resource:projects")
        .done();
    let said = world.run("create session --serviceaccount deploy --ttl 12h").done();
    let session = said.out.trim().to_owned();
    assert!(
        session.starts_with("mcpctl_ses_") && said.out.lines().count() == 1,
        "{said:?}"
    );
    assert!(said.err.contains("copy it now"), "{said:?}");
    let env = [
        ("MCPCTL_SERVER", world.url.as_str()),
        ("MCPCTL_SESSION", session.as_str()),
    ];
    world.run_with(&env, &words("get projects"), "").done();
    world
        .run_with(&env, &words("create project x"), "")
        .fails(4, "cannot create project", "", "mcpctl create rbac");

    let said = world.run("get sessions").done();
    assert!(
        said.out.contains("ServiceAccount:deploy") && !said.out.contains(&session),
        "{said:?}"
    );
    let line = said
        .out
        .lines()
        .find(|line| line.contains("ServiceAccount:deploy"))
        .unwrap();
    let id = line.split_whitespace().next().unwrap();
    assert!(
        world
            .run(&format!("describe session {id}"))
            .done()
            .out
            .contains("ServiceAccount:deploy")
    );
    world.run(&format!("delete session {id}")).done();
    world
        .run_with(&env, &words("get projects"), "")
        .fails(4, "cannot list projects", "", "mcpctl login");
    world.run(&format!("get session {id}")).fails(
        3,
        "cannot get session",
        "there is no session",
        "mcpctl get sessions",
    );
    world
        .run("create session --serviceaccount none")
        .fails(3, "cannot create a session", "does not exist", "");
}

#[test]
fn a_secret_is_written_from_files_and_never_shown() {
    let world = World::new();
    let file = std::path::Path::new(world.home()).join("token.txt");
    std::fs::write(&file, "c4nary-one\n").unwrap();
    let env_file = std::path::Path::new(world.home()).join("env");
    std::fs::write(&env_file, "# comment\nuser=bot\n\npass=c4nary=two\n").unwrap();
    let line = format!(
        "create secret git --from-file token={} --from-env-file {}",
        file.display(),
        env_file.display()
    );
    let mut said = vec![world.run(&line).done()];
    said.push(
        with(
            &world,
            "create secret git --from-file extra=- --force",
            "c4nary-three\n",
        )
        .done(),
    );
    said.push(with(&world, "rotate secret git --key token --from-file -", "c4nary-four\n").done());
    for line in [
        "get secrets",
        "get secrets -o wide",
        "get secret git -o json",
        "get secret git -o yaml",
        "describe secret git",
    ] {
        said.push(world.run(line).done());
    }
    assert!(said[3].out.contains("extra,pass,token,user"), "{said:?}");
    let yaml = said[6].out.clone();
    said.push(with(&world, "apply -f -", &yaml).done());
    assert_eq!(said.last().unwrap().out, "secret/git unchanged\n");
    let text = "kind: secret\nname: git\ndata: {token: c4nary-five}\n";
    let diff = with(&world, "diff -f -", text);
    assert_eq!(diff.code, 1);
    said.extend([
        diff,
        with(&world, "apply -f -", text).done(),
        world.run("get secret git").done(),
    ]);
    assert!(said.last().unwrap().out.contains("   token   "), "{said:?}");
    said.push(with(&world, "apply -f -", "kind: secret\nname: new\n"));
    assert!(
        said.last().unwrap().err.contains("data: there is no such secret yet"),
        "{said:?}"
    );
    said.push(world.run("create secret x --from-literal a=c4nary-six"));
    said.push(with(
        &world,
        "create secret x --from-env-file -",
        "no equals sign c4nary-seven",
    ));
    assert_eq!(said.last().unwrap().code, 2);
    for said in &said {
        assert!(!said.out.contains("c4nary") && !said.err.contains("c4nary"), "{said:?}");
    }
    world.run("edit secret git").fails(
        2,
        "cannot edit secret",
        "cannot be read back",
        "mcpctl rotate secret git",
    );
}

#[test]
fn servers_refer_to_secrets_in_files() {
    let world = World::new();
    let text = "kind: server\nname: git\ncommand: x\nenv: {TOKEN: '${secret:git/token}'}\n";
    let said = with(&world, "apply -f -", text);
    said.fails(
        1,
        "cannot apply",
        "env.TOKEN: there is no secret \"git\"",
        "mcpctl explain server",
    );
    let both = format!("{text}---\nkind: secret\nname: git\ndata: {{token: abc}}\n");
    let said = with(&world, "apply -f -", &both).done();
    assert_eq!(said.out, "secret/git created\nserver/git created\n");
    assert_eq!(with(&world, "apply -f -", text).done().out, "server/git unchanged\n");
}

#[test]
fn a_context_that_is_named_goes_before_the_environment() {
    let world = World::new();
    let run = |line: &str| {
        let env = [
            ("MCPCTL_SERVER", "http://127.0.0.1:1"),
            ("MCPCTL_SESSION", "mcpctl_ses_other"),
        ];
        world.run_with(&env, &words(line), "")
    };
    login(&world, ADMIN, PASSWORD).done();
    run("get projects").fails(1, "cannot list projects", "no node answers", "mcpctl config view");
    run("get projects --context default").done();
    run("--context default get projects").done();
    run("--context none get projects").fails(
        2,
        "cannot choose the cluster",
        "no context \"none\"",
        "mcpctl config get-contexts",
    );
    let file = world.config();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let said = run("--context default get projects").done();
    assert!(
        said.err.starts_with("warning: others can read") && said.err.contains("chmod 600"),
        "{said:?}"
    );
}
