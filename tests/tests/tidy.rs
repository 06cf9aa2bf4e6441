//! The architecture's absences, enforced: who may depend on whom, who may name what, and who may read a clock.
//!
//! Reads manifests and sources as text, so that it says what stands there and not what happens to compile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the workspace")
        .to_owned()
}

/// Packages with their folder and what they may depend on among ourselves. Development dependencies count for the tests'
/// sake only where they are named.
const PACKAGES: [(&str, &str, &[&str]); 11] = [
    ("mcp-model", "store/model", &[]),
    ("mcp-store", "store", &["mcp-model"]),
    ("mcp-api", "node/api", &["mcp-model"]),
    ("mcp-wire", "node/wire", &[]),
    ("mcp-raft", "raft", &["mcp-store", "mcp-model"]),
    ("mcp-gateway", "node/gateway", &["mcp-wire", "mcp-store", "mcp-model"]),
    ("mcpd", "node/mcpd", &["mcp-api", "mcp-store", "mcp-model"]),
    (
        "mcpnode",
        "node",
        &[
            "mcp-model",
            "mcp-store",
            "mcp-raft",
            "mcp-gateway",
            "mcpd",
            "mcp-api",
            "mcp-wire",
        ],
    ),
    ("mcpctl", "cli", &["mcp-api", "mcp-wire"]),
    (
        "mcp-tests",
        "tests",
        &["mcp-model", "mcp-store", "mcp-gateway", "mcp-wire", "mcp-api"],
    ),
    (
        "mcp-fuzz",
        "tests/fuzz",
        &[
            "mcp-store",
            "mcp-raft",
            "mcp-wire",
            "mcp-gateway",
            "mcpd",
            "mcpnode",
            "mcpctl",
        ],
    ),
];

/// Crates that only some packages may depend on.
const OWNED: [(&str, &[&str]); 4] = [
    ("openraft", &["mcp-raft"]),
    ("redb", &["mcp-store"]),
    ("clap", &["mcpctl", "mcpnode"]),
    ("rmcp", &["mcp-tests"]),
];

/// What the pure core may depend on: nothing that does I/O, knows the time, draws lots or waits.
const PURE: [&str; 8] = [
    "crc32c",
    "postcard",
    "serde",
    "serde_json",
    "sha2",
    "subtle",
    "thiserror",
    "uuid",
];

/// Files in which a clock is read.
const CLOCK_FILES: [&str; 2] = ["node/src/clock.rs", "cli/src/clock.rs"];

/// The visible top level.
const TOP: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "cli",
    "deploy",
    "docs",
    "node",
    "raft",
    "store",
];

fn dependencies(folder: &str) -> BTreeMap<String, toml::Value> {
    let path = root().join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let manifest: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let table = manifest.get("dependencies").and_then(toml::Value::as_table).cloned();
    table.unwrap_or_default().into_iter().collect()
}

