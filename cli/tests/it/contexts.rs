//! Logging in and keeping contexts.

use std::os::unix::fs::PermissionsExt;

use crate::node::{ADMIN, PASSWORD};
use crate::world::{World, words};

#[test]
fn a_login_is_kept_for_its_owner_alone_and_serves_later_commands() {
    let world = World::without_session();
    let line = words(&format!(
        "login --server {} --email {ADMIN} --password-stdin",
        world.url
    ));
    let said = world.run_with(&[], &line, &format!("{PASSWORD}\n")).done();
    assert_eq!(said.out, "");
    assert!(
        said.err
            .starts_with("logged in as admin@test.com in context \"default\""),
        "{said:?}"
    );
    let mode = std::fs::metadata(world.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(world.config()).unwrap();
    assert!(text.contains("mcpctl_ses_") && !text.contains(PASSWORD));

    let said = world.run_with(&[], &words("whoami"), "").done();
    assert!(
        said.out.contains("admin@test.com") && said.out.contains("role:admin,resource:*"),
        "{said:?}"
    );
    let said = world.run_with(&[], &words("config view"), "").done();
    assert!(
        said.out.contains("(hidden)") && !said.out.contains("mcpctl_ses_"),
        "{said:?}"
    );
    assert!(
        world
            .run_with(&[], &words("config get-contexts"), "")
            .done()
            .out
            .contains("*         default")
    );

    // The session is for the nodes that opened it.
    let (_listener, elsewhere) = world.frozen();
    let said = world.run_with(&[("MCPCTL_SERVER", &elsewhere)], &words("get projects"), "");
    said.fails(4, "cannot list projects", "not logged in", "mcpctl login");

    world.run_with(&[], &words("logout"), "").done();
    assert!(!std::fs::read_to_string(world.config()).unwrap().contains("mcpctl_ses_"));
    world
        .run_with(&[], &words("whoami"), "")
        .fails(4, "cannot find out who you are", "not logged in", "mcpctl login");
}

#[test]
fn a_wrong_password_leaves_with_4_and_changes_nothing() {
    let world = World::without_session();
    let line = words(&format!(
        "login --server {} --email {ADMIN} --password-stdin",
        world.url
    ));
    world
        .run_with(&[], &line, "wrong")
        .fails(4, "cannot log in as admin@test.com", "wrong", "");
    assert!(!world.config().exists());
}

#[test]
fn contexts_are_set_used_and_named() {
    let world = World::new();
    world
        .run_with(
            &[],
            &words("config set-context a --server http://127.0.0.1:1,http://127.0.0.1:2"),
            "",
        )
        .done();
    world
        .run_with(
            &[],
            &words(&format!("config set-context b --server {} -p demo", world.url)),
            "",
        )
        .done();
    let said = world.run_with(&[], &words("config get-contexts -o name"), "").done();
    assert_eq!(said.out, "a\nb\n");
    let said = world.run_with(&[], &words("get projects"), "");
    said.fails(1, "cannot list projects", "http://127.0.0.1:1", "mcpctl config view");
    world.run_with(&[], &words("--context b get projects"), "").done();
    world
        .run_with(&[("MCPCTL_CONTEXT", "b")], &words("get projects"), "")
        .done();
    world.run_with(&[], &words("config use-context b"), "").done();
    world.run_with(&[], &words("get projects"), "").done();
    world
        .run_with(&[], &words("config use-context c"), "")
        .fails(3, "cannot use context", "no such", "get-contexts");
    world
        .run_with(&[], &words("--context c get projects"), "")
        .fails(2, "cannot choose", "no context", "get-contexts");
    let said = world.run_with(&[], &words("config set-context d --server ftp://x"), "");
    said.fails(2, "cannot use", "http", "write it as");
}

#[test]
fn without_any_node_the_first_command_says_how_to_begin() {
    let world = World::new();
    world.run_with(&[], &words("get projects"), "").fails(
        2,
        "cannot choose the cluster",
        "no node is known",
        "mcpctl login",
    );
}

#[test]
fn usage_errors_leave_with_2_and_help_with_0() {
    let world = World::new();
    for line in [
        "get",
        "frobnicate",
        "get projects -o pdf",
        "create project",
        "completion csh",
    ] {
        let path = line.split_whitespace().next().unwrap_or_default();
        let path = if path == "frobnicate" {
            String::new()
        } else {
            format!(" {path}")
        };
        let said = world.run(line);
        said.fails(2, "cannot read the command line", "", &format!("mcpctl{path}"));
    }
    for line in [
        "--help",
        "--version",
        "create --help",
        "create mcptoken --help",
        "completion bash",
        "completion zsh",
    ] {
        let said = world.run(line).done();
        assert!(!said.out.is_empty() && said.err.is_empty(), "{line}");
    }
    world.run("get pods").fails(
        2,
        "cannot tell what \"pods\" is",
        "the kinds are",
        "mcpctl api-resources",
    );
}
