//! Under which names the tools of a project are shown: one rule for the gateway, the API and the audit.
//!
//! The name of a server has no underscore, so `server__tool` names one tool only. What is longer than allowed keeps its beginning and
//! ends in a part of its hash; should two names still be alike, the later one gets a longer part of it. Nothing depends on
//! anything but the servers in their order and the names of their tools, so every node arrives at the same names.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::records::ToolNaming;

/// Longest name, in bytes, that every client takes.
pub const NAME_BYTES_MAX: usize = 64;
/// Hexadecimal digits of a hash: what is tried, in this order.
const HASH_DIGITS: [usize; 4] = [8, 16, 32, 48];

/// A server with the names of its tools.
#[derive(Clone, Copy, Debug)]
pub struct Offering<'a> {
    /// The server.
    pub server: &'a str,
    /// Its tools, in its order.
    pub tools: &'a [&'a str],
}

/// The name of each tool of each server, in the order in which they came. `None`: a server named one tool twice, and this is the
/// second.
pub fn shown(naming: ToolNaming, offerings: &[Offering<'_>], bytes_max: usize) -> Vec<Vec<Option<String>>> {
    let colliding: HashSet<&str> = match naming {
        ToolNaming::Prefixed => HashSet::new(),
        ToolNaming::Plain => collisions(offerings).into_keys().collect(),
    };
    let mut taken: HashSet<String> = HashSet::new();
    // A name as its server gives it goes before one that was made.
    if naming == ToolNaming::Plain {
        let tools = offerings.iter().flat_map(|offering| offering.tools);
        let plain = tools.filter(|tool| !colliding.contains(**tool) && tool.len() <= bytes_max);
        taken.extend(plain.map(|tool| (*tool).to_owned()));
    }
    let name = |offering: &Offering<'_>| {
        let mut seen = HashSet::new();
        let mut names = Vec::with_capacity(offering.tools.len());
        for tool in offering.tools {
            if !seen.insert(*tool) {
                names.push(None);
                continue;
            }
            let is_plain = naming == ToolNaming::Plain && !colliding.contains(tool);
            if is_plain && tool.len() <= bytes_max {
                names.push(Some((*tool).to_owned()));
                continue;
            }
            let whole = match is_plain {
                true => (*tool).to_owned(),
                false => format!("{}__{tool}", offering.server),
            };
            names.push(free(whole, offering.server, bytes_max, &mut taken));
        }
        names
    };
    offerings.iter().map(name).collect()
}

/// The first form of a name that nothing else has.
fn free(whole: String, server: &str, bytes_max: usize, taken: &mut HashSet<String>) -> Option<String> {
    if whole.len() <= bytes_max && taken.insert(whole.clone()) {
        return Some(whole);
    }
    let mut hasher = Sha256::new();
    hasher.update(server.as_bytes());
    hasher.update([0]);
    hasher.update(whole.as_bytes());
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    for digits in HASH_DIGITS.into_iter().filter(|digits| digits + 1 < bytes_max) {
        let end = whole.floor_char_boundary(bytes_max - digits - 1);
        let short = format!("{}_{}", &whole[..end], &hash[..digits]);
        if taken.insert(short.clone()) {
            return Some(short);
        }
    }
    None
}

/// Names that tools of several servers have, with those servers.
pub fn collisions<'a>(offerings: &[Offering<'a>]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut servers_of: HashMap<&str, Vec<&str>> = HashMap::new();
    for offering in offerings {
        for tool in offering.tools {
            let servers = servers_of.entry(tool).or_default();
            if servers.last() != Some(&offering.server) {
                servers.push(offering.server);
            }
        }
    }
    servers_of
        .into_iter()
        .filter(|(_, servers)| servers.len() > 1)
        .collect()
}

/// Why a name is not offered to clients; `None`: it is. What cannot be seen, or turns what stands beside it around, can make one
/// name look like another, to a person who approves it and to a model that chooses.
pub fn unfit(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > 256 {
        return Some("it is longer than 256 bytes");
    }
    name.chars()
        .any(is_hidden)
        .then_some("it holds characters that cannot be seen")
}