/// The Rust sources of a folder, without those of packages inside it.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&root().join(folder).join("src"), &mut found);
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a file that are code: comments and documentation may name anything.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.to_owned()));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn the_arrows_between_packages_are_those_of_the_architecture() {
    let ours: BTreeSet<&str> = PACKAGES.iter().map(|(name, ..)| *name).collect();
    for (name, folder, allowed) in PACKAGES {
        for dependency in dependencies(folder).keys().filter(|d| ours.contains(d.as_str())) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn each_owned_crate_stays_with_its_owner() {
    for (name, folder, _) in PACKAGES {
        for dependency in dependencies(folder).keys() {
            for (owned, owners) in OWNED {
                assert!(
                    dependency != owned || owners.contains(&name),
                    "{name} must not depend on {owned}"
                );
            }
        }
    }
}

#[test]
fn clap_is_named_only_in_the_command_lines() {
    for path in sources("node") {
        if shown(&path) == "node/src/args.rs" {
            continue;
        }
        for (at, line) in code(&path) {
            let parses = shown(&path) == "node/src/lib.rs" && line.contains("clap::Parser");
            assert!(!line.contains("clap::") || parses, "{}:{at} names clap", shown(&path));
        }
    }
}

#[test]
fn the_model_depends_on_nothing_that_acts() {
    for dependency in dependencies("store/model").keys() {
        let fine = PURE.contains(&dependency.as_str()) || dependency == "zeroize";
        assert!(fine, "mcp-model must not depend on {dependency}");
    }
    let acts = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::time",
        "std::env",
        "std::process",
        "async fn",
        ".await",
    ];
    for path in sources("store/model") {
        for (at, line) in code(&path) {
            for word in acts {
                assert!(
                    !line.contains(word),
                    "{}:{at} has {word}: the model does no such thing",
                    shown(&path)
                );
            }
        }
    }
}

#[test]
fn clocks_are_read_in_one_file_per_program() {
    let reads = [
        "SystemTime::now",
        "Instant::now",
        "clock_gettime",
        "Utc::now",
        "Timestamp::now",
        "Zoned::now",
    ];
    for (_, folder, _) in PACKAGES.iter().filter(|(name, ..)| *name != "mcp-tests") {
        for path in sources(folder) {
            if CLOCK_FILES.contains(&shown(&path).as_str()) {
                continue;
            }
            for (at, line) in code(&path) {
                for word in reads {
                    assert!(!line.contains(word), "{}:{at} reads a clock with {word}", shown(&path));
                }
            }
        }
    }
}

#[test]
fn apply_is_called_by_the_store_alone() {
    for (name, folder, _) in PACKAGES {
        if name == "mcp-model" || name == "mcp-store" {
            continue;
        }
        for path in sources(folder) {
            for (at, line) in code(&path) {
                assert!(
                    !line.contains("apply::apply"),
                    "{}:{at} changes replicated state",
                    shown(&path)
                );
            }
        }
    }
}

#[test]
fn the_gateway_and_mcpd_write_through_their_ports_alone() {
    let writes = ["install_snapshot(", ".apply(&[", "TablesMut"];
    for folder in ["node/gateway", "node/mcpd"] {
        for path in sources(folder) {
            // Unit tests may play the cluster.
            if shown(&path).contains("test") || shown(&path).contains("fake") {
                continue;
            }
            for (at, line) in code(&path) {
                for word in writes {
                    assert!(!line.contains(word), "{}:{at} has {word}", shown(&path));
                }
            }
        }
    }
}

/// A node keeps every rule of the guarantee: other rules are for the simulation, and are nowhere else.
#[test]
fn nothing_but_the_simulation_breaks_a_rule() {
    let may = ["store/model/src/rules.rs", "tests/src/sim/mutant.rs"];
    for (_, folder, _) in PACKAGES {
        for path in sources(folder) {
            let other = code(&path).iter().any(|(_, line)| line.contains("Rules for "));
            assert!(
                !other || may.contains(&shown(&path).as_str()),
                "{} has rules of its own",
                shown(&path)
            );
        }
    }
}

#[test]
fn nothing_is_left_open_and_nothing_is_unsafe() {
    // Put together here, or this file would find itself.
    let words = [
        ["to", "do!("].concat(),
        ["FIX", "ME"].concat(),
        ["unimple", "mented!("].concat(),
        ["uns", "afe {"].concat(),
    ];
    for (_, folder, _) in PACKAGES {
        for path in sources(folder) {
            let text = fs::read_to_string(&path).expect("a source can be read");
            for word in &words {
                assert!(!text.contains(word.as_str()), "{} has {word}", shown(&path));
            }
        }
    }
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    for (name, folder, _) in PACKAGES {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest can be read");
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{name} does not take the workspace's lints"
        );
    }
}

#[test]
fn the_top_level_holds_what_it_should() {
    for entry in fs::read_dir(root()).expect("the workspace can be listed") {
        let name = entry
            .expect("an entry can be read")
            .file_name()
            .to_string_lossy()
            .into_owned();
        let fine = name.starts_with('.') || name == "tests" || name == "target" || TOP.contains(&name.as_str());
        assert!(fine, "{name} does not belong at the top level");
    }
}
