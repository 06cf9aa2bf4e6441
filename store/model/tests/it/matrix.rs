//! The golden matrix of rights (`tests/matrix/rights.txt`), whose expected values were written by hand: every kind of
//! subject, role, resource and verb, each action, groups, service accounts, tokens with their owners and their projects.
//! `UPDATE_EXPECT` does nothing here.

use std::collections::BTreeMap;

use mcp_model::authority::Rights;
use mcp_model::command::Actor;
use mcp_model::rbac::{Action, Resource, Verb};
use mcp_model::token::TokenHash;

use super::here;
use super::stories::founded;
use super::world::World;

const VERBS: [(char, Verb); 6] = [
    ('s', Verb::See),
    ('u', Verb::Use),
    ('c', Verb::Create),
    ('e', Verb::Update),
    ('d', Verb::Delete),
    ('g', Verb::Grant),
];
const ROLES: [&str; 6] = ["view", "run", "create", "delete", "edit", "admin"];
/// Each resource with a name inside of project `demo` where it has one, and a name outside.
const RESOURCES: [(&str, &str, &str); 14] = [
    ("users", "bob@example.com", "eve@example.com"),
    ("groups", "ops", "others"),
    ("serviceaccounts", "robot", "other"),
    ("projects", "demo", "other"),
    ("servers", "git", "time"),
    ("tools", "git/log", "time/now"),
    ("secrets", "git", "time"),
    ("mcptokens", "demo/ci", "other/ci"),
    ("rbac", "devs", "others"),
    ("audit", "demo", "other"),
    ("nodes", "node-1", "node-2"),
    ("prompts", "git/greet", "time/greet"),
    ("proxymodels", "small", "large"),
    ("sessions", "bob@example.com", "eve@example.com"),
];

/// A block of the file: its heading, and its rows of words.
type Block = (Vec<Vec<String>>, Vec<Vec<String>>);

fn blocks() -> Vec<Block> {
    let text = std::fs::read_to_string(here("matrix").join("rights.txt")).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        match line.strip_prefix("@ ") {
            Some(heading) => blocks.push((heading.split('|').map(words).collect(), Vec::new())),
            None => blocks.last_mut().unwrap().1.push(words(line)),
        }
    }
    blocks
}

/// A world in which `subject` was granted exactly `binding`, and who that is.
fn granted(subject: &str, binding: &str) -> World {
    let mut world = founded();
    let mut say = |line: &str| {
        let answers = world.line(line);
        assert!(!answers.iter().any(|a| a.contains("refused")), "{line}: {answers:?}");
    };
    for line in [
        "init admin@example.com",
        "as admin",
        "server git http",
        "server time http",
        "project demo git",
        "project other time",
        "user bob@example.com",
        "sa robot",
    ] {
        say(line);
    }
    match subject {
        "user" => say(&format!("grant it User:bob@example.com {binding}")),
        "group" => {
            say("group ops bob@example.com");
            say(&format!("grant it Group:ops {binding}"));
        }
        "serviceaccount" => say(&format!("grant it ServiceAccount:robot {binding}")),
        _ => {
            say("grant owner User:bob@example.com role:admin,resource:* action:*");
            say("as bob@example.com");
            say("token 7 ci in demo");
            say("as admin");
            // By a definition, so that it has also what it would not be minted with.
            say(&format!("grant it McpToken:{} {binding}", TokenHash([7; 32])));
        }
    }
    match subject {
        "token-of-viewer" => say("grant owner User:bob@example.com role:view,resource:*"),
        "token-of-nobody" => say("drop grant owner"),
        "token-of-disabled" => say("disable bob@example.com"),
        _ => {}
    }
    let who = match subject {
        "user" | "group" => "as bob@example.com",
        "serviceaccount" => "as sa robot",
        _ => "as token 7",
    };
    say(who);
    world
}

fn rights(world: &World) -> Option<Rights> {
    Rights::of(&world.tables, &world.actor, world.now_ms)
}

/// The verbs that are allowed, in the letters of the file.
fn allowed(rights: Option<&Rights>, resource: &str, name: &str) -> String {
    let resource: Resource = resource.parse().unwrap();
    let held = |(_, verb): &&(char, Verb)| rights.is_some_and(|r| r.allow(*verb, resource, name));
    let letters: String = VERBS.iter().filter(held).map(|(letter, _)| *letter).collect();
    if letters.is_empty() { ".".to_owned() } else { letters }
}

