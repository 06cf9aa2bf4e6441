//! `wait`, `rotate`, `auth can-i` and contexts that go.

use crate::node::Mood;
use crate::world::{World, words};

#[test]
fn a_wait_ends_with_the_state_or_with_124() {
    let world = World::new();
    world.run("create project demo --description one").done();
    world.run("create mcptoken ci -p demo").done();
    let said = world.run("wait project demo --for create").done();
    assert_eq!(said.out, "project/demo create\n");
    world.run("wait project demo --for jsonpath={.description}=one").done();
    world.run("wait project gone --for delete").done();
    world.run("wait node node-1 --for condition=Ready").done();
    let said = world.run("wait mcptoken ci -p demo --for revoked --timeout 3");
    said.fails(
        124,
        "cannot wait for mcptoken \"ci\" any longer",
        "after 3 s: it is active",
        "mcpctl describe mcptoken ci",
    );
    world.run("revoke mcptoken ci -p demo").done();
    world.run("wait mcptoken ci -p demo --for revoked").done();
    world.node.mood(Mood::OnePending);
    let said = world.run("wait mcptoken ci -p demo --for revoked --timeout 3");
    said.fails(124, "cannot wait", "not every replica has confirmed", "mcpctl describe");
    world.node.mood(Mood::Fine);
    world
        .run("wait node node-3 --for ready --timeout 0")
        .fails(124, "cannot wait", "", "");
    world
        .run("wait project demo --for healthy")
        .fails(2, "cannot wait", "create, delete", "mcpctl wait --help");
    let said = world.run("wait project demo --for delete --timeout soon");
    said.fails(
        2,
        "cannot read the command line",
        "write 30s, 5m or 1h",
        "mcpctl wait --help",
    );
}

#[test]
fn a_wait_notices_what_happens_meanwhile() {
    let world = World::new();
    world.run("create project demo").done();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.run("wait project demo --for delete --timeout 30s"));
        world.run("delete project demo").done();
        waiting.join().unwrap().done();
    });
}

#[test]
fn a_rotated_token_is_another_bearer_with_the_same_rights() {
    let world = World::new();
    world.run("create project demo").done();
    let made = world
        .run("create mcptoken ci -p demo --bind role:run,resource:servers --ttl 30d --description nightly")
        .done();
    let before = world.run("get mcptoken ci -p demo -o yaml").done().out;
    let said = world.run("rotate mcptoken ci -p demo").done();
    assert!(said.out.starts_with("mcpctl_pat_") && said.out != made.out, "{said:?}");
    assert!(
        said.err.contains("before it is revoked: refused on 3 of 3 replicas"),
        "{said:?}"
    );
    assert_eq!(world.run("get mcptoken ci -p demo -o yaml").done().out, before);
    world.run("revoke mcptoken ci -p demo").done();
    world.run("rotate mcptoken ci -p demo").fails(
        1,
        "cannot rotate mcptoken \"ci\"",
        "it is revoked",
        "mcpctl create mcptoken ci",
    );
    world
        .run("rotate project demo")
        .fails(2, "cannot rotate", "only tokens and secrets", "mcpctl rotate --help");
}

#[test]
fn rights_are_asked_for_and_listed() {
    let world = World::new();
    assert_eq!(world.run("auth can-i run tools/git/log").done().out, "yes\n");
    assert_eq!(
        world.run("auth can-i --list").done().out,
        "role:admin,resource:*\naction:*\n"
    );
    world
        .run("auth can-i get servers/a b")
        .fails(2, "cannot ask", "given twice", "mcpctl auth can-i get servers/git");
    world.run("auth can-i").fails(
        2,
        "cannot read the command line",
        "required",
        "mcpctl auth can-i --help",
    );
}

#[test]
fn a_context_that_is_deleted_is_gone() {
    let world = World::new();
    let run = |line: &str| world.run_with(&[], &words(line), "");
    run("config set-context a --server http://127.0.0.1:1").done();
    run("config delete-context a").done();
    assert_eq!(run("config get-contexts -o name").done().out, "");
    run("config delete-context a").fails(3, "cannot delete context \"a\"", "no such", "get-contexts");
}
