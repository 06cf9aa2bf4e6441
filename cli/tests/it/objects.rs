//! Projects, servers, definitions, users.

use crate::node::PASSWORD;
use crate::world::{World, words};

#[test]
fn a_project_is_made_shown_updated_and_deleted() {
    let world = World::new();
    world
        .run("create server time --transport stdio --command uvx --arg mcp-server-time --arg -v --env TZ=UTC")
        .done();
    world
        .run("create server wiki --url https://wiki.example/mcp --header 'X-Team: core'")
        .done();
    let said = world
        .run("create project demo --server time --server wiki --tool-naming plain")
        .done();
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("project \"demo\" created\n", "")
    );

    let said = world.run("get servers").done();
    let lines: Vec<&str> = said.out.lines().collect();
    let heading = "NAME   TRANSPORT   HEALTH    TOOLS   AGE   TARGET                     DESCRIPTION";
    assert_eq!(lines[0], heading);
    assert_eq!(
        lines[1],
        "time   stdio       unknown   -       -     uvx mcp-server-time -v"
    );
    assert_eq!(
        lines[2],
        "wiki   http        unknown   -       -     https://wiki.example/mcp"
    );
    let said = world.run("describe server/time").done();
    assert!(
        said.out.contains("Environment:     TZ=UTC\n") && said.out.contains("Health:          not asked yet\n"),
        "{said:?}"
    );

    let said = world.run("get project demo -o yaml").done();
    assert_eq!(
        said.out,
        "apiVersion: mcpctl/v1\nkind: project\nmetadata:\n  name: demo\nspec:\n  gated: true\n  servers:\n  - time\n  - wiki\n  toolNaming: plain\n"
    );
    let json: serde_json::Value = serde_json::from_str(&world.run("get project demo -o json").done().out).unwrap();
    assert_eq!(
        (json["name"].as_str(), json["createdBy"].as_str()),
        (Some("demo"), Some("admin@test.com"))
    );
    assert_eq!(
        world
            .run_with(
                &[("MCPCTL_SERVER", &world.url), ("MCPCTL_OUTPUT", "name")],
                &words("get project"),
                ""
            )
            .done()
            .out,
        "project/demo\n"
    );

    world
        .run("create project demo")
        .fails(1, "cannot create project \"demo\"", "exists already", "--force");
    let said = world.run("create project demo --force --description new").done();
    assert_eq!(said.out, "project \"demo\" updated\n");
    assert!(
        world
            .run("describe project demo")
            .done()
            .out
            .contains("Servers:       time,wiki\n")
    );
    let said = world.run("create project demo --force --server wiki").done();
    assert_eq!(
        said.out,
        "project \"demo\" updated: effective on 3 of 3 replicas (12 ms)\n"
    );

    let said = world.run("delete project demo").done();
    assert_eq!(
        said.out,
        "project \"demo\" deleted: effective on 3 of 3 replicas (12 ms)\n"
    );
    world.run("get project demo").fails(
        3,
        "cannot get project \"demo\"",
        "does not exist",
        "mcpctl get projects",
    );
    world.run("delete server time wiki").done();
    assert_eq!(world.run("get servers").done().err, "no servers\n");
}

#[test]
fn faults_are_listed_with_their_fields() {
    let world = World::new();
    let said = world.run("create server BAD --transport http --url ftp://x --connect-ms 0");
    let said = said.fails(1, "cannot create server \"BAD\"", "3 fields", "");
    for field in ["  name: ", "  url: ", "  connectMs: "] {
        assert!(said.err.contains(field), "{said:?}");
    }
    world
        .run("create server x")
        .fails(2, "cannot create server", "--command", "mcpctl create server x");
}

#[test]
fn values_from_files_need_not_be_arguments() {
    let world = World::new();
    let file = world.config().parent().unwrap().join("secret");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "s3cret\n").unwrap();
    world
        .run(&format!("create server a --command x --env KEY=@{}", file.display()))
        .done();
    assert!(world.run("get server a -o json").done().out.contains("s3cret"));
    world
        .run("create server b --command x --env KEY=@/nowhere")
        .fails(2, "cannot read --env", "/nowhere", "");
    world
        .run("create server b --command x --env KEY")
        .fails(2, "cannot read --env", "KEY=VALUE", "");
}

#[test]
fn rights_are_granted_as_the_original_writes_it() {
    let world = World::new();
    let line = "create rbac developers --subject User:alice@test.com \
        --roleBindings role:edit,resource:servers --roleBindings role:view,resource:servers,name:my-ha --roleBindings action:logs";
    assert_eq!(world.run(line).done().out, "rbac \"developers\" created\n");
    let said = world.run("get rbac developers").done();
    let row = said.out.lines().nth(1).unwrap();
    assert!(
        row.ends_with("role:edit,resource:servers role:view,resource:servers,name:my-ha action:logs"),
        "{said:?}"
    );
    let said = world.run("create rbac x --subject User:a@b --binding edit:servers --operation logs");
    said.fails(
        2,
        "cannot create rbac",
        "are gone",
        "--roleBindings role:edit,resource:servers --roleBindings action:logs",
    );
    let said = world.run("create rbac x --subject User:a@b --roleBindings role:king,resource:servers");
    said.fails(
        2,
        "cannot read --roleBindings",
        "unknown role",
        "--roleBindings role:view",
    );
    world
        .run("create rbac x --subject alice --roleBindings action:logs")
        .fails(2, "cannot read --subject", "User:EMAIL", "");
    let said = world.run("delete rbac admin");
    said.fails(1, "cannot delete rbac \"admin\"", "administrator", "");
}

#[test]
fn another_user_logs_in_and_asks_what_they_may_do() {
    let world = World::new();
    let env = [("MCPCTL_SERVER", world.url.as_str())];
    world
        .run_with(
            &env,
            &words("create user bob@test.com --name Bob --password-stdin"),
            PASSWORD,
        )
        .done();
    world
        .run("create rbac bob --subject User:bob@test.com --roleBindings role:run,resource:servers,name:git")
        .done();
    world
        .run_with(&env, &words("login -u bob@test.com --password-stdin"), PASSWORD)
        .done();
    let as_bob = |line: &str| {
        world.run_with(
            &[("MCPCTL_SERVER", &world.url), ("MCPCTL_SESSION", "")],
            &words(line),
            "",
        )
    };
    assert_eq!(as_bob("auth can-i run servers git").done().out, "yes\n");
    let said = as_bob("auth can-i create servers");
    assert_eq!((said.code, said.out.as_str()), (1, "no\n"));
    assert_eq!(said.err, "it takes role:create,resource:servers\n");
    assert_eq!(as_bob("auth can-i exec").code, 1);
    as_bob("auth can-i run").fails(2, "cannot ask", "of what", "mcpctl auth can-i run servers");
    as_bob("get users").fails(
        4,
        "cannot list users",
        "bob@test.com lacks role:view,resource:users",
        "mcpctl create rbac NAME --subject User:bob@test.com --roleBindings role:view,resource:users",
    );
}
