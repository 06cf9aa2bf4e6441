//! The table of messages names the tests that see each row; this looks whether there are such tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files in which a test may be: its folder, and the names of the files there.
const FOLDERS: [&str; 3] = ["node/gateway/tests/it", "node/wire/tests/it", "node/wire/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tests_of(file: &str) -> BTreeSet<String> {
    let sources = FOLDERS.map(|folder| std::fs::read_to_string(root().join(folder).join(format!("{file}.rs"))));
    let mut found = BTreeSet::new();
    for source in sources.into_iter().flatten() {
        let mut is_test = false;
        for line in source.lines().map(str::trim) {
            if is_test && let Some((_, rest)) = line.split_once("fn ") {
                found.insert(rest.split('(').next().unwrap_or_default().to_owned());
            }
            is_test = line.starts_with("#[test") || line.starts_with("#[tokio::test");
        }
    }
    found
}

#[test]
fn every_row_of_the_table_of_messages_names_tests_that_there_are() {
    let table = std::fs::read_to_string(root().join("docs/MESSAGES.md")).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 25, "{}", rows.len());
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = last.split('`').filter(|part| part.contains("::")).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for name in named {
            let (file, test) = name.split_once("::").unwrap();
            assert!(tests_of(file).contains(test), "there is no test {name}");
        }
    }
}
