//! Tokens: made, shown once, revoked with a receipt.

use crate::node::Mood;
use crate::world::{Said, World};

fn with_project() -> World {
    let world = World::new();
    world.run("create project vllm --force").done();
    world
}

fn token_of(said: &Said) -> String {
    let lines: Vec<&str> = said.out.lines().collect();
    let [token] = lines.as_slice() else {
        panic!("not one line: {said:?}")
    };
    assert!(token.starts_with("mcpctl_pat_"), "{said:?}");
    (*token).to_owned()
}

#[test]
fn the_token_stands_alone_on_its_line_and_the_talk_on_stderr() {
    let world = with_project();
    let said = world
        .run("create mcptoken ci -p vllm --bind role:run,resource:servers --ttl 30d --description nightly")
        .done();
    let token = token_of(&said);
    assert_eq!(
        said.err,
        "mcptoken \"ci\" created in project \"vllm\": copy it now, it is not shown again\n"
    );
    let said = world.run("get mcptokens").done();
    let lines: Vec<&str> = said.out.lines().collect();
    let headings: Vec<&str> = lines[0].split("   ").map(str::trim).filter(|h| !h.is_empty()).collect();
    assert_eq!(
        headings,
        ["NAME", "PROJECT", "PREFIX", "CREATED", "LAST USED", "EXPIRES", "STATUS"]
    );
    assert!(
        lines[1].contains(&token[..15]) && lines[1].ends_with("active"),
        "{said:?}"
    );
    assert!(!said.out.contains(&token));
    let said = world.run("describe mcptoken ci -p vllm").done();
    assert!(
        said.out.contains("Bindings:     role:run,resource:servers\n"),
        "{said:?}"
    );
    let said = world.run("get mcptoken ci -p vllm -o yaml").done();
    assert!(
        said.out.contains("kind: mcptoken") && !said.out.contains("sha") && !said.out.contains("id:"),
        "{said:?}"
    );
}

#[test]
fn a_token_that_can_do_little_says_so() {
    let world = with_project();
    let said = world.run("create mcptoken none -p vllm").done();
    assert!(
        said.err.contains("hint: this token has no bindings")
            && said.err.contains("mcpctl create mcptoken none -p vllm --force"),
        "{said:?}"
    );
    let said = world
        .run("create mcptoken see -p vllm --bind role:view,resource:servers")
        .done();
    assert!(said.err.contains("hint: this token only has view"), "{said:?}");
    let said = world.run("create mcptoken all -p vllm --rbac clone").done();
    assert!(!said.err.contains("hint"), "{said:?}");
}

#[test]
fn a_revoke_prints_its_receipt() {
    let world = with_project();
    for name in ["ci", "old", "late"] {
        world
            .run(&format!(
                "create mcptoken {name} -p vllm --bind role:run,resource:servers"
            ))
            .done();
    }
    let said = world.run("revoke mcptoken ci -p vllm").done();
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("mcptoken \"ci\" revoked: refused on 3 of 3 replicas (12 ms)\n", "")
    );
    let said = world.run("revoke mcptoken ci -p vllm").done();
    assert_eq!(
        said.out,
        "mcptoken \"ci\" was revoked before: refused on 3 of 3 replicas (12 ms)\n"
    );
    let said = world.run("revoke mcptoken late -p vllm --no-wait").done();
    assert_eq!(said.out, "mcptoken \"late\" revoked: committed, and not waited for\n");

    world.node.mood(Mood::OneRanOut);
    let said = world.run("delete mcptoken old -p vllm").done();
    assert_eq!(
        said.out,
        "mcptoken \"old\" revoked: refused on 3 of 3 replicas (2104 ms); node-3 unreachable: its lease ran out after 2.1 s\n\
         mcptoken \"old\" deleted\n"
    );
    world.run("get mcptoken old -p vllm").fails(
        3,
        "cannot get mcptoken \"old\"",
        "no mcptoken",
        "mcpctl get mcptokens -p vllm",
    );
}

#[test]
fn a_revoke_that_is_not_effective_everywhere_leaves_with_6_and_can_be_repeated() {
    let world = with_project();
    world.run("create mcptoken ci -p vllm").done();
    world.node.mood(Mood::OnePending);
    let said = world.run("revoke mcptoken ci -p vllm");
    let said = said.fails(
        6,
        "mcptoken \"ci\" revoked, but not yet effective everywhere",
        "refused on 2 of 3 replicas",
        "mcpctl revoke mcptoken ci -p vllm (safe to repeat)",
    );
    assert!(
        said.err.contains("node-3 has not confirmed and may still hold a lease"),
        "{said:?}"
    );
    world.node.mood(Mood::Fine);
    world.run("revoke mcptoken ci -p vllm").done();
}

#[test]
fn force_revokes_the_token_of_that_name_and_makes_another() {
    let world = with_project();
    let first = token_of(&world.run("create mcptoken ci -p vllm").done());
    world
        .run("create mcptoken ci -p vllm")
        .fails(1, "cannot create mcptoken \"ci\"", "exists already", "--force");
    let said = world.run("create mcptoken ci -p vllm --force").done();
    assert_ne!(token_of(&said), first);
    assert!(
        said.err
            .contains("before it is revoked: refused on 3 of 3 replicas (12 ms)"),
        "{said:?}"
    );
    world.node.mood(Mood::OnePending);
    let said = world.run("create mcptoken ci -p vllm --force");
    assert_eq!(said.code, 6, "{said:?}");
    token_of(&said);
}

#[test]
fn a_mint_whose_answer_was_lost_is_not_shown_and_says_what_to_do() {
    let world = with_project();
    world.node.mood(Mood::AnswerLost);
    // The program goes on trying with the same key; by then the answer comes through.
    let said = std::thread::scope(|scope| {
        let running = scope.spawn(|| world.run("create mcptoken ci -p vllm"));
        let before = world.node.replica.auth_index();
        while world.node.replica.auth_index() == before {
            std::thread::yield_now();
        }
        world.node.mood(Mood::Fine);
        running.join().unwrap()
    });
    said.fails(
        6,
        "cannot show mcptoken \"ci\"",
        "not shown twice",
        "mcpctl create mcptoken ci -p vllm --force",
    );
}

#[test]
fn a_token_is_named_with_its_project_or_by_its_id() {
    let world = with_project();
    world.run("create mcptoken ci -p vllm").done();
    world
        .run("get mcptoken ci")
        .fails(2, "cannot get mcptoken \"ci\"", "within a project", "-p PROJECT");
    world.run("get mcptoken vllm/ci").done();
    let wide = world.run("get mcptokens -o wide").done();
    let id = wide
        .out
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap()
        .to_owned();
    assert!(
        world
            .run(&format!("describe mcptoken {id}"))
            .done()
            .out
            .contains("vllm")
    );
    world.run(&format!("delete mcptoken {id}")).done();
    world
        .run("create mcptoken ci")
        .fails(2, "cannot create mcptoken", "belongs to a project", "-p PROJECT");
    let said = world.run("create mcptoken ci -p vllm --bind role:run");
    said.fails(2, "cannot read --bind", "a resource is missing", "--bind role:view");
}
