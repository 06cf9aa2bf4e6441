//! Every decoder of every package, tried with bytes that nobody meant.
//!
//! A decoder is a function of bytes that may not panic; most also assert what must hold of what was read. They stand in the module
//! `decoders` of their package. Here they are told apart by name, `PACKAGE/DECODER`, fed with the examples in `seeds`, and with those altered:
//! the same way each time in `cargo test`, and guided by coverage with `tests/fuzz/run`.
//!
//! `decoders.txt` says for each source file in which something is decoded which of them covers it, so that a new one is noticed.

mod altered;

use std::fs;
use std::path::{Path, PathBuf};

pub use altered::Altered;

/// A decoder.
pub type Decode = fn(&[u8]);

/// Every decoder under its name.
pub fn all() -> Vec<(String, Decode)> {
    let packages: [(&str, &[(&str, Decode)]); 7] = [
        ("store", &mcp_store::decoders::ALL),
        ("raft", &mcp_raft::decoders::ALL),
        ("wire", &mcp_wire::decoders::ALL),
        ("gateway", &mcp_gateway::decoders::ALL),
        ("mcpd", &mcpd::decoders::ALL),
        ("mcpnode", &mcpnode::decoders::ALL),
        ("mcpctl", &mcpctl::decoders::ALL),
    ];
    let named = |package: &str, decoders: &[(&str, Decode)]| {
        let named = decoders
            .iter()
            .map(|(name, decode)| (format!("{package}/{name}"), *decode));
        named.collect::<Vec<_>>()
    };
    packages
        .into_iter()
        .flat_map(|(package, decoders)| named(package, decoders))
        .collect()
}

/// The decoder of that name.
pub fn named(name: &str) -> Option<Decode> {
    let mut all = all().into_iter();
    all.find_map(|(known, decode)| (known == name).then_some(decode))
}

/// Where the examples of a decoder lie.
pub fn seeds_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name)
}

/// The examples of a decoder, in the order of their names. Texts stand in `examples.txt` between lines of `----`, bytes in `examples.hex`, a
/// line each; whatever else lies there is an example of its own.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(seeds_of(name)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    paths.sort();
    let mut seeds = Vec::new();
    for path in paths {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        match path.file_name() {
            Some(name) if name == "examples.hex" => {
                let text = String::from_utf8(bytes).expect("examples.hex is text");
                seeds.extend(
                    text.lines()
                        .map(|line| unhex(line).unwrap_or_else(|| panic!("{line} is not hex"))),
                );
            }
            Some(name) if name == "examples.txt" => {
                let text = String::from_utf8(bytes).expect("examples.txt is text");
                seeds.extend(
                    text.split("\n----\n")
                        .map(|one| one.trim_end_matches('\n').as_bytes().to_vec()),
                );
            }
            _ => seeds.push(bytes),
        }
    }
    seeds
}

fn unhex(line: &str) -> Option<Vec<u8>> {
    let pairs = line.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::panic::catch_unwind;

    use super::*;

    /// Altered examples of each decoder.
    const ROUNDS: usize = 3_000;

    #[test]
    fn no_bytes_make_a_decoder_panic() {
        for (name, decode) in all() {
            let seeds = seeds(&name);
            assert!(
                !seeds.is_empty(),
                "{name} has no examples in {}",
                seeds_of(&name).display()
            );
            let altered = Altered::new(&seeds, 1).take(ROUNDS);
            for bytes in seeds.iter().cloned().chain(altered) {
                let held = catch_unwind(|| decode(&bytes));
                assert!(held.is_ok(), "{name} with {:?}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    /// What decodes, as it is written in sources.
    const DECODES: [&str; 11] = [
        "::from_slice",
        "from_str::<",
        "postcard::",
        "toml::from_str",
        "yaml_serde::",
        "serde_json::from_",
        "_from_pem",
        "from_pem",
        "x509_parser::",
        "fn parse(",
        "impl FromStr for",
    ];

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .unwrap()
    }

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" && name != "target" {
                sources(&path, found);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "decoders.rs" {
                found.push(path);
            }
        }
    }

    /// How many lines of a file decode something; its tests, which stand at its end, do not count.
    fn decoding_lines(path: &Path) -> usize {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines
            .filter(|line| DECODES.iter().any(|decodes| line.contains(decodes)))
            .count()
    }

    /// A line of `decoders.txt`: the file, how many lines of it decode, and the decoders that come there, or why none has to.
    #[test]
    fn every_file_that_decodes_has_a_decoder_that_comes_there() {
        let known: BTreeSet<String> = all().into_iter().map(|(name, _)| name).collect();
        let listed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("decoders.txt")).unwrap();
        let mut files = Vec::new();
        for folder in ["store", "raft", "node", "cli"] {
            sources(&root().join(folder), &mut files);
        }
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for file in files {
            let count = decoding_lines(&file);
            if count > 0 {
                let shown = file.strip_prefix(root()).unwrap().display().to_string();
                found.insert(shown, count);
            }
        }
        let mut used = BTreeSet::new();
        let mut told = BTreeMap::new();
        for line in listed.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let mut words = line.split_whitespace();
            let (file, count) = (words.next().unwrap(), words.next().unwrap().parse::<usize>().unwrap());
            let by: Vec<&str> = words.collect();
            assert!(!by.is_empty(), "{line}: by which decoder?");
            if by[0] != "none:" {
                for name in &by {
                    assert!(known.contains(*name), "{line}: there is no decoder {name}");
                    used.insert((*name).to_owned());
                }
            }
            told.insert(file.to_owned(), count);
        }
        for (file, count) in &found {
            assert_eq!(
                told.get(file),
                Some(count),
                "{file} decodes in {count} lines: see that a decoder of its package comes there, then note it in decoders.txt"
            );
        }
        for file in told.keys() {
            assert!(
                found.contains_key(file),
                "{file} decodes nothing any more: take it out of decoders.txt"
            );
        }
    }
}
