//! What people see, word for word: help, tables, details, files, errors and exit codes. One text file per story; its lines
//! `$ mcpctl …` are run one after the other, and what they say stands below each.
//!
//! `UPDATE_EXPECT=1 cargo test -p mcpctl` writes the files anew; what changed in them is to be read before it is committed.

use std::path::Path;

use crate::node::Mood;
use crate::world::{World, words};

pub(crate) fn check(name: &str, world: &World, lines: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.txt"));
    let mut said = String::new();
    for line in lines {
        let Some((before, command)) = line.split_once("mcpctl") else {
            change(world, line);
            said.push_str(&format!("# {line}\n\n"));
            continue;
        };
        let done = match before {
            "" => world.run(command),
            "MCPCTL_SESSION= " => world.run_with(
                &[("MCPCTL_SERVER", &world.url), ("MCPCTL_SESSION", "")],
                &words(command),
                "",
            ),
            "MCPCTL_SERVER= " => world.run_with(&[], &words(command), ""),
            other => panic!("nothing is known of {other:?}"),
        };
        said.push_str(&format!("$ {line}\n"));
        said.push_str(&masked(&done.out, world));
        for line in masked(&done.err, world).lines() {
            said.push_str(format!("! {line}").trim_end());
            said.push('\n');
        }
        said.push_str(&format!("= {}\n\n", done.code));
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, said).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, expected, "{} is out of date: UPDATE_EXPECT=1", path.display());
}

fn change(world: &World, what: &str) {
    world.node.mood(match what {
        "the cluster has no leader" => Mood::NoLeader,
        "answers get lost" => Mood::AnswerLost,
        "one replica does not confirm" => Mood::OnePending,
        "one replica is dead" => Mood::OneRanOut,
        "all is well" => Mood::Fine,
        other => panic!("nothing is known of {other:?}"),
    });
}

/// The same without what differs from run to run: tokens, ids, times, addresses.
fn masked(text: &str, world: &World) -> String {
    let text = text.replace(&world.url, "http://NODE").replace(world.home(), "HOME");
    let mut out = String::new();
    for line in text.lines() {
        let mut rest = line;
        let spans = line.contains(" ago") || line.contains("in ") && !line.contains('`');
        while !rest.is_empty() {
            let word_end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(word_end.max(rest.chars().next().map_or(1, char::len_utf8)));
            out.push_str(&masked_word(word, spans));
            rest = after;
        }
        out.push('\n');
    }
    spaced(&out)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.')
}

fn masked_word(word: &str, spans: bool) -> String {
    let long = |prefix: &str, length: usize| word.strip_prefix(prefix).is_some_and(|rest| rest.len() == length);
    let uuid = word.len() == 36 && word.bytes().filter(|b| *b == b'-').count() == 4;
    let time = word.len() >= 20 && word.starts_with("20") && word.ends_with('Z') && word.contains('T');
    let span = word.len() > 1
        && word.ends_with(['s', 'm', 'h', 'd'])
        && word[..word.len() - 1].bytes().all(|b| b.is_ascii_digit());
    match word {
        _ if long("mcpctl_pat_", 43) => "TOKEN".to_owned(),
        _ if long("mcpctl_pat_", 4) => "PREFIX".to_owned(),
        _ if long("mcpctl_ses_", 43) => "SESSION".to_owned(),
        _ if uuid => "ID".to_owned(),
        _ if time => "TIME".to_owned(),
        _ if span && spans => "SPAN".to_owned(),
        word => word.to_owned(),
    }
}