/// Whether a character is none that people see: a control, something that turns the direction of a text, or nothing at all.
pub fn is_hidden(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    c.is_control() || invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(naming: ToolNaming, servers: &[(&str, &[&str])], bytes_max: usize) -> Vec<String> {
        let offerings: Vec<Offering<'_>> = servers
            .iter()
            .map(|(server, tools)| Offering { server, tools })
            .collect();
        let shown = shown(naming, &offerings, bytes_max);
        shown
            .into_iter()
            .flatten()
            .map(|name| name.unwrap_or_else(|| "-".into()))
            .collect()
    }

    #[test]
    fn prefixed_names_and_plain_ones() {
        let servers: &[(&str, &[&str])] = &[("one", &["b", "a"]), ("two", &["a", "c", "c"])];
        let prefixed = names(ToolNaming::Prefixed, servers, 64);
        assert_eq!(prefixed, ["one__b", "one__a", "two__a", "two__c", "-"]);
        let plain = names(ToolNaming::Plain, servers, 64);
        assert_eq!(plain, ["b", "one__a", "two__a", "c", "-"]);
    }

    #[test]
    fn a_tool_that_is_called_like_a_made_name_keeps_it_and_the_made_one_gives_way() {
        let servers: &[(&str, &[&str])] = &[("one", &["a"]), ("two", &["a"]), ("three", &["one__a"])];
        let plain = names(ToolNaming::Plain, servers, 64);
        assert!(plain[0].starts_with("one__a_"), "{plain:?}");
        assert_eq!(plain[1..], ["two__a", "one__a"]);
    }

    #[test]
    fn long_names_are_short_all_different_and_the_same_everywhere() {
        let tools: Vec<String> = (0..3_000).map(|at| format!("{}{at}", "x".repeat(90))).collect();
        let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
        for naming in [ToolNaming::Prefixed, ToolNaming::Plain] {
            let servers: &[(&str, &[&str])] = &[("one", &tools), ("two", &tools)];
            let all = names(naming, servers, 64);
            assert_eq!(all, names(naming, servers, 64));
            assert!(
                all.iter()
                    .all(|name| name.len() <= 64 && name.starts_with("one__x") | name.starts_with("two__x"))
            );
            let different: HashSet<&String> = all.iter().collect();
            assert_eq!(different.len(), 6_000);
        }
        let wide = "é".repeat(60);
        let cut = names(ToolNaming::Plain, &[("one", &[&wide])], 64);
        assert!(cut[0].len() <= 64 && cut[0].starts_with("éé"), "{cut:?}");
    }

    #[test]
    fn two_long_names_with_the_same_short_hash_are_told_apart() {
        let mut taken = HashSet::new();
        let long = "y".repeat(80);
        let first = free(long.clone(), "s", 64, &mut taken).unwrap();
        let second = free(long.clone(), "s", 64, &mut taken).unwrap();
        let third = free(long, "s", 64, &mut taken).unwrap();
        assert!(first != second && second != third && first != third);
        assert!([&first, &second, &third].iter().all(|name| name.len() == 64));
    }

    #[test]
    fn names_that_hide_something_are_unfit() {
        for good in ["search", "list_issues", "a.b/c-d", "größe", "検索"] {
            assert_eq!(unfit(good), None, "{good}");
        }
        let bad = [
            "",
            "a\u{1b}[31mb",
            "a\nb",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{feff}",
            "a\u{2066}b\u{2069}",
            "a\u{e0041}",
            "a\u{0}",
            "a\u{7f}",
            "a\u{9b}31m",
            "a\u{ad}b",
        ];
        for name in bad {
            assert!(unfit(name).is_some(), "{name:?}");
        }
        assert!(unfit(&"x".repeat(257)).is_some());
    }
}