#[test]
fn everybody_may_do_what_the_matrix_says() {
    let beside: BTreeMap<(String, String, String), String> = blocks()
        .into_iter()
        .filter(|(heading, _)| heading[0] == ["beside"])
        .flat_map(|(_, rows)| rows)
        .flat_map(|row| {
            let pairs: Vec<_> = row[2..]
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect();
            let (role, on) = (row[0].clone(), row[1].clone());
            pairs
                .into_iter()
                .map(move |(other, verbs)| ((role.clone(), on.clone(), other), verbs))
        })
        .collect();
    assert_eq!(beside.len(), 8);
    let mut cells = 0;
    for (heading, rows) in blocks().into_iter().filter(|(heading, _)| heading.len() == 3) {
        let [subjects, granted_on, names] = heading.as_slice() else {
            unreachable!()
        };
        let (columns, rows) = rows.split_first().unwrap();
        let known: Vec<&str> = RESOURCES.iter().map(|(resource, ..)| *resource).collect();
        assert_eq!(*columns, known, "{heading:?}: a column for every resource");
        let roles: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(roles, ROLES, "{heading:?}: a row for every role");
        for subject in subjects {
            for row in rows {
                for (at, (resource, inside, outside)) in RESOURCES.iter().enumerate() {
                    let on = if granted_on[0] == "everything" { "*" } else { *resource };
                    let world = granted(subject, &format!("role:{},resource:{on}", row[0]));
                    let rights = rights(&world);
                    let name = if names[0] == "outside" { outside } else { inside };
                    let cell = format!("{subject}, {} on {on}: {resource} {name}", row[0]);
                    assert_eq!(allowed(rights.as_ref(), resource, name), row[at + 1], "{cell}");
                    cells += 1;
                    if on == "*" || subject.starts_with("token") {
                        continue;
                    }
                    for (other, name, _) in RESOURCES.iter().filter(|(other, ..)| other != resource) {
                        let key = (row[0].clone(), (*resource).to_owned(), (*other).to_owned());
                        let expected = beside.get(&key).map_or(".", String::as_str);
                        assert_eq!(
                            allowed(rights.as_ref(), other, name),
                            expected,
                            "{cell}, beside: {other}"
                        );
                    }
                }
            }
        }
    }
    // Six blocks of tokens and those of users, groups and service accounts: each has 6 roles on 14 resources.
    assert_eq!(cells, (3 + 3 + 4 + 1 + 2) * 6 * 14);
}

#[test]
fn actions_are_taken_as_the_matrix_says() {
    let mut cells = 0;
    for (heading, rows) in blocks() {
        let [what, subjects] = heading.as_slice() else { continue };
        assert_eq!(*what, ["actions"]);
        let (columns, rows) = rows.split_first().unwrap();
        for subject in subjects {
            for row in rows {
                let world = granted(subject, &format!("action:{}", row[0]));
                let rights = rights(&world).unwrap();
                for (asked, expected) in columns.iter().zip(&row[1..]) {
                    let action: Action = asked.parse().unwrap();
                    let answer = if rights.allow_action(action) { "y" } else { "." };
                    assert_eq!(answer, expected, "{subject}, granted {}: {asked}", row[0]);
                    cells += 1;
                }
                // An action is no right on anything.
                for (resource, name, _) in RESOURCES {
                    let held = allowed(Some(&rights), resource, name);
                    assert!(held == "." || subject == "token", "{subject}: {resource} {held}");
                }
            }
        }
    }
    assert_eq!(cells, 4 * 6 * 6);
}

#[test]
fn names_are_matched_as_the_matrix_says() {
    let (_, rows) = blocks()
        .into_iter()
        .find(|(heading, _)| heading[0] == ["names"])
        .unwrap();
    assert_eq!(rows.len(), 20);
    for row in rows {
        let [binding, verb, resource, name, expected] = row.as_slice() else {
            panic!("{row:?}")
        };
        let verb = match verb.as_str() {
            "view" => Verb::See,
            "run" => Verb::Use,
            "edit" => Verb::Update,
            other => panic!("{other}"),
        };
        for subject in ["user", "group", "serviceaccount"] {
            let world = granted(subject, binding);
            let allowed = rights(&world).unwrap().allow(verb, resource.parse().unwrap(), name);
            assert_eq!(if allowed { "yes" } else { "no" }, expected, "{subject}: {row:?}");
        }
    }
}

#[test]
fn nobody_is_allowed_anything() {
    let world = granted("user", "role:view,resource:audit");
    for actor in [
        Actor::User(mcp_model::ids::Id::from_u128(0xdead)),
        Actor::ServiceAccount(mcp_model::ids::Id::from_u128(0xdead)),
        Actor::Token(TokenHash([99; 32])),
    ] {
        assert!(Rights::of(&world.tables, &actor, 1_000).is_none(), "{actor:?}");
    }
}