/// Masks are of other lengths than what they stand for: columns lose their width.
fn spaced(text: &str) -> String {
    let masks = ["TOKEN", "PREFIX", "SESSION", "ID", "TIME", "SPAN", "NODE"];
    let masked = |line: &str| {
        let mut words = line.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        words.any(|word| masks.contains(&word))
    };
    let heads = |line: &str| line.contains("   ") && line.chars().all(|c| c.is_ascii_uppercase() || c == ' ');
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let below = lines[at + 1..].iter().take(3).any(|line| masked(line));
        if masked(line) || heads(line) && below {
            out.extend(line.chars().take_while(|c| *c == ' '));
            out.push_str(&line.split_whitespace().collect::<Vec<_>>().join(" "));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Every command there is, from the help of those above it.
pub(crate) fn commands(world: &World, path: &str, found: &mut Vec<String>) {
    let help = world.run(format!("{path} --help").trim()).done().out;
    found.push(format!("mcpctl{path} --help"));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in lines.take_while(|line| line.starts_with("  ")) {
        let name = line.split_whitespace().next().unwrap();
        if name != "help" && line.starts_with("  ") && !line.starts_with("   ") {
            commands(world, &format!("{path} {name}"), found);
        }
    }
}

#[test]
fn the_help_of_every_command() {
    let world = World::new();
    let mut found = Vec::new();
    commands(&world, "", &mut found);
    let lines: Vec<&str> = found.iter().map(String::as_str).collect();
    check("help", &world, &lines);
}

#[test]
fn what_there_is_in_every_format() {
    let world = World::new();
    check(
        "shown",
        &world,
        &[
            "mcpctl get projects",
            "mcpctl create server time --command uvx --arg mcp-server-time --description clock",
            "mcpctl create project demo --server time --tool-naming plain",
            "mcpctl create mcptoken ci -p demo --bind role:run,resource:servers --ttl 30d --description nightly",
            "mcpctl create rbac devs --subject User:alice@test.com --roleBindings role:edit,resource:servers --roleBindings action:logs",
            "mcpctl get projects",
            "mcpctl get projects -o wide",
            "mcpctl get project demo -o yaml",
            "mcpctl get project demo -o json",
            "mcpctl get projects -o name",
            "mcpctl get projects -o jsonpath={.items[*].metadata.name}",
            "mcpctl get servers",
            "mcpctl get server time -o yaml",
            "mcpctl get mcptokens",
            "mcpctl get mcptokens -o name",
            "mcpctl get mcptoken ci -p demo -o yaml",
            "mcpctl get rbac devs",
            "mcpctl get users",
            "mcpctl create user alice@test.com --no-password --name Alice",
            "mcpctl create group team --member alice@test.com",
            "mcpctl get groups",
            "mcpctl create serviceaccount deploy",
            "mcpctl get sa",
            "mcpctl create session --serviceaccount deploy",
            "mcpctl get sessions",
            "mcpctl get secrets",
            "mcpctl get nodes",
            "mcpctl describe project demo",
            "mcpctl describe server time",
            "mcpctl logs server time",
            "mcpctl logs server/time --node node-1 --tail 1 --timestamps",
            "mcpctl describe mcptoken ci -p demo",
            "mcpctl describe rbac devs",
            "mcpctl describe node node-3",
            "mcpctl whoami",
            "mcpctl auth can-i --list",
            "mcpctl api-resources",
            "mcpctl explain project",
            "mcpctl explain rbac.roleBindings",
            "mcpctl explain mcptoken",
            "mcpctl revoke mcptoken ci -p demo",
            "mcpctl delete project demo",
            "mcpctl version",
        ],
    );
}

#[test]
fn every_way_to_fail() {
    let world = World::new();
    check(
        "failures",
        &world,
        &[
            "mcpctl frobnicate",
            "mcpctl",
            "mcpctl config",
            "mcpctl get",
            "mcpctl get pods",
            "mcpctl get projects -o pdf",
            "mcpctl get project none",
            "MCPCTL_SESSION= mcpctl get projects",
            "mcpctl get mcptoken ci",
            "mcpctl describe project",
            "mcpctl logs server",
            "mcpctl logs project demo",
            "mcpctl logs server none",
            "mcpctl logs server time --since yesterday",
            "mcpctl logs server time --node node-9",
            "mcpctl create project demo",
            "mcpctl create project demo",
            "mcpctl create server x",
            "mcpctl create server BAD --url ftp://x --connect-ms 0",
            "mcpctl create rbac x --subject User:a@b.c --binding edit:servers:git --operation logs",
            "mcpctl create rbac x --subject User:a@b.c --roleBindings ''",
            "mcpctl create rbac x --subject User:a@b.c --roleBindings resource:servers",
            "mcpctl create rbac x --subject User:a@b.c --roleBindings rolle:view,resource:servers",
            "mcpctl create rbac x --subject User:a@b.c --roleBindings action:logs,role:view",
            "mcpctl create rbac x --subject Robot:a --roleBindings action:logs",
            "mcpctl create mcptoken t",
            "mcpctl create mcptoken t -p demo --ttl soon",
            "mcpctl create mcptoken t -p gone",
            "mcpctl create mcptoken t -p demo",
            "mcpctl create mcptoken t -p demo",
            "mcpctl create secret git --from-literal token=abc",
            "mcpctl delete node node-1",
            "mcpctl delete rbac admin",
            "mcpctl edit mcptoken t",
            "mcpctl rotate project demo",
            "mcpctl explain project.colour",
            "mcpctl wait mcptoken t -p demo --for revoked --timeout 0",
            "mcpctl apply -f missing.yaml",
            "mcpctl auth can-i run",
            "mcpctl config use-context none",
            "mcpctl --context none get projects",
            "mcpctl test mcp",
            "one replica does not confirm",
            "mcpctl revoke mcptoken t -p demo",
            "one replica is dead",
            "mcpctl revoke mcptoken t -p demo",
            "the cluster has no leader",
            "mcpctl create project late",
            "answers get lost",
            "mcpctl create project lost",
            "all is well",
            "mcpctl --api http://127.0.0.1:1 get projects",
        ],
    );
}

#[test]
fn masks_hide_what_differs_and_nothing_else() {
    let world = World::new();
    let token = format!("mcpctl_pat_{}", "a".repeat(43));
    let text = format!(
        "{token} x\nci   demo   mcpctl_pat_aaaa   5m ago\n01a1ee56-5e00-7202-8202-020202020202 at 2026-11-23T04:00:00Z\nplain  text\n"
    );
    assert_eq!(
        masked(&text, &world),
        "TOKEN x\nci demo PREFIX SPAN ago\nID at TIME\nplain  text\n"
    );
    assert_eq!(words("a 'b c'").len(), 2);
}
