//! The model from outside: stories as text, and the bytes of every command and record.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod ceiling;
mod golden;
mod matrix;
mod property;
mod recovery;
mod restore;
mod rules;
mod samples;
mod shapes;
mod stories;
mod world;

use std::path::{Path, PathBuf};

/// Compares with a checked-in file, or writes it when `UPDATE_EXPECT=1`.
fn expect_file(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        expected,
        actual,
        "\n{} differs; UPDATE_EXPECT=1 rewrites it",
        path.display()
    );
}

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder)
}
