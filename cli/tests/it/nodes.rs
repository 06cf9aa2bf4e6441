//! Several nodes: the next is tried when one is down, frozen or without a lease.

use crate::node::Mood;
use crate::world::World;

#[test]
fn a_node_that_is_down_or_frozen_is_passed_over() {
    let world = World::new();
    let (_listener, frozen) = world.frozen();
    let servers = format!("http://127.0.0.1:1,{frozen},{}", world.url);
    world.run_at(&servers, "create project demo").done();
    assert_eq!(
        world.run_at(&servers, "get projects -o name").done().out,
        "project/demo\n"
    );
    let said = world.run_at(&format!("http://127.0.0.1:1,{frozen}"), "get projects");
    let said = said.fails(1, "cannot list projects", "no node answers", "mcpctl config view");
    assert!(
        said.err.contains("no answer in time") && said.err.contains("refused"),
        "{said:?}"
    );
}

#[test]
fn a_write_whose_answer_was_lost_is_repeated_and_done_once() {
    let world = World::new();
    world.node.mood(Mood::AnswerLost);
    let said = world.run("create project demo");
    let said = said.fails(
        6,
        "cannot create project \"demo\"",
        "the outcome is not known",
        "safe to repeat",
    );
    assert!(!said.err.contains("exists already"), "{said:?}");
    world.node.mood(Mood::Fine);
    assert_eq!(world.run("get projects -o name").done().out, "project/demo\n");
}

#[test]
fn without_a_leader_nothing_is_changed_and_the_exit_code_is_5() {
    let world = World::new();
    world.node.mood(Mood::NoLeader);
    let said = world.run("create project demo");
    said.fails(
        5,
        "cannot create project \"demo\"",
        "nothing was changed",
        "mcpctl cluster status",
    );
    world.node.mood(Mood::Fine);
    assert_eq!(world.run("get projects -o name").done().out, "");
}

#[test]
fn nodes_are_listed_and_described() {
    let world = World::new();
    let said = world.run("get nodes").done();
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines[0],
        "NAME     ROLE    STATE         API                     GATEWAY"
    );
    assert_eq!(
        lines[3],
        "node-3   voter   unreachable   http://127.0.0.1:3103   http://127.0.0.1:3203"
    );
    assert!(
        world
            .run("describe node node-1")
            .done()
            .out
            .contains("State:         leader\n")
    );
    let said = world.run("version").done();
    assert_eq!(said.out.lines().count(), 2);
}
