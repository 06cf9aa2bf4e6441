//! `mcpctl connect`: every client has a stanza, none has a token in it, and the documentation shows the same ones.

use crate::gateways::TOKEN;
use crate::world::{World, words};

/// The clients that the help names.
fn clients(world: &World) -> Vec<String> {
    let help = world.run("connect --help").done().out;
    let (_, values) = help.split_once("Possible values:").unwrap();
    let named = values.lines().filter_map(|line| line.trim().strip_prefix("- "));
    named.map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

fn stanza(world: &World, client: &str) -> String {
    let line = format!("connect {client} -p demo --server http://127.0.0.1:3200,http://127.0.0.1:3201");
    world.run_with(&[("MCPCTL_TOKEN", TOKEN)], &words(&line), "").done().out
}

#[test]
fn the_documentation_shows_what_connect_prints_for_every_client() {
    let world = World::without_session();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CLIENTS.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let clients = clients(&world);
    assert!(clients.len() >= 14, "{clients:?}");
    let mut text = docs.clone();
    for client in &clients {
        let stanza = stanza(&world, client);
        assert!(!stanza.contains("mcpctl_pat_"), "{client}: {stanza}");
        assert!(!stanza.contains("{{"), "{client}: a place was not filled: {stanza}");
        let begin = format!("<!-- mcpctl connect {client} -->\n```");
        let at = docs
            .find(&begin)
            .unwrap_or_else(|| panic!("docs/CLIENTS.md has no block {begin:?}"));
        let block = docs[at + begin.len()..].split_once('\n').unwrap().1;
        let shown = block.split_once("```").unwrap().0;
        text = text.replace(shown, &stanza);
        let same = shown == stanza || std::env::var_os("UPDATE_EXPECT").is_some();
        assert!(
            same,
            "docs/CLIENTS.md shows something else for {client} than mcpctl connect prints:\n{stanza}"
        );
    }
    if text != docs {
        std::fs::write(path, text).unwrap();
    }
}

#[test]
fn json_stanzas_are_json() {
    let world = World::without_session();
    for client in [
        "claude",
        "claude-desktop",
        "cursor",
        "vscode",
        "inspector",
        "mcp-remote",
    ] {
        let parsed: serde_json::Value = serde_json::from_str(&stanza(&world, client)).unwrap();
        assert!(parsed.is_object(), "{client}");
    }
}

#[test]
fn the_cluster_says_where_clients_go() {
    let world = World::new();
    let said = world.run("connect cursor -p demo").done();
    assert!(
        said.out.contains("\"http://127.0.0.1:3201/projects/demo/mcp\""),
        "{said:?}"
    );
    let said = world.run("connect claude-desktop -p demo").done();
    assert!(
        said.out
            .contains("\"http://127.0.0.1:3201,http://127.0.0.1:3202,http://127.0.0.1:3203\""),
        "{said:?}"
    );
    world
        .run("connect cursor")
        .fails(2, "cannot connect a client", "no project is named", "mcpctl connect");
    world
        .run("connect emacs -p demo")
        .fails(2, "cannot read the command line", "emacs", "mcpctl connect --help");
}
