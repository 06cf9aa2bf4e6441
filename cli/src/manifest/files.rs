//! Documents from files, directories and standard input.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::Fault;
use crate::args::FilesArg;
use crate::failure::Failure;

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most documents in one run.
const DOCUMENTS_MAX: usize = 10_000;
/// Deepest directory below the one that was named.
const DEPTH_MAX: usize = 16;

/// A document: an object in YAML or JSON, or what it was found to be.
pub(crate) struct Document {
    pub(crate) origin: String,
    pub(crate) value: Value,
}

/// Reads everything that the command line names. What cannot be read as YAML is a fault beside the others.
pub(crate) fn documents(from: &FilesArg, faults: &mut Vec<Fault>) -> Result<Vec<Document>, Failure> {
    let mut all = Vec::new();
    for path in &from.files {
        if path.as_os_str() == "-" {
            let text = text(std::io::stdin().lock(), "standard input")?;
            read("standard input", &text, &mut all, faults);
            continue;
        }
        for file in files(path, from.recursive)? {
            let shown = file.display().to_string();
            let opened = fs::File::open(&file).map_err(|error| unreadable(&shown, &error.to_string()))?;
            read(&shown, &text(opened, &shown)?, &mut all, faults);
        }
    }
    if all.len() > DOCUMENTS_MAX {
        let why = format!("more than {DOCUMENTS_MAX} documents");
        return Err(Failure::new("cannot read the documents", why).next("apply them directory by directory"));
    }
    if all.is_empty() && faults.is_empty() {
        let why = "there is no document in what -f names (in a directory: in its .yaml, .yml and .json files)";
        return Err(Failure::new("cannot read the documents", why).next("mcpctl apply --help"));
    }
    Ok(all)
}

fn unreadable(path: &str, why: &str) -> Failure {
    Failure::usage(format!("cannot read {path}"), why).next(format!("ls -l {path}"))
}

fn text(from: impl Read, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = from.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| unreadable(name, &error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(name, &format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// The files that a path stands for, in the order of their names.
fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    walk(path, recursive, 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(dir: &Path, recursive: bool, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| unreadable(&dir.display().to_string(), &error.to_string());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ours = path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if path.is_dir() && recursive && depth < DEPTH_MAX {
            walk(&path, recursive, depth + 1, found)?;
        } else if ours && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Reads the documents of one text. A list stands for its elements; empty documents are passed over.
pub(crate) fn read(name: &str, text: &str, all: &mut Vec<Document>, faults: &mut Vec<Fault>) {
    for (at, document) in yaml_serde::Deserializer::from_str(text).enumerate() {
        let origin = format!("{name}, document {}", at + 1);
        // By way of YAML's own values: a key that stands there twice is an error in them.
        let value = yaml_serde::Value::deserialize(document).map_err(|e| e.to_string());
        let value = value.and_then(|value| serde_json::to_value(value).map_err(|e| e.to_string()));
        match value {
            Ok(Value::Null) => {}
            Ok(Value::Array(items)) => {
                let item = |(nth, value)| Document {
                    origin: format!("{origin}, element {}", nth + 1),
                    value,
                };
                all.extend(items.into_iter().enumerate().map(item));
            }
            Ok(value) => all.push(Document { origin, value }),
            Err(why) => {
                faults.push(Fault {
                    origin,
                    field: String::new(),
                    why: format!("not YAML: {why}"),
                    kind: None,
                });
                // Where the next document begins is not known after that.
                return;
            }
        }
    }
}
