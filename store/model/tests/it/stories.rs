//! Stories: a text file of commands, each followed by what it is answered. `UPDATE_EXPECT=1` rewrites the answers; whoever
//! does that reads the difference.
//!
//! ```text
//! as admin                      whoever speaks from here on: system, admin, a user's e-mail, token N
//! at 5000                       the proposer's clock, ms
//! token 7 ci in demo role:run,resource:servers      N is the byte its hash is made of
//! ```

use std::fmt::Write;

use mcp_model::command::Actor;
use mcp_model::tables::MemTables;

use super::world::World;
use super::{expect_file, here};

#[test]
fn stories_go_as_written() {
    let mut told = 0;
    for entry in std::fs::read_dir(here("stories")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        expect_file(&path, &tell(&text));
        told += 1;
    }
    assert!(told >= 6, "only {told} stories were found");
}

/// Tells one story of a folder.
pub(crate) fn check(folder: &str, name: &str) {
    let path = here(folder).join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    expect_file(&path, &tell(&text));
}

/// A world in which nothing has happened yet.
pub(crate) fn founded() -> World {
    World {
        tables: MemTables::default(),
        actor: Actor::System,
        now_ms: 1_000,
        index: 0,
        backup: Default::default(),
    }
}

fn tell(text: &str) -> String {
    let mut world = founded();
    let mut out = String::new();
    for line in text.lines().filter(|l| !l.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for answer in world.line(line) {
            writeln!(out, "  {answer}").unwrap();
        }
    }
    out
}
